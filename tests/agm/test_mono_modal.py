"""Mono-modal logits in evaluation mode."""

import pytest
import torch
from agm_oracle import BlackBox, Joint, batch, brute_force_responses
from torch import nn

from m2pt.agm import AdaptiveGradientModulation, BalancingError, mono_modal_logits

NAMES = ("audio", "visual", "text")


@pytest.mark.parametrize("black_box", [False, True], ids=["fast", "black box"])
def test_they_sum_to_the_logits_of_the_model_in_evaluation_mode(black_box: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = Joint(NAMES, early=True, batch_norm=True, dropout=0.5).double()
    model = BlackBox(model) if black_box else model
    inputs, _ = batch(NAMES)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = mono_modal_logits(model, inputs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(each.requires_grad for each in found.values())
    model.eval()
    torch.testing.assert_close(sum(found.values()), model(inputs).detach())


def test_they_equal_brute_force_and_those_of_the_method() -> None:
    torch.manual_seed(0)
    model = Joint(NAMES, early=True).double().eval()
    inputs, _ = batch(NAMES)
    zeros = {name: torch.zeros_like(value) for name, value in inputs.items()}
    names = [[n for n in NAMES if n in key] for key in ("", "audio", "visual", "text")]
    pairs = [["audio", "visual"], ["audio", "text"], ["visual", "text"], list(NAMES)]
    values = {
        frozenset(chosen): model({**zeros, **{name: inputs[name] for name in chosen}}).detach()
        for chosen in names + pairs
    }
    expected = brute_force_responses(values, NAMES, empty_is_zero=False)
    found = mono_modal_logits(model, inputs, empty="subtracted")
    agm = AdaptiveGradientModulation(model, empty="subtracted").mono_modal_logits(inputs)
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name])
        torch.testing.assert_close(agm[name], expected[name])


def test_one_modality_has_the_logits_of_the_model() -> None:
    model = Joint(("audio",)).double()
    inputs, _ = batch(("audio",))
    torch.testing.assert_close(mono_modal_logits(model, inputs)["audio"], model(inputs).detach())
    others = {**inputs, "visual": inputs["audio"][:2]}
    assert torch.equal(mono_modal_logits(model, others)["audio"], mono_modal_logits(model, inputs)["audio"])


def test_a_missing_modality_is_an_error() -> None:
    model = Joint(NAMES).double()
    with pytest.raises(BalancingError, match="the batch lacks modality 'text'"):
        mono_modal_logits(model, batch(NAMES[:2])[0], NAMES)
