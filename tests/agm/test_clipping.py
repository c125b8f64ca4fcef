"""The condition on the head's gradient, and clipping against torch's own."""

import copy

import pytest
import torch
from agm_oracle import Joint, batch
from torch import nn
from torch.nn import functional

from m2pt.agm.checks import BalancingError
from m2pt.agm.clipping import ConditionalClipping, last_linear


def model_with_gradients(scale: float) -> Joint:
    torch.manual_seed(0)
    model = Joint(("a", "v"), early=True).double()
    inputs, target = batch(model.modalities)
    (scale * functional.cross_entropy(model(inputs), target)).backward()
    return model


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["above", "below"])
def test_a_large_gradient_of_the_head_clips_the_norm_of_all(sign: float) -> None:
    model = model_with_gradients(0.01)
    last_linear(model).weight.grad[0, 0] = sign * 1.5  # type: ignore[index]
    expected = copy.deepcopy(model)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        theirs.grad = ours.grad.clone()  # type: ignore[union-attr]
    nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
    assert ConditionalClipping(model, 1.0)().item() is True
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_small_gradient_of_the_head_clips_nothing_however_large_the_norm() -> None:
    model = model_with_gradients(0.01)
    model.encoders["a"][0].weight.grad.fill_(100.0)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    assert ConditionalClipping(model, 1.0)().item() is False
    assert all(torch.equal(p.grad, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(("limit", "clips"), [(1.4, True), (1.6, False)])
def test_the_limit_decides(limit: float, clips: bool) -> None:
    model = model_with_gradients(1e-6)
    last_linear(model).weight.grad[0, 0] = 1.5  # type: ignore[index]
    assert ConditionalClipping(model, limit)().item() is clips
    norm = nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    assert norm.item() == pytest.approx(limit if clips else 1.5, rel=1e-5)


def test_the_head_is_the_last_linear_layer_of_the_fusion_or_given() -> None:
    model = model_with_gradients(1.0)
    assert last_linear(model) is model.fusion.head
    other = model.fusion.maps[0]
    assert ConditionalClipping(model, 5.0, other).heads == [other]
    assert ConditionalClipping(model, 5.0, [other, model.fusion.head]).heads == [other, model.fusion.head]


def test_errors() -> None:
    model = Joint(("a", "v"))
    with pytest.raises(BalancingError, match="no gradient: clip after backward"):
        ConditionalClipping(model, 1.0)()
    with pytest.raises(BalancingError, match="Sequential has no module `fusion` with a linear layer"):
        ConditionalClipping(nn.Sequential(nn.Linear(1, 1)), 1.0)
    with pytest.raises(BalancingError, match="limit must be a finite number, above 0, got 0"):
        ConditionalClipping(model, 0)
