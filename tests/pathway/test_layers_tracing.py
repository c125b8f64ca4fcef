"""Compilers, exporters, function transforms, the meta device and other wrappers see the effective weight."""

import copy
import io
from pathlib import Path

import numpy as np
import onnxruntime
import peft
import pytest
import torch
from model_families import build
from small_vit import images, vit
from torch import nn
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from m2pt.pathway import attach, merge
from m2pt.pathway.names import is_pathway


def attached(scale: float = 0.3) -> nn.Module:
    model = vit().eval()
    attach(model, {"audio": vit(seed=1)}, scale_init=scale)
    attach(model, {"video": vit(seed=2)}, layers=["mlp.fc1"], scale_init=scale, scale_groups=4)
    return model


def gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_compiled_as_one_graph_with_equal_gradients() -> None:
    model, x = attached(), images()
    expected = gradients(model, x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    model.zero_grad()
    compiled(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_exported_program_has_the_output_and_trains_every_part() -> None:
    model, x = attached(), images()
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
    expected = gradients(model, x)
    model.zero_grad()  # the program has the same parameters
    exported(x).square().sum().backward()
    found = {name: parameter.grad for name, parameter in exported.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("form", ["attached", "merged"])
def test_onnx(form: str, dynamo: bool, tmp_path: Path) -> None:
    model, x = attached(), images()
    expected = model(x).detach().numpy()
    torch.onnx.export(merge(model) if form == "merged" else model, (x,), tmp_path / "m.onnx", dynamo=dynamo)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.abs(output - expected).max() < 1e-4


def test_gradients_of_single_samples_by_vmap() -> None:
    model, x = attached(), images()
    parameters = dict(model.named_parameters())

    def loss(values: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return functional_call(model, values, (sample[None],)).square().sum()

    singles = vmap(grad(loss), (None, 0))(parameters, x)
    for name, gradient in gradients(model, x).items():
        torch.testing.assert_close(singles[name].sum(0), gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced() -> None:
    model, x = attached(), images()
    torch.testing.assert_close(torch.jit.trace(model, (x,), check_trace=False)(x), model(x))


def test_on_the_meta_device_and_filled_later() -> None:
    with torch.device("meta"):
        model, auxiliary = vit(), vit(seed=1)
        attach(model, {"audio": auxiliary}, scale_init=0.3)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 5)
    real = vit()
    attach(real, {"audio": vit(seed=1)}, scale_init=0.3)
    model.load_state_dict(real.state_dict(), assign=True)
    assert torch.equal(model(images()), real(images()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_moved_to_another_dtype(dtype: torch.dtype) -> None:
    model = attached().to(dtype)
    output = model(images().to(dtype))
    assert output.dtype == dtype and {parameter.dtype for parameter in model.parameters()} == {dtype}
    torch.testing.assert_close(merge(model)(images().to(dtype)), output, rtol=0.05, atol=0.05)


class TestPeft:
    """LoRA over attached layers and attaching below LoRA; either way nothing is lost."""

    def wrapped(self, model: nn.Module) -> nn.Module:
        torch.manual_seed(3)
        config = peft.LoraConfig(target_modules=["qkv", "fc1"], r=2, init_lora_weights=False)
        return peft.get_peft_model(model, config)

    def test_lora_over_pathways_is_merged_into_w(self) -> None:
        model, x = attached(), images()
        lora = self.wrapped(model)
        before = lora(x)
        unloaded = lora.merge_and_unload()
        torch.testing.assert_close(unloaded(x), before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(merge(unloaded)(x), before, rtol=1e-4, atol=1e-5)

    def test_lora_is_trained_beside_pathways(self) -> None:
        lora = self.wrapped(attached())
        for name, parameter in lora.named_parameters():
            parameter.requires_grad_("lora_" in name or is_pathway(name.removeprefix("base_model.model.")))
        lora(images()).square().sum().backward()
        assert all(parameter.grad is not None for parameter in lora.parameters() if parameter.requires_grad)

    def test_pathways_below_lora(self) -> None:
        model, x = vit(), images()
        lora = self.wrapped(model)
        attach(
            model.blocks,
            {"audio": vit(seed=1)},
            layers=["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"],
            scale_init=0.3,
        )
        before = lora(x)
        torch.testing.assert_close(merge(copy.deepcopy(lora))(x), before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lora.merge_and_unload()(x), before, rtol=1e-4, atol=1e-5)


def test_saved_as_a_whole_module() -> None:
    model = build("transformers ViT", 0)
    attach(model, build("transformers ViT", 1), scale_init=0.3)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)  # our own bytes
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x)[0], model(x)[0])


def test_compiled_code_outside_a_forward_reads_and_writes_w() -> None:
    layer = attached().blocks[0].mlp.fc1
    weight = layer.weight.detach().clone()

    def penalty() -> torch.Tensor:
        return layer.weight.square().sum()

    def clear() -> None:
        with torch.no_grad():
            layer.weight.zero_()

    torch.testing.assert_close(
        torch.compile(penalty, backend="eager", fullgraph=True)(), weight.square().sum()
    )
    torch.compile(clear, backend="eager")()
    assert torch.count_nonzero(layer.weight) == 0


class Reader(nn.Module):
    """A block that has its weights read by a function, in this class one that is not compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return read(self.fc, x) + self.fc(x)


@torch._dynamo.disable
def read(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T


def test_a_function_that_is_not_compiled_reads_the_effective_weight_in_a_compiled_block() -> None:
    model, x = Reader(), torch.randn(2, 4)
    attach([model], [Reader()], layers=["fc"], scale_init=0.5)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_forward_mode_derivatives(groups: int) -> None:
    model, x = nn.Linear(6, 4).double(), torch.randn(3, 6).double()
    attach([model], [nn.Linear(6, 4).double()], layers=[""], scale_init=0.3, scale_groups=groups)
    values = {name: value.detach() for name, value in model.named_parameters()}

    def output(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(model, values, (x,)).tanh()

    forward, reverse = jacfwd(output)(values), jacrev(output)(values)
    for name, value in reverse.items():
        torch.testing.assert_close(forward[name], value)
    tangents = {name: torch.randn_like(value) for name, value in values.items()}
    _, derivative = jvp(output, (values,), (tangents,))
    step = {name: values[name] + 1e-6 * tangents[name] for name in values}
    torch.testing.assert_close(derivative, (output(step) - output(values)) / 1e-6, rtol=1e-4, atol=1e-4)
