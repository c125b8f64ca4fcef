"""Attached layers compared with the two-branch form of the paper's eq. 7-8: output, gradients, memory."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from small_vit import images, parameters, vit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from m2pt.pathway import attach, effective_weight, is_scale, merge

# One plain layer, the input it takes, and the linear map it applies without its bias.
LAYER_CASES: dict[
    str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]
] = {
    "linear": (lambda: nn.Linear(5, 7), (2, 3, 5), lambda x, w: x @ w.T),
    "linear without bias": (lambda: nn.Linear(5, 7, bias=False), (4, 5), lambda x, w: x @ w.T),
    "conv1d": (lambda: nn.Conv1d(3, 4, 1), (2, 3, 6), lambda x, w: torch.einsum("bil,oik->bol", x, w)),
    "conv2d": (
        lambda: nn.Conv2d(2, 3, 4, stride=4, bias=False),
        (2, 2, 8, 8),
        lambda x, w: torch.einsum("bihywx,oiyx->bohw", x.unflatten(2, (2, 4)).unflatten(4, (2, 4)), w),
    ),
    "conv3d": (
        lambda: nn.Conv3d(2, 3, (2, 1, 1), stride=(2, 1, 1)),
        (1, 2, 4, 3, 3),
        lambda x, w: torch.einsum("bitzhw,oizyx->bothw", x.unflatten(2, (2, 2)), w),
    ),
}


@pytest.mark.parametrize("auxiliaries", [1, 2])
@pytest.mark.parametrize("case", LAYER_CASES)
def test_equals_the_two_branch_form_in_output_and_every_gradient(case: str, auxiliaries: int) -> None:
    make, shape, product = LAYER_CASES[case]
    torch.manual_seed(0)
    holder = nn.ModuleDict({"layer": make()}).double()
    others = {f"aux{i}": nn.ModuleDict({"layer": make()}).double() for i in range(auxiliaries)}
    w = holder["layer"].weight.detach().clone().requires_grad_()
    b = holder["layer"].bias
    a = [other["layer"].weight.detach().clone().requires_grad_() for other in others.values()]
    s = [torch.tensor([0.3 - 0.5 * i], dtype=torch.double, requires_grad=True) for i in range(auxiliaries)]
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)

    expected = product(x, w) + sum(s[i] * product(x, a[i]) for i in range(auxiliaries))
    if b is not None:
        bias = b.detach().clone().requires_grad_()
        expected = expected + bias.view(-1, *[1] * (len(shape) - 2)) if "conv" in case else expected + bias
    upstream = torch.randn_like(expected)
    wanted = [x, w, *a, *s] + ([bias] if b is not None else [])
    expected_gradients = torch.autograd.grad(expected, wanted, upstream)

    attach(holder, others, layers=("layer",))
    own = parameters(holder["layer"])
    with torch.no_grad():
        for i in range(auxiliaries):
            own[f"pathways.aux{i}.scale"].copy_(s[i])
    output = holder["layer"](x)
    names = [*(f"pathways.aux{i}.weight" for i in range(auxiliaries))]
    names += [f"pathways.aux{i}.scale" for i in range(auxiliaries)] + (["bias"] if b is not None else [])
    gradients = torch.autograd.grad(output, [x, own["weight"], *(own[name] for name in names)], upstream)

    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for gradient, truth in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-12, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    target, audio, video = (nn.ModuleDict({"fc": nn.Linear(3, 4)}).double() for _ in range(3))
    attach(target, {"audio": audio, "video": video}, layers=("fc",), scale_init=0.4)
    names = list(parameters(target))
    values = tuple(p.detach().clone().requires_grad_() for p in target.parameters())

    def output(x: Tensor, *tensors: Tensor) -> Tensor:
        state = dict(zip(names, tensors, strict=True))
        return torch.func.functional_call(
            target["fc"], {n.removeprefix("fc."): t for n, t in state.items()}, x
        )

    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(output, (x, *values))
    assert torch.autograd.gradgradcheck(output, (x, *values))


def test_scale_zero_leaves_the_output_and_moves_only_the_scale_first() -> None:
    model, auxiliary = vit(seed=0), vit(seed=1)
    before = model(images())
    attach(model.blocks, auxiliary.blocks)
    assert torch.equal(model(images()), before)
    model(images()).square().mean().backward()
    own = parameters(model.blocks[0].attn.qkv)
    assert torch.count_nonzero(own["pathways.auxiliary.weight"].grad) == 0
    assert torch.count_nonzero(own["pathways.auxiliary.scale"].grad) == 1
    assert torch.count_nonzero(own["weight"].grad) > 0


def test_autocast_rounds_the_sum_once_and_gives_float32_gradients() -> None:
    target, auxiliary = (nn.ModuleDict({"fc": nn.Linear(16, 8)}) for _ in range(2))
    w, a, b = (t.detach().clone() for t in (target["fc"].weight, auxiliary["fc"].weight, target["fc"].bias))
    attach(target, auxiliary, layers=("fc",), scale_init=0.01)
    x = torch.randn(32, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = target["fc"](x)
    rounded = (w + torch.tensor(0.01) * a).bfloat16()
    assert torch.equal(output, F.linear(x.bfloat16(), rounded, b.bfloat16()))

    upstream = torch.randn_like(output)
    output.backward(upstream)
    gradient = (upstream.mT @ x.bfloat16()).float()
    own = parameters(target["fc"])
    torch.testing.assert_close(own["weight"].grad, gradient)
    torch.testing.assert_close(own["pathways.auxiliary.weight"].grad, gradient * 0.01)
    torch.testing.assert_close(own["pathways.auxiliary.scale"].grad, (gradient * a).sum().reshape(1))


class FullSizeAllocations(TorchDispatchMode):
    """Records the operations that allocate a tensor of at least `size` elements."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        known = {
            t.untyped_storage().data_ptr() for t in [*args, *(kwargs or {}).values()] if isinstance(t, Tensor)
        }
        output = func(*args, **(kwargs or {}))
        is_new = isinstance(output, Tensor) and output.untyped_storage().data_ptr() not in known
        if is_new and output.numel() >= self.size:
            self.names.append(func.overloadpacket.__name__)
        return output


