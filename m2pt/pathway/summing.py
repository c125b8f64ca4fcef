"""W + Σ λᵢAᵢ of plain tensors: its value in one buffer, its gradients from one product each."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def weighted_sum(weight: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """Return W + Σ λᵢAᵢ in `dtype`, summed in the tensors' own precision and rounded once.

    λ stays a tensor: `alpha=` would need its value on the host, with a GPU synchronization per layer.
    """
    *first, (matrix, scale) = pairs
    if first and weight.dtype.itemsize < 4:
        weight = weight.float()
    for other, other_scale in first:
        weight = torch.addcmul(weight, other, per_row(other_scale, other))
    if dtype == weight.dtype:
        return torch.addcmul(weight, matrix, per_row(scale, matrix))
    return torch.addcmul(weight, matrix, per_row(scale, matrix), out=torch.empty_like(weight, dtype=dtype))


def per_row(scale: Tensor, matrix: Tensor) -> Tensor:
    """Return λ in a shape that multiplies A: (1,), or one element for each output row."""
    groups, rows = scale.shape[0], matrix.shape[0]
    if groups == 1:
        return scale
    return scale.repeat_interleave(rows // groups, output_size=rows).view(-1, *[1] * (matrix.ndim - 1))


class EffectiveWeight(torch.autograd.Function):
    """W + Σ λᵢAᵢ in one buffer forward, and every gradient from the one G = ∂L/∂(W + Σ λᵢAᵢ) backward.

    dW = G, dAᵢ = λᵢG, dλᵢ = ⟨G, Aᵢ⟩. Autograd on `W + λA` would also allocate λA forward and G * A backward.
    Only required gradients are computed: with W and A frozen only dλ is, and G is freed at once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(dtype: torch.dtype, weight: Tensor, *pairs: Tensor) -> Tensor:
        """Compute the effective weight; `pairs` is A₁, λ₁, A₂, λ₂, …."""
        return weighted_sum(weight, list(zip(pairs[::2], pairs[1::2], strict=True)), dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save Aᵢ and λᵢ; they are parameters, so this takes no memory."""
        _, weight, *pairs = inputs
        ctx.weight_dtype, ctx.dtype = weight.dtype, output.dtype
        ctx.save_for_backward(*pairs)
        ctx.save_for_forward(*pairs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in the order of the inputs, in the parameters' dtype."""
        gradient = gradients[0].to(ctx.weight_dtype)
        _, weight_needs, *pairs_need = ctx.needs_input_grad
        result = [None, gradient if weight_needs else None]
        saved = ctx.saved_tensors
        for i in range(0, len(saved), 2):
            matrix, scale = saved[i], saved[i + 1]
            result.append(gradient * per_row(scale, matrix) if pairs_need[i] else None)
            result.append(_group_dots(gradient, matrix, scale) if pairs_need[i + 1] else None)
        return tuple(result)

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor | None, *tangents: Tensor | None) -> Tensor:
        """Return dW + Σ (λᵢ dAᵢ + dλᵢ Aᵢ) in the dtype of the sum."""
        saved = ctx.saved_tensors
        result = torch.zeros_like(saved[0]) if tangent is None else tangent
        for i in range(0, len(saved), 2):
            (matrix, scale), (d_matrix, d_scale) = saved[i : i + 2], tangents[i : i + 2]
            if d_matrix is not None:
                result = torch.addcmul(result, d_matrix, per_row(scale, matrix))
            if d_scale is not None:
                result = torch.addcmul(result, matrix, per_row(d_scale, matrix))
        return result.to(ctx.dtype)


# torch asks for it in each call, and would read it off the function each time: a third of a small sum's time
EffectiveWeight.forward.__signature__ = inspect.signature(EffectiveWeight.forward)  # type: ignore[attr-defined]


def _group_dots(gradient: Tensor, matrix: Tensor, scale: Tensor) -> Tensor:
    """Return ⟨G, A⟩ for each group of rows; products, because G * A would be one more full-size tensor."""
    groups = scale.shape[0]
    if groups == 1:
        return torch.dot(gradient.flatten(), matrix.flatten()).reshape(1)
    return torch.bmm(gradient.reshape(groups, 1, -1), matrix.reshape(groups, -1, 1)).view(groups)
