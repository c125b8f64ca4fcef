"""Removing, switching, scaling, grouping and counting pathways; merging a part, and until `unmerge`."""

import copy
from typing import Any

import pytest
import torch
from small_vit import images, train, vit
from torch import nn
from torch.nn import functional as F

from m2pt.pathway import (
    PathwayError,
    attach,
    auxiliaries,
    detach,
    disabled,
    effective_weight,
    is_scale,
    merge,
    parameter_groups,
    scaled,
    scales,
    summary,
    unmerge,
)


def attached(*names: str, scale: float = 0.3) -> nn.Module:
    model = vit()
    for number, name in enumerate(names or ("audio", "video"), start=1):
        attach(model, {name: vit(seed=number)}, scale_init=scale * number)
    return model


def test_detach_leaves_w_and_the_other_auxiliaries() -> None:
    model = attached()
    expected = attached("audio")(images())
    assert detach(model, "video") is model and auxiliaries(model) == ["audio"]
    assert torch.equal(model(images()), expected)
    assert list(detach(model).state_dict()) == list(vit().state_dict())
    assert type(model.blocks[0]) is type(vit().blocks[0]) and auxiliaries(model) == []
    assert torch.equal(model(images()), vit()(images()))


def test_disabled_inside_a_with_block_only() -> None:
    model = attached()
    before, audio = model(images()), attached("audio")(images())
    with disabled(model, "video"):
        assert torch.equal(model(images()), audio)
        with disabled(model):
            assert torch.equal(model(images()), vit()(images()))
        assert torch.equal(model(images()), audio)
    with pytest.raises(RuntimeError, match="ours"), disabled(model, ["audio"]):
        raise RuntimeError("ours")
    assert torch.equal(model(images()), before)


@pytest.mark.parametrize("factor", [0, 0.5, -2])
def test_a_sweep_over_the_scales_needs_no_training(factor: float) -> None:
    model = attached()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with scaled(model, factor):
        torch.testing.assert_close(model(images()), attached(scale=0.3 * factor)(images()))
    one = vit()
    for seed, (name, scale) in enumerate({"audio": 0.3 * factor, "video": 0.6}.items(), start=1):
        attach(one, {name: vit(seed=seed)}, scale_init=scale)
    with scaled(model, factor, "audio"):
        torch.testing.assert_close(model(images()), one(images()))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_switches_and_factors_that_overlap_end_each_for_itself() -> None:
    model = attached()
    before = model(images())
    first, second = disabled(model), disabled(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(model(images()), vit()(images()))
    second.__exit__(None, None, None)
    assert torch.equal(model(images()), before)
    double, half = scaled(model, 2), scaled(model, 0.5)
    double.__enter__()
    half.__enter__()
    assert torch.equal(model(images()), before)
    double.__exit__(None, None, None)
    torch.testing.assert_close(model(images()), attached(scale=0.15)(images()))
    half.__exit__(None, None, None)
    assert torch.equal(model(images()), before)


def test_what_is_loaded_trained_or_copied_in_a_scaled_block_is_of_the_learned_scales() -> None:
    model = attached()
    learned = scales(model)
    with scaled(model, 2):
        twice = copy.deepcopy(model)
        loss = F.cross_entropy(model(images()), torch.tensor([0, 1, 2]))
        assert scales(model) == learned
    loss.backward()  # of the factor that was set in the forward
    reference = attached(scale=0.6)
    F.cross_entropy(reference(images()), torch.tensor([0, 1, 2])).backward()
    for name, value in reference.named_parameters():
        factor = 2 if is_scale(name) else 1  # the derivative by λ of a function of 2λ
        torch.testing.assert_close(model.get_parameter(name).grad, factor * value.grad)
    assert torch.equal(twice(images()), attached()(images()))


@pytest.mark.parametrize("switch", [disabled, lambda model: scaled(model, 0.5)])
@pytest.mark.parametrize("keep_terms", [False, True])
def test_what_is_switched_or_scaled_is_not_merged(switch: Any, keep_terms: bool) -> None:
    model = attached()
    before = model(images())
    with switch(model), pytest.raises(PathwayError, match="merge outside of disabled"):
        merge(model, keep_terms=keep_terms)
    assert torch.equal(model(images()), before)


@pytest.mark.parametrize("act", [merge, detach, lambda *given: disabled(*given).__enter__()])
def test_an_unknown_auxiliary_is_named(act) -> None:
    model = attached()
    before = list(model.state_dict())
    with pytest.raises(
        PathwayError, match=r"no auxiliary 'text' is attached; there are \['audio', 'video'\]"
    ):
        act(model, "text")
    assert list(model.state_dict()) == before


def test_merging_one_of_two_auxiliaries() -> None:
    model = attached()
    before = model(images())
    weight = model.blocks[0].attn.qkv.weight.detach().clone()
    matrix = model.blocks[0].attn.qkv.pathways["audio"].weight.detach().clone()
    merge(model, "audio")
    assert auxiliaries(model) == ["video"]
    torch.testing.assert_close(model(images()), before)
    torch.testing.assert_close(model.blocks[0].attn.qkv.weight.detach(), weight + 0.3 * matrix)
    merge(model)
    torch.testing.assert_close(model(images()), before)
    assert list(model.state_dict()) == list(vit().state_dict())


def test_a_merge_that_keeps_its_terms_is_undone_to_the_same_bits() -> None:
    model = attached()
    state, before = copy.deepcopy(model.state_dict()), model(images())
    merge(model, keep_terms=True)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    with torch.no_grad():
        torch.testing.assert_close(model(images()), before.detach())
        assert effective_weight(model.blocks[0].attn.qkv) is model.blocks[0].attn.qkv.merged_weight
    with pytest.raises(PathwayError, match="unmerge"):
        model(images())
    with (
        pytest.raises(PathwayError, match="the factor must be a number, got 'audio'"),
        scaled(model, "audio"),
    ):
        pass
    for switched in (disabled(vit()), scaled(vit(), 2)):
        with pytest.raises(PathwayError, match="the model has no pathways: attach"), switched:
            pass
    with pytest.raises(PathwayError, match="unmerge"), scaled(model, 2):
        pass
    with pytest.raises(PathwayError, match="leave names out"):
        merge(model, "audio", keep_terms=True)
    assert unmerge(model) is model
    assert torch.equal(model(images()), before)
    merge(model, keep_terms=True)
    torch.testing.assert_close(merge(model)(images()), before)
    assert list(model.state_dict()) == list(vit().state_dict())


def test_loading_a_state_ends_a_merge_that_kept_its_terms() -> None:
    model, other = attached(), attached(scale=0.1)
    merge(model, keep_terms=True)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(images()), other(images()))


