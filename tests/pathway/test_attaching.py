"""Attaching pathways: names, orders, layers of any class, errors."""

import ast
import copy
import inspect
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from small_vit import LAYERS, images, parameters, train, vit
from torch import Tensor, nn
from torch.nn import functional as F

from m2pt.config.experiment import PathwaySpec
from m2pt.pathway import (
    PathwayError,
    attach,
    detach,
    effective_weight,
    is_scale,
    load_pathways,
    merge,
    merge_state_dict,
    parameter_groups,
    save_pathways,
    scales,
)
from m2pt.pathway.names import is_pathway


def test_names_shapes_and_number_of_parameters() -> None:
    model, auxiliary = vit(), vit(seed=1)
    plain = {name: p.shape for name, p in model.state_dict().items()}
    attach(model.blocks, {"audio": auxiliary.blocks})
    added = {name: p.shape for name, p in model.state_dict().items() if name not in plain}
    assert {name: p.shape for name, p in model.state_dict().items() if name in plain} == plain
    assert set(added) == {
        f"blocks.{i}.{layer}.pathways.audio.{part}"
        for i in range(2)
        for layer in LAYERS
        for part in ("weight", "scale")
    }
    assert all(shape == (1,) for name, shape in added.items() if name.endswith("scale"))
    assert added["blocks.0.attn.qkv.pathways.audio.weight"] == (72, 24)
    assert scales(model) == {
        f"blocks.{i}.{layer}.pathways.audio.scale": 0.0 for i in range(2) for layer in LAYERS
    }
    assert {name for name in model.state_dict() if is_scale(name)} == set(scales(model))
    assert not is_scale("blocks.0.ls1.scale") and not is_scale("logit_scale")


def test_layers_keep_their_class_and_the_auxiliary_is_only_copied() -> None:
    model, auxiliary = vit(), vit(seed=1)
    before = copy.deepcopy(auxiliary.state_dict())
    attach(model.blocks, auxiliary.blocks, scale_init=0.1)
    assert isinstance(model.blocks[0].mlp.fc1, nn.Linear)
    train(model, torch.optim.SGD(model.parameters(), 0.1), range(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in auxiliary.state_dict().items())
    own = parameters(model.blocks[0].mlp.fc1)["pathways.auxiliary.weight"]
    assert not torch.equal(own, before["blocks.0.mlp.fc1.weight"])


def test_fixed_scale_is_not_trained() -> None:
    model = vit()
    attach(model.blocks, vit(seed=1).blocks, scale_init=0.01, scale_trainable=False)
    assert not any(p.requires_grad for name, p in model.named_parameters() if is_scale(name))
    train(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1), range(2))
    assert set(scales(model).values()) == {torch.tensor(0.01).item()}


def test_a_second_auxiliary_can_be_attached_later_under_its_own_name() -> None:
    model, point, audio = vit(), vit(seed=1), vit(seed=2)
    w = model.blocks[1].mlp.fc1.weight.detach().clone()
    attach(model.blocks, {"point": point.blocks}, scale_init=0.5)
    attach(model.blocks, {"audio": audio.blocks}, layers=("mlp.fc1",), scale_init=0.1, order="reversed")
    expected = w + 0.5 * point.blocks[1].mlp.fc1.weight + 0.1 * audio.blocks[0].mlp.fc1.weight
    torch.testing.assert_close(effective_weight(model.blocks[1].mlp.fc1), expected)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        PathwayError, match=r"'attn.qkv' of target block 0 already has a pathway named 'point'"
    ):
        attach(model.blocks, {"point": audio.blocks})
    assert model.state_dict().keys() == before.keys()


def test_the_target_is_returned_and_its_auxiliary_can_be_frozen() -> None:
    model, blocks = vit(), iter(vit().blocks)
    assert attach(model, vit(seed=1), matrix_trainable=False) is model
    assert attach(blocks, vit(seed=1)) is blocks
    trained = {name for name, value in model.named_parameters() if is_pathway(name) and value.requires_grad}
    assert trained == set(scales(model))


