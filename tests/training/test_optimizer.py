import math

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from m2pt import pathway
from m2pt.errors import InputError
from m2pt.training.optimizer import create_optimizer, create_schedule, current_lr, parameter_groups
from m2pt.training.settings import StepDecay, TrainingSettings

DEPTH = 3


def vit() -> VisionTransformer:
    return VisionTransformer(
        img_size=8,
        patch_size=4,
        embed_dim=16,
        depth=DEPTH,
        num_heads=2,
        num_classes=5,
        global_pool="avg",
        class_token=True,
    )


def settings(**changes):
    return TrainingSettings(**({"steps": 100, "batch_size": 8, "lr": 0.1} | changes))


def by_name(model, groups):
    """Return the group of each parameter; each trainable parameter must be in exactly one."""
    owners = [(id(p), group) for group in groups for p in group["params"]]
    assert len({key for key, _ in owners}) == len(owners)
    owner = dict(owners)
    found = {name: owner[id(p)] for name, p in model.named_parameters() if id(p) in owner}
    assert len(found) == len(owners)
    return found


def attached() -> VisionTransformer:
    model = vit()
    pathway.attach(model.blocks, vit().blocks)
    return model


def test_layer_decay_follows_the_closed_form():
    model = attached()
    dict(model.named_parameters())["blocks.1.mlp.fc1.weight"].requires_grad_(False)
    found = by_name(model, parameter_groups(model, settings(layer_decay=0.65, weight_decay=0.05)))
    assert "blocks.1.mlp.fc1.weight" not in found
    assert len(found) == sum(p.requires_grad for p in model.parameters())
    for name, group in found.items():
        layer = 0 if name.split(".")[0] in ("cls_token", "pos_embed", "patch_embed") else DEPTH + 1
        if name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        assert group["lr_scale"] == pytest.approx(0.65 ** (DEPTH + 1 - layer)), name


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_vectors_and_excluded_parameters_do_not_decay(layer_decay):
    model = vit()
    found = by_name(model, parameter_groups(model, settings(layer_decay=layer_decay, weight_decay=0.05)))
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
        assert found[name]["weight_decay"] == (0.05 if decays else 0.0), name


def test_scales_have_their_own_lr_through_the_schedule():
    model = attached()
    chosen = settings(
        layer_decay=0.5, weight_decay=0.05, scale_lr=0.02, scale_weight_decay=0.3, warmup_steps=10
    )
    optimizer = create_optimizer(model, chosen)
    schedule = create_schedule(optimizer, chosen, steps_per_epoch=10)
    found = by_name(model, optimizer.param_groups)
    for step, factor in ((5, 0.5), (10, 1.0), (55, 0.5)):
        schedule.step_update(step)
        assert current_lr(optimizer) == pytest.approx(0.1 * factor)
        for name in pathway.scales(model):
            assert found[name]["lr"] == pytest.approx(0.02 * factor)
            assert found[name]["weight_decay"] == 0.3
        assert found["blocks.0.attn.qkv.pathways.auxiliary.weight"]["lr"] == pytest.approx(
            0.1 * factor * 0.5**DEPTH
        )


def test_scales_without_their_own_lr_use_that_of_their_layer():
    model = attached()
    found = by_name(model, parameter_groups(model, settings(layer_decay=0.5, weight_decay=0.05)))
    for name in pathway.scales(model):
        assert found[name]["lr_scale"] == found[name.replace(".scale", ".weight")]["lr_scale"]
        assert found[name]["weight_decay"] == 0.0
        assert all(p.shape == (1,) for p in found[name]["params"])


def test_a_frozen_model_trains_only_head_and_scales():
    model = attached()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head.") or pathway.is_scale(name))
    optimizer = create_optimizer(model, settings(optimizer="lars", scale_lr=0.01))
    names = {"head.weight", "head.bias", *pathway.scales(model)}
    assert set(by_name(model, optimizer.param_groups)) == names


def test_the_schedule_is_a_linear_warmup_and_a_half_cosine():
    # facts §2.2, MAE: lr·t/w during the warmup, then min + (lr - min)/2·(1 + cos π(t - w)/(T - w))
    model = vit()
    chosen = settings(
        steps=None,
        epochs=10,
        warmup_epochs=2,
        min_lr=1e-3,
        layer_decay=0.65,
        batch_size=128,
        lr=None,
        blr=0.4,
    )
    optimizer = create_optimizer(model, chosen)  # peak 0.8·64/256 = 0.2
    schedule = create_schedule(optimizer, chosen, steps_per_epoch=7)
    for step in range(70):
        schedule.step_update(step)
        expected = 0.2 * step / 14
        if step >= 14:
            expected = 1e-3 + (0.2 - 1e-3) / 2 * (1 + math.cos(math.pi * (step - 14) / 56))
        assert current_lr(optimizer) == pytest.approx(expected)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"])


def test_the_learning_rate_falls_in_steps_as_torch_s_does():
    model = nn.Linear(3, 2)
    optimizer = create_optimizer(model, settings(steps=None, epochs=9))
    chosen = settings(steps=None, epochs=9, step_decay=StepDecay(epochs=2, rate=0.3))
    schedule = create_schedule(optimizer, chosen, steps_per_epoch=5)
    reference = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    steps = torch.optim.lr_scheduler.StepLR(reference, step_size=2, gamma=0.3)
    for step in range(45):
        schedule.step_update(step)
        assert current_lr(optimizer) == pytest.approx(reference.param_groups[0]["lr"])
        reference.step()
        if step % 5 == 4:
            steps.step()