def test_parameter_groups_have_every_trainable_parameter_once() -> None:
    model = attached()
    model.blocks[0].mlp.fc1.bias.requires_grad_(False)
    groups = parameter_groups(model, 1e-3, scale_lr=1e-2, weight_decay=0.05)
    named = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    members = {group["name"]: {named[id(each)] for each in group["params"]} for group in groups}
    assert sum(map(len, members.values())) == len(named) and set.union(*members.values()) == set(
        named.values()
    )
    assert members["scales"] == set(scales(model))
    assert (
        "blocks.0.attn.qkv.pathways.audio.weight" in members["matrices"]
        and "head.bias" in members["undecayed"]
    )
    assert {"cls_token", "pos_embed"} <= members["undecayed"]  # timm's no_weight_decay()
    settings = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert settings == {"matrices": (1e-3, 0.05), "undecayed": (1e-3, 0.0), "scales": (1e-2, 0.0)}
    optimizer = torch.optim.AdamW(groups)
    before = scales(model)
    train(model, optimizer, range(2))
    assert all(scales(model)[name] != value for name, value in before.items())
    assert [group["name"] for group in parameter_groups(nn.LayerNorm(3), 0.1)] == ["undecayed"]


def test_the_summary_counts() -> None:
    model, plain = attached(), sum(parameter.numel() for parameter in vit().parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    lines = summary(model).splitlines()
    elements = sum(
        2 * sum(each.numel() for each in layer)
        for layer in [
            [
                model.blocks[0].get_submodule(path).weight
                for path in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
            ]
        ]
    )
    assert lines[1].split() == ["audio", "8", f"{elements:,}", "0.3"]
    assert lines[2].split() == ["video", "8", f"{elements:,}", "0.6"]
    assert lines[3] == f"{total:,} parameters, {total:,} of them trained; merging removes {total - plain:,}"


@pytest.mark.parametrize("groups", [1, 6, "rows", {"attn.qkv": 6}])
def test_a_scale_for_each_group_of_rows(groups: object) -> None:
    model = vit()
    attach(model, vit(seed=1), scale_groups=groups)
    count = 6 if isinstance(groups, dict) else 72 if groups == "rows" else groups
    layer = model.blocks[0].attn.qkv
    pathway = layer.pathways["auxiliary"]
    assert pathway.scale.shape == (count,)
    assert model.blocks[0].mlp.fc1.pathways["auxiliary"].scale.numel() == (
        {6: 6, 1: 1}[groups] if isinstance(groups, int) else 96 if groups == "rows" else 1
    )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if is_scale(name):
                value.copy_(
                    torch.linspace(-1, 1, value.numel()) if value.numel() > 1 else torch.tensor([0.4])
                )
    w, a = (value.detach().clone().requires_grad_() for value in (layer.weight, pathway.weight))
    s = pathway.scale.detach().clone().requires_grad_()
    x, g = torch.randn(2, 5, 24), torch.randn(2, 5, 72)
    expected = x @ (w + s.repeat_interleave(72 // count)[:, None] * a).T + layer.bias
    torch.testing.assert_close(layer(x), expected)
    layer(x).backward(g)
    expected.backward(g)
    for own, truth in ((layer.weight, w), (pathway.weight, a), (pathway.scale, s)):
        torch.testing.assert_close(own.grad, truth.grad)
    before = model(images())
    keys = [name for name in scales(model) if name.startswith("blocks.0.attn.qkv.")]
    assert len(keys) == count and (count == 1 or keys[1].endswith("scale[1]"))
    torch.testing.assert_close(merge(model)(images()), before)


@pytest.mark.parametrize("groups", [0, 5, -1, 2.0, True, "heads"])
def test_groups_must_divide_the_rows(groups: object) -> None:
    with pytest.raises(PathwayError, match="scale_groups"):
        attach(vit(), vit(seed=1), scale_groups=groups)


@pytest.mark.parametrize("part", ["weight", "pathways.audio.weight", "pathways.audio.scale"])
def test_a_write_after_a_merge_that_kept_its_terms_is_noticed(part: str) -> None:
    model = attached()
    merge(model, keep_terms=True)
    with torch.no_grad():
        for twin in (copy.deepcopy(model), copy.deepcopy(model).double()):
            assert twin(images().to(next(twin.parameters()).dtype)).shape == (3, 5)
        model.get_parameter(f"blocks.0.mlp.fc1.{part}").mul_(2)
        for use in (lambda: model(images()), lambda: copy.deepcopy(model)):
            with pytest.raises(PathwayError, match=r"changed after merge.*unmerge"):
                use()
        expected = unmerge(model)(images())
        torch.testing.assert_close(merge(model, keep_terms=True)(images()), expected)
    with pytest.raises(PathwayError, match=r"'attn.qkv' of target block 0 is merged.*unmerge"):
        attach(model, {"text": vit(seed=3)})


def test_a_copy_made_inside_disabled_is_not_disabled_for_good() -> None:
    model = attached()
    with disabled(model):
        twin = copy.deepcopy(model)
    assert torch.equal(twin(images()), model(images()))


def test_groups_of_a_path_that_is_not_attached_are_named() -> None:
    with pytest.raises(PathwayError, match=r"scale_groups has 'attn.qvk', which is not attached.*'attn.qkv'"):
        attach(vit(), vit(seed=1), scale_groups={"attn.qvk": 4, "mlp.fc1": 2})


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_a_transposed_convolution_has_no_scale_for_each_output(kind: type[nn.Module]) -> None:
    block, other = (nn.ModuleDict({"up": kind(2, 6, 3)}) for _ in range(2))
    for groups in ("rows", 2):
        with pytest.raises(PathwayError, match=rf"the rows of 'up' .*\({kind.__name__}\) are inputs"):
            attach(block, other, layers=["up"], scale_groups=groups)
    attach(block, other, layers=["up"])


@pytest.mark.parametrize("remove", [merge, detach])
def test_an_attention_without_its_own_pathways_still_uses_those_of_its_projection(remove: Any) -> None:
    def attention(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.MultiheadAttention(8, 2)

    model, x = attention(0), torch.randn(3, 1, 8)
    attach([model], {"video": attention(2)}, layers=["out_proj"], scale_init=0.3)
    expected = model(x, x, x)[0]
    attach([model], {"audio": attention(1)}, layers=["in_proj_weight"], scale_init=0.3)
    if remove is merge:
        expected = model(x, x, x)[0]
    remove(model, "audio")
    torch.testing.assert_close(model(x, x, x)[0], expected)
    assert type(merge(model)) is nn.MultiheadAttention
    torch.testing.assert_close(model(x, x, x)[0], expected)
