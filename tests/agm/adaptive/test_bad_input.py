"""Bad batches, settings and models through the public entry: one clear error each."""

import pytest
import torch
from agm_oracle import BlackBox, Joint, batch
from torch import nn

from m2pt.agm import AdaptiveGradientModulation, BalancingError

NAMES = ("audio", "visual")


@pytest.fixture
def agm() -> AdaptiveGradientModulation:
    torch.manual_seed(0)
    return AdaptiveGradientModulation(Joint(NAMES).double(), NAMES)


def test_a_batch_that_does_not_fit(agm: AdaptiveGradientModulation) -> None:
    inputs, target = batch(NAMES)
    with pytest.raises(BalancingError, match="the batch lacks modality 'visual'; it has 'audio'"):
        agm.loss({"audio": inputs["audio"]}, target)
    with pytest.raises(BalancingError, match="the batch has modality 'text', which is not among"):
        agm.loss({**inputs, "text": inputs["audio"]}, target)
    with pytest.raises(BalancingError, match="differ in batch size"):
        agm.loss({**inputs, "audio": inputs["audio"][:3]}, target)
    with pytest.raises(BalancingError, match=r"target must have the shape \(6,\)"):
        agm.loss(inputs, target[:3])


@pytest.mark.parametrize("wrong", [4, -1, -100])
@pytest.mark.parametrize("training", [True, False])
def test_a_class_that_does_not_exist(agm: AdaptiveGradientModulation, wrong: int, training: bool) -> None:
    inputs, target = batch(NAMES)
    target[2] = wrong
    with pytest.raises(BalancingError, match="target has a class outside 0 to 3"):
        agm.train(training).loss(inputs, target)


def test_a_nan_in_an_input_is_named(agm: AdaptiveGradientModulation) -> None:
    inputs, target = batch(NAMES)
    inputs["visual"][0, 0] = torch.nan
    with pytest.raises(BalancingError, match="modality 'visual' has NaN values"):
        agm.loss(inputs, target)


def test_a_nan_of_the_model_is_named_and_leaves_the_means_as_they_were(
    agm: AdaptiveGradientModulation,
) -> None:
    inputs, target = batch(NAMES)
    agm.loss(inputs, target)
    before = agm.modulation.running_scores.clone(), agm.modulation.batches.clone()
    inputs["visual"][0, 0] = torch.inf
    with pytest.raises(BalancingError, match=r"the score of modality '\w+' is NaN or infinite"):
        agm.loss(inputs, target)
    assert torch.equal(agm.modulation.running_scores, before[0]) and agm.modulation.batches == before[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modalities": ["audio"]}, r"needs at least 2 modalities, got \['audio'\]"),
        ({"alpha": -1.0}, "alpha must be a finite number, 0 or more, got -1.0"),
        ({"alpha": float("nan")}, "alpha must be a finite number, 0 or more, got nan"),
        ({"probability_floor": 0.0}, "probability_floor must be a finite number, above 0, got 0.0"),
        ({"probability_floor": 1.0}, "probability_floor must be below 1, got 1.0"),
        ({"probability_floor": "x"}, "probability_floor must be a number, got 'x'"),
        ({"window": 3}, "window must be a first and a last epoch, such as .*, got 3"),
        ({"window": (1, 2, 3)}, "window must be a first and a last epoch"),
        ({"window": (None, 20)}, r"window must have integers, .*, got \(None, 20\)"),
        ({"window": ("a", None)}, "window must have integers"),
        ({"window": (5.5, 7)}, "window must have integers"),
        ({"window": (5, 7.5)}, "window must have integers"),
        ({"window": (5, 4)}, "window must end no earlier than it starts"),
        ({"muting": "zeros"}, "muting must be a Muting or None for zeros, got 'zeros'"),
        ({"constant_when_muted": ["zzz"]}, "constant_when_muted has 'zzz', which is not among"),
        ({"empty": "zero"}, "empty must be 'omitted' or 'subtracted'"),
        ({"encoders": {"audio": nn.Linear(1, 1)}}, "encoders: no value for 'visual'"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(BalancingError, match=message):
        AdaptiveGradientModulation(Joint(NAMES), **arguments)


def test_a_model_that_does_not_name_its_modalities() -> None:
    with pytest.raises(BalancingError, match="BlackBox has no `modalities`: give modalities="):
        AdaptiveGradientModulation(BlackBox(Joint(NAMES)))


def test_a_model_that_does_not_return_logits() -> None:
    class Scalar(Joint):
        def forward(self, inputs):
            return super().forward(inputs).mean()

    inputs, target = batch(NAMES)
    agm = AdaptiveGradientModulation(BlackBox(Scalar(NAMES).double()), NAMES)
    with pytest.raises(BalancingError, match=r"BlackBox must return logits \(6, num_classes\), got \(\)"):
        agm.loss(inputs, target)
