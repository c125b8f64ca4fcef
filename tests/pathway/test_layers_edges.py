"""More that must not go wrong silently: later quantization, adapter states, hooks, names, factors."""

import copy
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator

import numpy as np
import pytest
import torch
from small_vit import images, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, is_pathway, is_scale, merge, scaled


def attached() -> nn.Module:
    return attach(vit().eval(), {"audio": vit(seed=1)}, scale_init=0.3)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_a_weight_that_is_quantized_afterwards_is_an_error(dtype: torch.dtype) -> None:
    model = attached()
    layer = model.blocks[1].mlp.fc1
    layer.weight = nn.Parameter((10 * layer.weight.detach()).to(dtype), requires_grad=False)
    with pytest.raises(
        PathwayError, match=rf"'weight' of AttachedLinear is {dtype} now.*before it is quantized"
    ):
        model(images())


def test_a_state_of_other_pathways_alone_warns() -> None:
    model, other = attached(), attach(vit(), {"video": vit(seed=1)})
    state = {name: value for name, value in other.state_dict().items() if is_pathway(name)}
    with pytest.warns(UserWarning, match=r"'blocks.0.attn.qkv' has the pathways 'audio', the state 'video'"):
        model.load_state_dict(state, strict=False)
    state = {name: value for name, value in attached().state_dict().items() if is_pathway(name)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict(state, strict=False)


@pytest.mark.parametrize("part", ["blocks.1.mlp.fc2", "blocks.1.mlp", "blocks.1"])
def test_a_forward_that_was_patched_after_attach_survives_the_merge(part: str) -> None:
    model, x = attached(), images()
    before = model(x)
    module = model.get_submodule(part)
    forward = module.forward
    module.forward = lambda *given: forward(*given)  # as hooks of accelerate do
    torch.testing.assert_close(model(x), before)
    torch.testing.assert_close(merge(model)(x), before)


class Reader(nn.Module):
    """A module that computes with the weight of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)


class Generator(Reader):
    def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        yield x @ self.layer.weight.T


class Async(Reader):
    async def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.layer.weight.T


class AsyncGenerator(Reader):
    async def forward(self, x: torch.Tensor) -> AsyncIterator[torch.Tensor]:
        yield x @ self.layer.weight.T


class Yielding(nn.Linear):
    def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        yield x @ self.weight.T


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (Generator, r"target block 0 \(Generator\)"),
        (Async, r"target block 0 \(Async\)"),
        (AsyncGenerator, r"target block 0 \(AsyncGenerator\)"),
        (lambda: nn.Sequential(Async()), r"'0' of target block 0 \(Async\)"),
        (lambda: nn.ModuleDict({"layer": Yielding(4, 4)}), r"'layer' of target block 0 \(Yielding\)"),
    ],
)
def test_a_forward_that_runs_after_the_call_is_refused(kind: Callable[[], nn.Module], where: str) -> None:
    model, other = kind(), kind()
    classes = [type(module) for module in model.modules()]
    with pytest.raises(PathwayError, match=f"forward of {where} is a generator or async function"):
        attach([model], [other])
    assert [type(module) for module in model.modules()] == classes


def test_parameters_of_a_module_of_the_user_that_is_called_pathways_are_none_of_ours() -> None:
    model = nn.ModuleDict({"pathways": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})
    assert not any(is_pathway(name) or is_scale(name) for name in model.state_dict())


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), np.float64("nan")])
def test_a_factor_that_is_no_number_is_refused_and_leaves_nothing_behind(factor: float) -> None:
    model = attached()
    before = model(images())
    with pytest.raises(PathwayError, match="the factor must be a number"), scaled(model, factor):
        pass
    assert torch.equal(model(images()), before)


def test_an_averaged_copy_is_the_average_of_w_a_and_the_scale() -> None:
    models = [attached(), copy.deepcopy(attached())]
    average = torch.optim.swa_utils.AveragedModel(models[0])
    with torch.no_grad():
        for number, model in enumerate(models):
            for parameter in model.parameters():
                parameter += 0.1 * number
            average.update_parameters(model)
        expected = attached()
        for parameter in expected.parameters():
            parameter += 0.05
        torch.testing.assert_close(average(images()), expected(images()))
        torch.testing.assert_close(merge(average)(images()), expected(images()))


def test_models_are_compiled_in_a_process_that_has_run_no_forward_before() -> None:
    script = """
import torch
from torch import nn
from m2pt.pathway import attach

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x

for _ in range(2):
    model = attach(Model(), Model(), scale_init=0.3)
    compiled = torch.compile(model, backend="eager")
    for _ in range(3):
        output = compiled(torch.ones(2, 4))
        output.sum().backward()
    torch.testing.assert_close(output, model(torch.ones(2, 4)))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