@pytest.mark.parametrize(
    ("auxiliary", "arguments", "message"),
    [
        (
            lambda: vit(depth=3).blocks,
            {},
            r"target has 2 blocks \(Block\), the auxiliary 'auxiliary' has 3 \(Block\)",
        ),
        (
            lambda: vit(dim=12).blocks,
            {"order": "reversed"},
            r"'attn.qkv' of target block 0 has a weight of shape \(72, 24\), "
            r"'attn.qkv' of 'auxiliary' block 1 has one of shape \(36, 12\)",
        ),
        (
            lambda: {"audio": [nn.Identity()] * 2},
            {},
            r"'attn.qkv' of target block 0 \(Block\) has no partner in 'audio' block 0 \(Identity\), "
            r"which has none",
        ),
        (lambda: vit().blocks, {"layers": ("mlp.fc9",)}, r"no layer 'mlp.fc9' of target block 0.*'mlp.fc2'"),
        (lambda: vit().blocks, {"layers": ("mlp.act",)}, r"no layer 'mlp.act' of target block 0"),
        (
            lambda: vit().blocks,
            {"layers": ("norm1",)},
            r"'norm1' of target block 0 \(LayerNorm\) has no weight matrix",
        ),
        (lambda: vit().blocks, {"layers": ("attn.qkv", "attn.qkv")}, r"named twice or shared"),
        (lambda: vit().blocks, {"layers": ()}, r"nothing to attach"),
        (
            lambda: vit().blocks,
            {"order": "backwards"},
            r"order must be 'normal', 'reversed' or 'shuffled', got 'backwards'",
        ),
        (lambda: {"key.dot": vit().blocks}, {}, r"an auxiliary cannot be named 'key.dot'"),
        (lambda: {"items": vit().blocks}, {}, r"an auxiliary cannot be named 'items', which nn.ModuleDict"),
        (lambda: {"training": vit().blocks}, {}, r"cannot be named 'training', which nn.ModuleDict"),
        (lambda: {"_modules": vit().blocks}, {}, r"cannot be named '_modules', which nn.ModuleDict"),
        (lambda: {0: vit().blocks}, {}, r"an auxiliary cannot be named 0"),
        (lambda: "vit", {}, r"the auxiliary 'auxiliary' is a str; pass a module"),
        (lambda: None, {}, r"the auxiliary 'auxiliary' is a NoneType; pass a module"),
        (lambda: [vit().blocks, 1], {}, r"the auxiliary 'auxiliary' has a int among its blocks"),
        (lambda: vit().state_dict(), {}, r"the auxiliary is a state dict; load it into a model first"),
        (lambda: {"a": vit().state_dict()}, {}, r"the auxiliary 'a' is a OrderedDict.*into a model first"),
        (lambda: vit().blocks, {"unequal": "normal"}, r"unequal must be 'error' or 'slice', got 'normal'"),
        (lambda: vit().blocks, {"scale_groups": "heads"}, r"scale_groups='heads': must be a number, 'rows'"),
    ],
)
def test_a_mismatch_is_named_and_changes_nothing(
    auxiliary: Callable[[], object], arguments: dict[str, object], message: str
) -> None:
    model = vit()
    keys, output = list(model.state_dict()), model(images())
    with pytest.raises(PathwayError, match=message):
        attach(model.blocks, auxiliary(), **arguments)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images()), output)


@pytest.mark.parametrize(
    "value",
    [
        *("x", None, True, torch.tensor(True), float("nan"), -float("inf"), torch.ones(2), [0.1], 10**400),
        torch.ones(1, device="meta"),
    ],
)
def test_an_initial_scale_that_is_no_number_is_refused(value: object) -> None:
    model = vit()
    with pytest.raises(PathwayError, match=r"scale_init=.*: must be a finite number"):
        attach(model, vit(seed=1), scale_init=value)
    assert not scales(model)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), Fraction(1, 2), torch.tensor(0.5), torch.tensor([0.5])]
)
def test_an_initial_scale_is_any_number(value: object) -> None:
    assert set(scales(attach(vit(), vit(seed=1), scale_init=value)).values()) == {0.5}


def test_pathways_are_in_the_mode_of_their_layer() -> None:
    model = vit().eval()
    model.blocks[1].train()
    attach(model, {"audio": vit(seed=1)})
    attach(model, {"video": vit(seed=1)})
    assert not any(module.training for module in model.blocks[0].modules())
    assert all(module.training for module in model.blocks[1].modules())


@pytest.mark.parametrize("depth", [2, 3, 4, 6, 12])
def test_shuffled_blocks_are_never_in_normal_order(depth: int) -> None:
    layers = [nn.Linear(1, 1, bias=False) for _ in range(2 * depth)]
    for number, layer in enumerate(layers):
        nn.init.constant_(layer.weight, number % depth)
    target, auxiliary = nn.ModuleList(layers[:depth]), nn.ModuleList(layers[depth:])
    attach(
        [nn.ModuleDict({"fc": layer}) for layer in target],
        [nn.ModuleDict({"fc": layer}) for layer in auxiliary],
        layers=["fc"],
        order="shuffled",
    )
    partners = [int(layer.pathways["auxiliary"].weight.item()) for layer in target]
    assert sorted(partners) == list(range(depth)) and partners != list(range(depth))
    drawn = random.Random(depth).sample(range(depth), depth)  # what finished results were made with
    assert partners == drawn or drawn == list(range(depth))


class WeightReader(nn.Module):
    """Attention as in VideoMAE, which uses the layer's weight and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12, bias=False)
        self.q_bias = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight, self.q_bias)


class TransposedLinear(nn.Module):
    """A custom layer, y = x W, like GPT-2's Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_attention_that_reads_the_weight_and_foreign_layer_classes() -> None:
    x = torch.randn(5, 4)
    reader, other = WeightReader(), WeightReader()
    w, a = reader.qkv.weight.detach().clone(), other.qkv.weight.detach().clone()
    attach([reader], [other], layers=("qkv",), scale_init=2.0)
    torch.testing.assert_close(reader(x), x @ w.T + 2 * (x @ a.T) + 1)
    reader(x).sum().backward()
    assert parameters(reader)["qkv.pathways.auxiliary.scale"].grad is not None

    own, other_own = nn.Sequential(TransposedLinear()), nn.Sequential(TransposedLinear())
    w, a = own[0].weight.detach().clone(), other_own[0].weight.detach().clone()
    attach([own], [other_own], layers=("0",), scale_init=2.0)
    torch.testing.assert_close(own(x), x @ w + 2 * (x @ a))
    assert type(merge(own)[0]) is TransposedLinear