def test_one_effective_weight_forward_and_one_gradient_backward() -> None:
    target, auxiliary = (nn.ModuleDict({"fc": nn.Linear(64, 96)}) for _ in range(2))
    attach(target, auxiliary, layers=("fc",))
    x = torch.randn(4, 64)
    with FullSizeAllocations(64 * 96) as forward:
        output = target["fc"](x)
    assert forward.names == ["addcmul"]
    with FullSizeAllocations(64 * 96) as backward:
        output.backward(torch.ones_like(output))
    assert sorted(backward.names) == ["mm", "mul"]  # G, which is dW, and dA = λ G


def test_frozen_matrices_leave_one_gradient_and_keep_none() -> None:
    target, auxiliary = (nn.ModuleDict({"fc": nn.Linear(64, 96)}) for _ in range(2))
    attach(target, auxiliary, layers=("fc",))
    for name, parameter in target.named_parameters():
        parameter.requires_grad_(is_scale(name))
    x, a = torch.randn(4, 64), auxiliary["fc"].weight.detach()
    output = target["fc"](x)
    with FullSizeAllocations(64 * 96) as backward:
        output.backward(torch.ones_like(output))
    assert backward.names == ["mm"]
    assert [name for name, p in target.named_parameters() if p.grad is not None] == [
        "fc.pathways.auxiliary.scale"
    ]
    scale = parameters(target)["fc.pathways.auxiliary.scale"]
    torch.testing.assert_close(scale.grad, (x @ a.T).sum().reshape(1))


def test_a_weight_that_a_forward_uses_otherwise_is_not_rounded_under_autocast() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).float() + self.fc.weight.square().mean()

    block, other = Block(), Block()
    plain = copy.deepcopy(block)
    with torch.no_grad():
        plain.fc.weight += 0.3 * other.fc.weight
    attach([block], [other], scale_init=0.3)
    x = torch.zeros(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(block(x), plain(x), rtol=1e-6, atol=1e-7)

    normed, other = (timm.layers.StdConv2d(4, 8, 3) for _ in range(2))
    plain = copy.deepcopy(normed)
    with torch.no_grad():
        plain.weight += 0.3 * other.weight
    attach([normed], [other], [""], scale_init=0.3)
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(normed(x), plain(x))


def test_two_auxiliaries_of_a_narrow_model_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64).bfloat16() for _ in range(3)]
    wide = layers[0].weight.detach().float()
    for number, other in enumerate(layers[1:]):
        attach([layers[0]], {f"other{number}": [other]}, [""], scale_init=0.3)
        scale = torch.tensor(0.3, dtype=torch.bfloat16).float()
        wide = torch.addcmul(wide, other.weight.detach().float(), scale)
    assert torch.equal(effective_weight(layers[0]), wide.bfloat16())
    assert torch.equal(merge(layers[0]).weight, wide.bfloat16())


def test_a_scale_is_rounded_to_the_dtype_of_the_target_alone() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        for dtype in (torch.float32, torch.float64):
            layer = nn.Linear(4, 4, dtype=dtype)
            attach([layer], [nn.Linear(4, 4, dtype=dtype)], [""], scale_init=0.1)
            assert layer.pathways["auxiliary"].scale.item() == torch.tensor(0.1, dtype=dtype).item()
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_rounds_nothing_that_it_would_not_round_of_a_plain_layer() -> None:
    target, auxiliary = nn.Embedding(6, 4), nn.Embedding(6, 4)
    expected = target.weight + 0.5 * auxiliary.weight
    attach([target], [auxiliary], layers=[""], scale_init=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(target(torch.arange(6)), expected)


@pytest.mark.parametrize("part", ["scale", "weight"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_scale_or_matrix_of_another_dtype_keeps_it_and_is_used_in_that_of_w(
    part: str, compiled: bool
) -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False)).bfloat16()
    attach(model, nn.Sequential(nn.Linear(8, 8, bias=False)), layers=[""], scale_init=0.25)
    layer, x = model[0], torch.randn(4, 8, dtype=torch.bfloat16)
    expected = model(x)
    other = getattr(layer.pathways["auxiliary"], part)
    other.data = other.data.float()
    output = (torch.compile(model, backend="eager", fullgraph=True) if compiled else model)(x)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert other.grad is not None and other.grad.dtype == torch.float32
    merged = merge(model)
    assert merged[0].weight.dtype == torch.bfloat16
    torch.testing.assert_close(merged(x), expected, rtol=0.02, atol=0.02)
