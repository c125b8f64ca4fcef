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


class Scaled(Joint):
    """A model whose forward does more than encode and fuse."""

    def forward(self, inputs):
        return super().forward(inputs) / 5


class Centered(Joint):
    """A model in which a sample depends on the others of its batch."""

    def encode(self, modality, value):
        features = super().encode(modality, value)
        return features - features.mean(0)


@pytest.mark.parametrize("cls", [Scaled, Centered])
def test_a_fast_path_that_differs_from_the_model_is_refused(cls: type[Joint]) -> None:
    torch.manual_seed(0)
    model, (inputs, _) = cls(NAMES).double(), batch(NAMES)
    for _ in range(2):
        with pytest.raises(
            BalancingError, match=f"of {cls.__name__} differs from its forward by .*fast_path="
        ):
            mono_modal_logits(model, inputs)
    found = mono_modal_logits(model, inputs, fast_path=False)
    torch.testing.assert_close(sum(found.values()), model(inputs).detach())


def test_the_comparison_is_made_once_the_logits_say_something() -> None:
    model, (inputs, _) = Scaled(NAMES).double(), batch(NAMES)
    for parameter in model.fusion.parameters():
        nn.init.zeros_(parameter)
    assert not mono_modal_logits(model, inputs)["audio"].any()
    nn.init.ones_(model.fusion.weight)
    with pytest.raises(BalancingError, match="differs from its forward"):
        mono_modal_logits(model, inputs)
    right = Joint(NAMES).double()
    mono_modal_logits(right, inputs)
    right.calls = dict.fromkeys(NAMES, 0)
    mono_modal_logits(right, inputs)
    assert right.calls == dict.fromkeys(NAMES, 7)  # a batch and one muted sample, and no further pass


def test_a_key_that_is_no_modality_is_named() -> None:
    model, (inputs, _) = Joint(NAMES).double(), batch(NAMES)
    del model.modalities
    model.fuse = lambda features: model.fusion(torch.cat([features[n] for n in NAMES], 1))
    with pytest.raises(BalancingError, match="the batch has modality 'index', which is not among"):
        mono_modal_logits(model, {**inputs, "index": torch.arange(6)})


@pytest.mark.parametrize("black_box", [False, True])
def test_a_response_that_is_not_finite_is_named(black_box: bool) -> None:
    model: nn.Module = Joint(NAMES, early=True).double()
    inputs, _ = batch(NAMES)
    inputs["visual"][0, 0] = torch.inf
    with pytest.raises(BalancingError, match=r"the response of modality '\w+' is NaN or infinite"):
        mono_modal_logits(BlackBox(model) if black_box else model, inputs, NAMES)


def test_inputs_that_are_changed_in_place_are_named() -> None:
    class Rectified(BlackBox):
        def forward(self, inputs):
            return super().forward({name: value.relu_() for name, value in inputs.items()})

    with pytest.raises(BalancingError, match="Rectified changes the inputs of modality 'audio' in place"):
        mono_modal_logits(Rectified(Joint(NAMES).double()), batch(NAMES)[0], NAMES)


class Flagged(Joint):
    """A model with a mode of its own."""

    learns = True

    def train(self, mode: bool = True):
        self.learns = mode
        return super().train(mode)

    def forward(self, inputs):
        logits = super().forward(inputs)
        return logits + torch.randn_like(logits) if self.learns else logits


def test_a_model_with_a_mode_of_its_own_is_measured_in_evaluation_mode() -> None:
    model = BlackBox(Flagged(NAMES).double())
    inputs, _ = batch(NAMES)
    found = mono_modal_logits(model, inputs, NAMES)
    assert model.inner.learns
    torch.testing.assert_close(sum(found.values()), model.eval()(inputs).detach())