def test_steps_follow_the_warmup():
    chosen = settings(steps=None, epochs=9, warmup_epochs=1, step_decay=StepDecay(epochs=2, rate=0.3))
    optimizer = create_optimizer(nn.Linear(3, 2), chosen)
    schedule = create_schedule(optimizer, chosen, steps_per_epoch=10)
    for step, lr in ((0, 0.0), (5, 0.05), (10, 0.1), (29, 0.1), (30, 0.03), (50, 0.009)):
        schedule.step_update(step)
        assert current_lr(optimizer) == pytest.approx(lr)


def rates(chosen: TrainingSettings, steps_per_epoch: int) -> list[float]:
    """The learning rate of each step."""
    optimizer = create_optimizer(nn.Linear(3, 2), chosen)
    schedule = create_schedule(optimizer, chosen, steps_per_epoch)
    found = []
    for step in range(chosen.length(steps_per_epoch)):
        schedule.step_update(step)
        found.append(current_lr(optimizer))
    return found


def test_point_mae_s_schedule_has_the_cosine_under_the_warmup():
    """timm's CosineLRScheduler as Point-MAE builds it: lr_min and warmup_lr_init 1e-6, no prefix."""
    chosen = settings(
        steps=None, epochs=30, warmup_epochs=1, warmup_lr=1e-6, warmup_prefix=False, min_lr=1e-6, lr=2e-4
    )
    for step, rate in enumerate(rates(chosen, 10)):
        expected = 1e-6 + (2e-4 - 1e-6) * step / 10
        if step >= 10:
            expected = 1e-6 + (2e-4 - 1e-6) / 2 * (1 + math.cos(math.pi * step / 300))
        assert rate == pytest.approx(expected, rel=1e-9)


def test_mmseg_s_schedule_is_linear():
    for step, rate in enumerate(rates(settings(steps=60, warmup_steps=12, decay="linear", lr=0.3), 10)):
        assert rate == pytest.approx(0.3 * (step / 12 if step < 12 else (60 - step) / 48))


@pytest.mark.parametrize("warmup", [None, 7])
def test_steps_may_be_given(warmup):
    """detectron2's WarmupParamScheduler over a MultiStepParamScheduler, as ViTDet has it."""
    chosen = settings(
        steps=40, warmup_steps=warmup, warmup_lr=1e-4, lr=0.1, step_decay=StepDecay(at=(20, 31), rate=0.1)
    )
    for step, rate in enumerate(rates(chosen, 10)):
        expected = 0.1 * (1.0 if step < 20 else 0.1 if step < 31 else 0.01)
        if warmup and step < warmup:
            expected = 1e-4 + (0.1 - 1e-4) * step / warmup
        assert rate == pytest.approx(expected)


def test_biases_decay_except_those_of_norms():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    decays = {}
    for group in parameter_groups(model, settings(weight_decay=0.1, decay_biases=True)):
        decays |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    found = {name: decays[id(parameter)] for name, parameter in model.named_parameters()}
    assert found == {
        "0.weight": 0.1,
        "0.bias": 0.1,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.1,
        "2.bias": 0.1,
        "3.weight": 0.0,
        "3.bias": 0.0,
    }


def test_every_parameter_decays_where_the_recipe_says_so():
    model = attached()
    chosen = settings(weight_decay=0.05, decay_vectors=True, scale_weight_decay=0.3)
    for name, group in by_name(model, parameter_groups(model, chosen)).items():
        assert group["weight_decay"] == (0.3 if pathway.is_scale(name) else 0.05), name


def test_lars_adapts_matrices_only():
    # without decay: step = lr · 0.001·‖w‖/‖g‖ · g for a matrix, lr · g for a vector, as in MAE's probe
    model = nn.Linear(6, 4)
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    gradients = {name: np.random.default_rng(1).normal(size=p.shape) for name, p in model.named_parameters()}
    chosen = settings(optimizer="lars", lr=6.4, optimizer_args={"momentum": 0.9, "always_adapt": True})
    optimizer = create_optimizer(model, chosen)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.tensor(gradients[name], dtype=torch.float32)
    optimizer.step()
    trust = 0.001 * np.linalg.norm(before["weight"]) / np.linalg.norm(gradients["weight"])
    np.testing.assert_allclose(
        model.weight.detach().numpy(), before["weight"] - 6.4 * trust * gradients["weight"], rtol=1e-4
    )
    np.testing.assert_allclose(
        model.bias.detach().numpy(), before["bias"] - 6.4 * gradients["bias"], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        ({"optimizer": "adamw", "betas": (0.9, 0.95)}, "AdamW"),
        ({"optimizer": "sgd", "optimizer_args": {"momentum": 0.8}}, "SGD"),
        ({"optimizer": "lamb"}, "Lamb"),
    ],
)
def test_optimizers_receive_their_arguments(chosen, kind):
    optimizer = create_optimizer(nn.Linear(3, 2), settings(**chosen))
    assert type(optimizer).__name__ == kind
    given = {"betas": chosen.get("betas"), **chosen.get("optimizer_args", {})}
    for group in optimizer.param_groups:
        assert all(group[name] == value for name, value in given.items() if value is not None)


def test_invalid_settings_are_named():
    with pytest.raises(InputError, match="momentums"):
        create_optimizer(nn.Linear(3, 2), settings(optimizer_args={"momentums": 0.9}))
    with pytest.raises(InputError, match="group_matcher"):
        create_optimizer(nn.Linear(3, 2), settings(layer_decay=0.5))
    with pytest.raises(InputError, match="no trainable parameter"):
        create_optimizer(nn.Linear(3, 2).requires_grad_(False), settings())
    chosen = settings(steps=5, warmup_epochs=1)
    with pytest.raises(InputError, match="warmup of 10 steps"):
        create_schedule(create_optimizer(nn.Linear(3, 2), chosen), chosen, steps_per_epoch=10)