class Experts(nn.Module):
    """Experts in stacked matrices with names of their own, as transformers has them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 8, 4))
        self.weight_in = nn.Parameter(torch.randn(5, 4))
        self.qweight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.gate_up_proj.mT).sum(0).sum() + F.linear(x, self.weight_in + self.qweight).sum()


@pytest.mark.parametrize("name", ["gate_up_proj", "weight_in", "qweight"])
def test_a_parameter_of_any_name_is_grouped_merged_and_saved_as_a_weight_is(name: str, tmp_path) -> None:
    model, other = (nn.ModuleList([nn.ModuleDict({"experts": Experts()})]) for _ in range(2))
    x, w = torch.randn(6, 4), parameters(model)[f"0.experts.{name}"].detach().clone()
    attach(model, other, layers=[f"experts.{name}"], scale_init=0.5)
    key = f"0.experts.pathways.auxiliary.{name}__scale"
    assert scales(model) == {key: 0.5} and is_scale(key) and is_pathway(key.removesuffix("__scale"))
    groups = {group["name"]: group for group in parameter_groups(model, 0.1, scale_lr=0.2)}
    assert groups["scales"]["params"] == [parameters(model)[key]]

    expected, output = w + 0.5 * parameters(other)[f"0.experts.{name}"], model[0]["experts"](x)
    merged = merge_state_dict(model.state_dict())
    assert set(merged) == set(other.state_dict())
    torch.testing.assert_close(merged[f"0.experts.{name}"], expected)
    save_pathways(model, tmp_path / "file")
    load_pathways(detach(copy.deepcopy(model)), tmp_path / "file")
    torch.testing.assert_close(merge(model)[0]["experts"](x), output)
    torch.testing.assert_close(parameters(model)[f"0.experts.{name}"], expected)


@pytest.mark.parametrize("name", ["scale", "in_scale", "in__scale", "in__weight"])
def test_a_parameter_named_like_a_scale_is_refused(name: str) -> None:
    model, other = (nn.ModuleList([nn.ParameterDict({name: torch.ones(2, 2)})]) for _ in range(2))
    with pytest.raises(PathwayError, match=f"'{name}' of target block 0 has a name that only scales"):
        attach(model, other, layers=[name])


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_module_that_computes_with_a_list_of_its_parameters_is_refused(layer: type[nn.Module]) -> None:
    model, other = (nn.ModuleDict({"rnn": layer(4, 4)}) for _ in range(2))
    with pytest.raises(PathwayError, match=r"'rnn.weight_ih_l0' of target block 0 is also in the list"):
        attach(model, other, layers=["rnn.weight_ih_l0"])
    assert type(model["rnn"]) is layer


def test_a_recurrent_cell_reads_its_weights() -> None:
    model, other = (nn.ModuleDict({"rnn": nn.GRUCell(4, 4)}) for _ in range(2))
    x = torch.randn(2, 4)
    attach(model, other, layers=["rnn.weight_ih", "rnn.weight_hh"], scale_init=0.5)
    before = model["rnn"](x)
    torch.testing.assert_close(merge(model)["rnn"](x), before)


def test_compiles_into_one_graph() -> None:
    model, auxiliary = (nn.ModuleDict({"fc": nn.Linear(6, 4)}) for _ in range(2))
    attach(model, auxiliary, layers=("fc",), scale_init=0.3)
    x = torch.randn(2, 6)
    compiled = torch.compile(model["fc"], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model["fc"](x))


def test_the_pathway_imports_torch_only() -> None:
    code = (
        "import sys, torch; had = set(sys.modules); import m2pt.pathway; print(sorted({*sys.modules} - had))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name.split(".")[0] == "m2pt" for name in ast.literal_eval(run.stdout))


def test_the_defaults_of_a_config_are_those_of_attach() -> None:
    defaults = PathwaySpec(auxiliaries=("a",)).model_dump(exclude={"auxiliaries", "depth", "layers"})
    parameters = inspect.signature(attach).parameters
    assert defaults == {name: parameters[name].default for name in defaults}


def test_pathways_that_were_attached_in_inference_mode_are_trained_later(tmp_path: Path) -> None:
    model, other = vit(), vit()
    for each in (model, other):
        each.blocks[0].mlp.fc1.weight = each.blocks[1].mlp.fc1.weight
    with torch.inference_mode():
        attach(model, {"audio": vit(seed=1)}, scale_init=0.3, untie=True)
        save_pathways(model, tmp_path / "file.pt")
        load_pathways(other, tmp_path / "file.pt", untie=True)
    for each in (model, other):
        each(images()).sum().backward()
        assert all(p.grad is not None and p.grad.any() for n, p in each.named_parameters() if is_pathway(n))
