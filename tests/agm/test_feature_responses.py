"""Responses from muted features against OGM's formula and brute force; what they leave alone."""

import itertools
import math

import pytest
import torch
from balancing_models import Early, Late, Stranger, batch
from torch import Tensor, nn

from m2pt.agm.feature_responses import forward_with_responses
from m2pt.agm.responses import ShapleyAttribution


def responses_of(model: nn.Module, names: tuple[str, ...], inputs: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits and responses by modality."""
    size = len(next(iter(inputs.values())))
    logits, found = forward_with_responses(model, ShapleyAttribution(names), inputs, size)
    return logits, dict(zip(names, found, strict=True))


def test_the_responses_of_a_linear_head_are_those_of_ogms_paper() -> None:
    model = Late("audio", "visual", "text")
    inputs, _ = batch("audio", "visual", "text")
    logits, mono = responses_of(model, model.modalities, inputs)
    for index, name in enumerate(model.modalities):
        part = model.fusion.weight[:, 4 * index : 4 * index + 4]
        expected = model.encoders[name](inputs[name]) @ part.T + model.fusion.bias / 3
        torch.testing.assert_close(mono[name], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits, model(inputs))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_responses_are_the_mean_over_all_orders_of_arrival(count: int) -> None:
    """Brute force: a modality's share is what it adds, averaged over the orders in which they can arrive."""
    names = ("audio", "visual", "text", "touch")[:count]
    model = Early(*names).eval()
    inputs, _ = batch(*names)
    features = {name: model.encode(name, inputs[name]) for name in names}

    def value(present: tuple[str, ...]) -> Tensor:
        if not present:
            return torch.zeros(6, 3, dtype=torch.float64)
        return model.fuse({n: features[n] if n in present else features[n] * 0 for n in names})

    expected = {name: torch.zeros(6, 3, dtype=torch.float64) for name in names}
    for order in itertools.permutations(names):
        for place, name in enumerate(order):
            expected[name] += (value(order[: place + 1]) - value(order[:place])) / math.factorial(count)
    logits, mono = responses_of(model, names, inputs)
    for name in names:
        torch.testing.assert_close(mono[name], expected[name])
    torch.testing.assert_close(sum(mono.values()), logits)


def test_a_black_box_is_muted_at_its_inputs() -> None:
    model = Stranger()
    inputs, _ = batch("audio", "visual")
    logits, mono = responses_of(model, ("audio", "visual"), inputs)
    only = {n: model({m: inputs[m] * (m == n) for m in inputs}) for n in inputs}
    torch.testing.assert_close(mono["audio"], (logits - only["visual"] + only["audio"]) / 2)
    assert logits.requires_grad and not mono["audio"].requires_grad


def test_integers_in_an_input_are_not_muted() -> None:
    seen = []

    class Sequence(nn.Module):
        def forward(self, inputs: dict[str, dict[str, Tensor]]) -> Tensor:
            seen.append({name: value["lengths"].tolist() for name, value in inputs.items()})
            return sum(value["values"].sum(1, keepdim=True).expand(-1, 3) for value in inputs.values())

    inputs = {n: {"values": torch.ones(2, 4), "lengths": torch.tensor([4, 2])} for n in ("audio", "text")}
    _, mono = forward_with_responses(Sequence(), ShapleyAttribution(("audio", "text")), inputs, 2)
    assert seen == [{"audio": [4, 2], "text": [4, 2]}] * 3
    assert mono[0].tolist() == [[4.0] * 3] * 2


def test_the_muted_passes_leave_modes_statistics_and_the_generator_alone() -> None:
    model, plain = Early("audio", "visual"), Early("audio", "visual")
    inputs, _ = batch("audio", "visual")
    for each in (model, plain):
        each.train()
        each.encoders["audio"][1].eval()
    torch.manual_seed(5)
    logits, _ = responses_of(model, model.modalities, inputs)
    after = torch.rand(1)
    torch.manual_seed(5)
    torch.testing.assert_close(logits, plain(inputs), rtol=0, atol=0)
    assert after.item() == torch.rand(1).item()
    for (name, value), other in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert [m.training for m in model.modules()] == [m.training for m in plain.modules()]
