"""Merging, copying and saving models with pathways; merging restores the plain model."""

import copy
import io
import pickle
from typing import Any

import pytest
import timm
import torch
from small_vit import LAYERS, images, train, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, merge, merge_state_dict, merging, scales, summing


@pytest.mark.parametrize("order", ["normal", "reversed"])
def test_merge_restores_the_plain_model(order: str) -> None:
    model, image, video = vit(depth=3), vit(depth=3, seed=1), vit(depth=3, seed=2)
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    shapes = [tensor.shape for tensor in model.state_dict().values()]
    w = {name: tensor.double() for name, tensor in copy.deepcopy(model.state_dict()).items()}
    attach(model.blocks, {"image": image.blocks, "video": video.blocks}, order=order, scale_init=0.25)
    attached_output = model(images())
    state = merge_state_dict(model.state_dict())

    assert merge(model) is model
    assert list(model.state_dict()) == keys and list(state) == keys
    assert [tensor.shape for tensor in model.state_dict().values()] == shapes
    assert [type(module) for module in model.modules()] == classes
    torch.testing.assert_close(model(images()), attached_output)
    for i in range(3):
        j = i if order == "normal" else 2 - i
        for layer in LAYERS:
            own, other = f"blocks.{i}.{layer}.weight", f"blocks.{j}.{layer}.weight"
            expected = w[own] + 0.25 * (image.state_dict()[other] + video.state_dict()[other].double())
            torch.testing.assert_close(model.state_dict()[own].double(), expected, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_merge_in_float32_of_low_precision_weights() -> None:
    model, auxiliary = (nn.ModuleDict({"fc": nn.Linear(64, 64)}).bfloat16() for _ in range(2))
    w, a = model["fc"].weight.detach().float(), auxiliary["fc"].weight.detach().float()
    attach(model, auxiliary, layers=("fc",), scale_init=0.37)
    scale = scales(model)["fc.pathways.auxiliary.scale"]
    assert torch.equal(merge(model)["fc"].weight, (w + scale * a).bfloat16())


def test_merged_vit_base_is_timms_vit_base() -> None:
    def empty() -> nn.Module:
        with torch.device("meta"):
            return timm.create_model("vit_base_patch16_224", global_pool="avg", num_classes=10)

    model = empty().to_empty(device="cpu").eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    # Its own auxiliary: W + 0.5 W, so the truth is known without another 86 million numbers.
    before = model.blocks[11].mlp.fc2.weight[0].clone()
    attach(model.blocks, model.blocks, scale_init=0.5)
    assert sum(p.numel() for p in model.parameters() if p.shape == (1,)) == 48
    with torch.inference_mode():
        attached_output = model(torch.ones(1, 3, 224, 224))
        fresh = empty()
        fresh.load_state_dict(merge(model).state_dict(), strict=True, assign=True)
        torch.testing.assert_close(fresh.eval()(torch.ones(1, 3, 224, 224)), attached_output)
    torch.testing.assert_close(fresh.blocks[11].mlp.fc2.weight[0], 1.5 * before)


@pytest.mark.parametrize("part", ["weight", "pathways.audio.weight", "pathways.audio.scale"])
def test_a_merge_of_what_is_no_longer_a_parameter_changes_nothing(part: str) -> None:
    model = attach(vit(), {"audio": vit(seed=1)}, scale_init=0.3)
    owner, _, name = f"blocks.1.mlp.fc2.{part}".rpartition(".")
    before = copy.deepcopy(model.state_dict())
    del model.get_submodule(owner)._parameters[name]
    with pytest.raises(PathwayError, match="is no longer a parameter"):
        merge(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_merge_that_runs_out_of_memory_leaves_the_outputs_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = attach(vit(), {"audio": vit(seed=1)}, scale_init=0.3)
    expected = model(images())
    sums = iter(range(8))

    def weighted_sum(*given: Any) -> torch.Tensor:
        if next(sums) == 5:
            raise torch.OutOfMemoryError
        return summing.weighted_sum(*given)

    monkeypatch.setattr(merging, "weighted_sum", weighted_sum)
    with pytest.raises(torch.OutOfMemoryError):
        merge(model)
    monkeypatch.undo()
    torch.testing.assert_close(model(images()), expected)
    torch.testing.assert_close(merge(model)(images()), expected)


def test_merging_a_plain_model_changes_nothing() -> None:
    model = vit()
    state = copy.deepcopy(model.state_dict())
    for merged in (merge(model).state_dict(), merge_state_dict(model.state_dict())):
        assert list(merged) == list(state)
        assert all(torch.equal(tensor, state[name]) for name, tensor in merged.items())


@pytest.mark.parametrize("part", ["pathways.audio.weight", "pathways.audio.scale", "weight"])
def test_merging_an_incomplete_state_dict_names_the_missing_key(part: str) -> None:
    model = vit()
    attach(model.blocks, {"audio": vit(seed=1).blocks})
    state = model.state_dict()
    del state[f"blocks.1.mlp.fc2.{part}"]
    with pytest.raises(PathwayError, match=rf"no 'blocks.1.mlp.fc2.{part}'"):
        merge_state_dict(state)


@pytest.mark.parametrize(
    ("part", "shape", "words"),
    [
        ("weight", (2, 3), r"has the shape \(2, 3\), 'blocks.1.mlp.fc2.weight' has"),
        ("scale", (), r"has the shape \(\), which must be \(1,\) or \(n,\), with an n that divides"),
        ("scale", (0,), r"has the shape \(0,\), which must be"),
        ("scale", (1, 1), r"has the shape \(1, 1\), which must be"),
        ("scale", (7,), r"has the shape \(7,\), which must be"),
    ],
)
def test_merging_shapes_that_do_not_fit_names_the_key(part: str, shape: tuple[int, ...], words: str) -> None:
    model = vit()
    attach(model.blocks, {"audio": vit(seed=1).blocks})
    key = f"blocks.1.mlp.fc2.pathways.audio.{part}"
    with pytest.raises(PathwayError, match=f"cannot merge: '{key}' {words}"):
        merge_state_dict({**model.state_dict(), key: torch.ones(shape)})


def test_a_checkpoint_with_a_state_inside_is_no_state_to_merge() -> None:
    model = attach(vit(), {"audio": vit(seed=1)})
    with pytest.raises(PathwayError, match=r"'model' is a mapping.*checkpoint\['model'\]"):
        merge_state_dict({"epoch": 3, "model": model.state_dict()})
    state = model.state_dict() | {"blocks.0._extra_state": {}}
    assert "blocks.0._extra_state" in merge_state_dict(state)


def test_deepcopy_and_pickle_are_independent_and_merging_one_leaves_the_other() -> None:
    model = vit()
    attach(model.blocks, vit(seed=1).blocks, scale_init=0.2)
    output = model(images())
    # torch.save and spawned processes pickle models; these bytes are our own
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # our own bytes
        assert torch.equal(twin(images()), output)
        torch.testing.assert_close(merge(twin)(images()), output)
        with torch.no_grad():
            twin.blocks[0].attn.qkv.weight.zero_()
        assert torch.equal(model(images()), output)
    train(model, torch.optim.SGD(model.parameters(), 0.1), range(1))
    assert any(value != pytest.approx(0.2, abs=1e-9) for value in scales(model).values())


def test_state_dict_in_the_middle_of_training_continues_bit_for_bit() -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = vit()
        attach(model.blocks, {"audio": vit(seed=1).blocks})
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    model, optimizer = build()
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, range(3, 6))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, resumed_optimizer = build()
    resumed.load_state_dict(saved["model"], strict=True)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    train(resumed, resumed_optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))
    assert all(value != 0 for value in scales(model).values())


def test_a_state_dict_with_a_shared_weight_is_refused() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5)})
    model["head"].weight = model["embedding"].weight
    attach([model["head"]], [nn.Linear(4, 5)], layers=[""], scale_init=0.5)
    state = model.state_dict()
    with pytest.raises(PathwayError, match=r"'head.weight' is also 'embedding.weight'.*untie=True"):
        merge_state_dict(state)
    merged = merge_state_dict(state, untie=True)
    assert torch.equal(merged["embedding.weight"], model["embedding"].weight)
    assert torch.equal(merged["head.weight"], merge(model, untie=True)["head"].weight)


def test_a_state_dict_with_a_weight_that_overlaps_another_is_refused() -> None:
    memory = torch.randn(11, 4)
    state = {"head.weight": memory[:5], "table": memory[4:9], "rest": memory[5:]}
    state |= {"head.pathways.audio.weight": torch.randn(5, 4), "head.pathways.audio.scale": torch.ones(1)}
    with pytest.raises(PathwayError, match=r"'head.weight' is also 'table', or shares memory with it"):
        merge_state_dict(state)
    del state["table"]
    assert torch.equal(merge_state_dict(state)["rest"], memory[5:])
