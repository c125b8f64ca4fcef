"""What is found with the first batch, and what is not mistaken for a fault."""

import pytest
import torch
from agm_oracle import CLASSES, BlackBox, Joint, batch
from torch import nn
from torch.utils.checkpoint import checkpoint

from m2pt.agm import AdaptiveGradientModulation, BalancingError

NAMES = ("audio", "visual")


class Cut(Joint):
    """A model whose fusion cannot be differentiated in the visual features."""

    def __init__(self, how: str) -> None:
        super().__init__(NAMES)
        self.how = how

    def fuse(self, features):
        visual = features["visual"]
        visual = visual.detach() if self.how == "detach" else (visual > 0).to(visual.dtype)
        return super().fuse({"audio": features["audio"], "visual": visual})


class CutEncoder(Joint):
    """A model that encodes one modality without a graph, though its encoder is to be trained."""

    def encode(self, modality, value):
        features = super().encode(modality, value)
        return features.detach() if modality == "visual" else features


@pytest.mark.parametrize("black_box", [False, True], ids=["fast", "black box"])
@pytest.mark.parametrize("make", [lambda: Cut("detach"), lambda: Cut("step"), lambda: CutEncoder(NAMES)])
def test_a_fusion_that_cannot_be_differentiated_in_a_modality(make, black_box: bool) -> None:
    model = make().double()
    agm = AdaptiveGradientModulation(BlackBox(model) if black_box else model, NAMES)
    with pytest.raises(BalancingError, match="cannot be differentiated in modality 'visual'"):
        agm.loss(*batch(NAMES))


def test_known_encoders_decide_for_a_black_box() -> None:
    model = Cut("step").double()
    agm = AdaptiveGradientModulation(BlackBox(model), NAMES, encoders=dict(model.encoders.items()))
    with pytest.raises(BalancingError, match="cannot be differentiated in modality 'visual'"):
        agm.loss(*batch(NAMES))


def drop(x: torch.Tensor, model: nn.Module) -> torch.Tensor:
    return nn.functional.dropout(x, 0.5, model.training)


class Hidden(Joint):
    """Encodes with dropout that no module of the encoder says."""

    def encode(self, modality, value):
        return drop(super().encode(modality, value), self)


def test_an_encoder_that_hides_its_mode_is_named() -> None:
    torch.manual_seed(0)
    agm = AdaptiveGradientModulation(Hidden(NAMES).double(), NAMES)
    with pytest.raises(BalancingError, match=r"encode\('audio', ...\) of Hidden depends on the mode"):
        agm.loss(*batch(NAMES))
    black_box = AdaptiveGradientModulation(Hidden(NAMES).double(), NAMES, fast_path=False)
    assert black_box.loss(*batch(NAMES)).isfinite()


class Rounded(nn.Module):
    """Token ids given as numbers: no gradient to the input, but one to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, CLASSES), nn.Linear(6, CLASSES)

    def forward(self, inputs):
        return self.embedding(inputs["text"].long()) + self.linear(inputs["audio"])


def test_inputs_that_are_rounded_and_frozen_encoders_are_no_fault() -> None:
    inputs, target = batch(("audio",))
    inputs["text"] = torch.randint(9, (6,)).double()
    AdaptiveGradientModulation(Rounded().double(), ["audio", "text"]).loss(inputs, target).backward()
    frozen = Joint(NAMES).double()
    frozen.encoders.requires_grad_(False)
    AdaptiveGradientModulation(frozen, NAMES).loss(*batch(NAMES)).backward()
    AdaptiveGradientModulation(BlackBox(frozen), NAMES).loss(*batch(NAMES)).backward()


class Other(Joint):
    """A model whose forward does more than encode and fuse."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Centered(Joint):
    """A model in which a sample depends on the others of its batch."""

    def encode(self, modality, value):
        features = super().encode(modality, value)
        return features - features.mean(0)


@pytest.mark.parametrize("cls", [Other, Centered])
def test_a_fast_path_that_differs_from_the_model(cls: type[Joint]) -> None:
    torch.manual_seed(0)
    model = cls(NAMES)
    inputs, target = batch(NAMES, dtype=torch.float32)
    with pytest.raises(BalancingError, match=f"of {cls.__name__} differs from its forward by"):
        AdaptiveGradientModulation(model, NAMES).loss(inputs, target)
    AdaptiveGradientModulation(model, NAMES, fast_path=False).loss(inputs, target).backward()


def test_the_first_batch_changes_neither_statistics_nor_generators() -> None:
    """Otherwise a resumed training, which checks again, would differ from one that was not stopped."""
    torch.manual_seed(0)
    model = Joint(NAMES, early=True, batch_norm=True, dropout=0.5).double()
    agm = AdaptiveGradientModulation(model, NAMES)
    states = {key: value.clone() for key, value in agm.state_dict().items()}
    losses = []
    for _ in range(2):  # the check runs in the first call only
        agm.load_state_dict(states)
        torch.manual_seed(1)
        losses.append(
            (agm.loss(*batch(NAMES)).item(), torch.rand(1).item(), agm.coefficients["audio"].item())
        )
    assert losses[0] == losses[1]


def test_reentrant_checkpointing_is_refused() -> None:
    class Checkpointed(Joint):
        reentrant = True

        def encode(self, modality, value):
            return checkpoint(self.encoders[modality], value, use_reentrant=self.reentrant)

    inputs, target = batch(NAMES)
    agm = AdaptiveGradientModulation(BlackBox(Checkpointed(NAMES).double()), NAMES)
    with pytest.raises(BalancingError, match="set use_reentrant=False"):
        agm.loss(inputs, target)
    agm.model.inner.reentrant = False
    agm.loss(inputs, target).backward()
    found = [parameter.grad for parameter in agm.model.parameters()]
    plain = AdaptiveGradientModulation(BlackBox(Joint(NAMES).double()), NAMES)
    plain.model.load_state_dict(agm.model.state_dict())
    plain.loss(inputs, target).backward()
    for first, parameter in zip(found, plain.model.parameters(), strict=True):
        torch.testing.assert_close(first, parameter.grad)
