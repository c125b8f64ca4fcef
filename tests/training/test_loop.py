import json
import math
import multiprocessing

import pytest
import torch
from point_trainings import ITEMS, SEED, Points, logged, loss, new_model, train, train_until_killed
from torch import nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.training.metrics import DivergedError
from m2pt.training.sampling import TrainingBatches


class Broken(Points):
    def load(self, index):
        if index == 7:
            raise OSError("item 7 cannot be read")
        return super().load(index)


def test_it_equals_a_plain_loop_written_by_hand(tmp_path):
    # written out: AdamW in its definition, one batch of 8, warmup and cosine, clipping by the norm
    trained = train(tmp_path, warmup_steps=2, weight_decay=0.1, betas=(0.8, 0.9), clip_grad=0.5)
    plain, data = new_model(), Points(SEED)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in plain.named_parameters()}
    recorded = []
    for step, keys in enumerate(TrainingBatches(ITEMS, batch_size=8, seed=SEED, stop=6)):
        lr = 0.01 * (step / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 4)) / 2)
        points, labels = zip(*(data[key] for key in keys), strict=True)
        value = functional.cross_entropy(plain(torch.stack(points)), torch.tensor(labels))
        recorded.append({"step": step + 1, "epoch": step // 2 + 1, "loss": value.item(), "lr": lr})
        gradients = torch.autograd.grad(value, list(plain.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        with torch.no_grad():
            for (name, p), g in zip(plain.named_parameters(), gradients, strict=True):
                g = g * min(1.0, 0.5 / norm.item())
                first, second = moments[name]
                first.mul_(0.8).add_(g, alpha=0.2)
                second.mul_(0.9).addcmul_(g, g, value=0.1)
                update = first / (1 - 0.8 ** (step + 1)) / ((second / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
                p -= lr * (update + (0.1 * p if p.ndim > 1 else 0))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(trained.get_parameter(name), parameter, rtol=1e-4, atol=1e-6)
    for ours, expected in zip(logged(tmp_path), recorded, strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)


def test_accumulation_changes_nothing_but_rounding(tmp_path):
    split = train(tmp_path / "split", batch_size=2, accumulation=4)
    whole = train(tmp_path / "whole", batch_size=8, accumulation=1)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(split.get_parameter(name), parameter, rtol=1e-4, atol=1e-6)


def test_a_finished_training_is_not_repeated(tmp_path):
    trained = train(tmp_path)
    marker = json.loads((tmp_path / "finished.json").read_text())
    assert marker.pop("seconds") >= 0
    assert marker == {"identity": "feed", "step": 6}

    def unexpected(model, batch):
        raise AssertionError("trained again")

    again = train(tmp_path, loss=unexpected)
    for name, parameter in trained.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)


def test_another_identity_starts_over_and_logs_it(tmp_path, capsys):
    train(tmp_path)
    changed = train(tmp_path, identity="f00d", lr=0.02)
    assert "feed before, f00d now" in capsys.readouterr().err
    assert "feed before, f00d now" in (tmp_path / "train.log").read_text()
    alone = train(tmp_path / "alone", identity="f00d", lr=0.02)
    for name, parameter in alone.named_parameters():
        assert torch.equal(changed.get_parameter(name), parameter)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()


def test_divergence_is_reported_with_step_lr_and_checkpoint(tmp_path):
    calls = []

    def exploding(model, batch):
        calls.append(0)
        value, _ = loss(model, batch)
        return value * (math.inf if len(calls) == 2 * 5 else 1), {}

    with pytest.raises(DivergedError, match=r"inf at step 5, .*0\.0025.*resume\.pt \(step 4\)"):
        train(tmp_path, loss=exploding, log_every=50, checkpoint_every=2)
    marker = json.loads((tmp_path / "failed.json").read_text())
    assert "at step 5" in marker["reason"]
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 4
    train(tmp_path, checkpoint_every=2)
    assert not (tmp_path / "failed.json").exists()


def test_divergence_in_the_first_step_has_no_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match=r"nan at step 1, .*checkpoint: none yet"):
        train(tmp_path, loss=lambda model, batch: (loss(model, batch)[0] * math.nan, {}))
    assert not (tmp_path / "resume.pt").exists()


def test_non_finite_weights_are_not_saved(tmp_path):
    def finite_but_steep(model, batch):
        weight = next(model.parameters())
        return loss(model, batch)[0] + (0 * weight).abs().sqrt().sum(), {}

    with pytest.raises(DivergedError, match=r"a weight is not finite at step 1, .*checkpoint: none yet"):
        train(tmp_path, loss=finite_but_steep, checkpoint_every=1)
    assert not (tmp_path / "resume.pt").exists()


def test_snapshots_and_descriptions_follow_their_epochs(tmp_path):
    weights = {}
    train(
        tmp_path,
        snapshots={epoch: lambda m, e=epoch: weights.update({e: m[0].weight.clone()}) for epoch in (1, 3)},
        describe=lambda m: {"mean": m[0].weight.mean().item()},
    )
    described = {line["epoch"]: line["mean"] for line in logged(tmp_path) if "mean" in line}
    assert described.keys() == {1, 2, 3}
    assert {epoch: weight.mean().item() for epoch, weight in weights.items()} == {
        e: described[e] for e in (1, 3)
    }
    with pytest.raises(InputError, match="after epoch 4"):
        train(tmp_path, snapshots={4: lambda m: None})


def test_frozen_parameters_do_not_change(tmp_path):
    start = new_model()
    start[0].requires_grad_(False)
    trained = train(tmp_path, model=start, weight_decay=0.5)
    fresh = new_model()
    assert torch.equal(trained[0].weight, fresh[0].weight)
    assert not torch.equal(trained[2].weight, fresh[2].weight)


def test_failed_json_is_written_and_removed_by_the_next_success(tmp_path):
    train(tmp_path)
    with pytest.raises(InputError, match="after epoch 9"):
        train(tmp_path, snapshots={9: lambda m: None})
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert failed["step"] == 0 and failed["reason"].startswith(
        "InputError: cannot take a snapshot after epoch 9"
    )
    train(tmp_path)
    assert not (tmp_path / "failed.json").exists()


def test_an_unreadable_item_is_named_and_leaves_no_worker(tmp_path):
    with pytest.raises(OSError, match="item 7 cannot be read"):
        train(tmp_path, dataset=Broken(3), num_workers=1)
    assert "item 7" in json.loads((tmp_path / "failed.json").read_text())["reason"]
    assert not multiprocessing.active_children()


def test_repeat_step_reuses_the_gradient_and_clips_only_the_last_step(tmp_path):
    plain = {"steps": 1, "epochs": None, "accumulation": 1, "optimizer": "sgd", "lr": 0.1}
    plain |= {"optimizer_args": {"momentum": 0.0, "nesterov": False}, "precision": "no"}
    begin = nn.utils.parameters_to_vector(new_model().parameters())

    def update(name, **changes):
        trained = train(tmp_path / name, **plain, **changes)
        return (nn.utils.parameters_to_vector(trained.parameters()) - begin).detach()

    once, twice = update("once"), update("twice", repeat_step=2)
    assert torch.allclose(twice, 2 * once, atol=1e-6)
    clipped = update("clipped", repeat_step=2, clip_grad=1e-3)
    assert torch.allclose(clipped, once + once / once.norm() * 0.1 * 1e-3, atol=1e-6)


@pytest.mark.usefixtures("fresh_accelerate")
def test_bf16_autocasts_the_forward_pass_and_keeps_float32_weights(tmp_path):
    dtypes = set()
    start = new_model()
    start[2].register_forward_pre_hook(lambda module, inputs: dtypes.add(inputs[0].dtype))
    trained = train(tmp_path, model=start, precision="bf16", device="cpu")
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert trained(torch.zeros(1, 5)).dtype == torch.float32
    assert logged(tmp_path)[-1]["loss"] < 2


def test_a_compiled_model_trains_to_the_same_weights_to_rounding(tmp_path, monkeypatch):
    compiled = []

    def compile_eagerly(module):
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    plain, other = train(tmp_path / "plain"), train(tmp_path / "compiled", compile=True)
    assert compiled == [other]
    assert list(other.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_tf32_is_as_the_recipe_says(tmp_path):
    for tf32 in (True, False):
        train(tmp_path / str(tf32), tf32=tf32)
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is tf32


def test_checkpointed_activations_need_a_model_that_has_them(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.enabled = new_model(), False

        def set_grad_checkpointing(self, enable=True):
            self.enabled = enable

        def forward(self, x):
            return self.inner(x)

    assert train(tmp_path / "a", model=Model(), activation_checkpointing=True).enabled
    with pytest.raises(InputError, match="has no set_grad_checkpointing"):
        train(tmp_path / "b", activation_checkpointing=True)


class Convolutions(nn.Module):
    """Makes images of points, and convolves them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.up = nn.ConvTranspose2d(5, 6, 2, stride=2)
        self.inner = nn.Sequential(nn.Conv2d(6, 8, 2), nn.GELU(), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x):
        return self.inner(self.up(x[..., None, None]))


def test_with_the_channels_last_nothing_changes_but_rounding(tmp_path):
    plain = train(tmp_path / "plain", model=Convolutions())
    other = train(tmp_path / "last", model=Convolutions(), channels_last=True)
    assert list(other.state_dict()) == list(plain.state_dict())
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])
    for module in (other.up, other.inner[0]):
        assert module.weight.is_contiguous(memory_format=torch.channels_last)
        assert not module.weight.is_contiguous()


def test_with_the_channels_last_a_resumed_training_has_the_same_bits(tmp_path):
    whole = train(tmp_path / "whole", model=Convolutions(), channels_last=True)
    train_until_killed(tmp_path / "killed", model=Convolutions(), channels_last=True)
    resumed = train(tmp_path / "killed", model=Convolutions(), channels_last=True)
    restored = train(tmp_path / "killed", model=Convolutions(), channels_last=True)  # of final.pt
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
        assert torch.equal(restored.state_dict()[name], value)


def test_channels_are_only_last_in_images(tmp_path):
    with pytest.raises(InputError, match="channels_last: Sequential has no 2-D convolution; leave it out"):
        train(tmp_path, channels_last=True)


def test_checkpoints_come_by_the_clock_as_well(tmp_path, monkeypatch):
    from m2pt.training import state

    saved = []
    monkeypatch.setattr(state.TrainingState, "save", lambda self, _: saved.append(self.step))
    train(tmp_path / "often", checkpoint_minutes=1e-9)
    assert saved == [1, 2, 3, 4, 5]
    saved.clear()
    train(tmp_path / "seldom", checkpoint_minutes=1000.0, checkpoint_every=4)
    assert saved == [4]
