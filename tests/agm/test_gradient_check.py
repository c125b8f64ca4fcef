"""Gradients that are exactly 0, where the logits depend on a modality and where they do not."""

import pytest
import torch
from balancing_models import Late, batch
from torch import nn

from m2pt.agm import AdaptiveGradientModulation, BalancingError

PAIR = ("audio", "visual")


class Stepped(Late):
    """A fusion with a graph whose gradient is 0."""

    how = staticmethod(torch.sign)
    of = ("visual",)

    def fuse(self, features):
        return super().fuse({n: self.how(v) if n in self.of else v for n, v in features.items()})


class Rounded(Stepped):
    how = staticmethod(lambda value: (9 * value).round())


class AllStepped(Stepped):
    of = PAIR


class BlackBox(nn.Module):
    def __init__(self, model: Late) -> None:
        super().__init__()
        self.inner = model

    def forward(self, inputs):
        return self.inner(inputs)


@pytest.mark.parametrize("cls", [Stepped, Rounded, AllStepped])
@pytest.mark.parametrize("kind", ["fast", "known encoders", "black box"])
def test_a_gradient_of_zero_is_refused(cls: type[Late], kind: str) -> None:
    model = cls(*PAIR)
    encoders = dict(model.encoders.items()) if kind == "known encoders" else None
    agm = AdaptiveGradientModulation(model if kind == "fast" else BlackBox(model), PAIR, encoders=encoders)
    message = f"differentiated in modality '{cls.of[0]}': they depend on it, but their gradient is 0"
    with pytest.raises(BalancingError, match=message):
        agm.loss(*batch(*PAIR))


class Gated(Late):
    """A modality enters by a gate that starts at 0, as in a model that is extended."""

    def __init__(self, *modalities: str) -> None:
        super().__init__(*modalities)
        self.gate = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def fuse(self, features):
        return super().fuse({**features, "visual": self.gate * features["visual"]})


@pytest.mark.parametrize("black_box", [False, True])
def test_a_gate_that_starts_at_zero_is_no_fault(black_box: bool) -> None:
    model = Gated(*PAIR)
    agm = AdaptiveGradientModulation(BlackBox(model) if black_box else model, PAIR)
    agm.loss(*batch(*PAIR)).backward()
    assert model.gate.grad != 0 and not agm._first_batches._done
    with torch.no_grad():
        model.gate.fill_(0.1)
    agm.loss(*batch(*PAIR)).backward()
    assert agm._first_batches._done


def test_logits_whose_sum_is_constant_are_no_fault() -> None:
    class Centered(Late):
        def fuse(self, features):
            logits = super().fuse(features)
            return logits - logits.mean(1, keepdim=True)

    agm = AdaptiveGradientModulation(Centered(*PAIR))
    agm.loss(*batch(*PAIR)).backward()
    assert agm._first_batches._done


def test_complex_features_can_be_differentiated() -> None:
    class Spectral(Late):
        def encode(self, modality, value):
            return torch.fft.rfft(super().encode(modality, value))

        def fuse(self, features):
            return super().fuse({n: torch.fft.irfft(v, 4) for n, v in features.items()})

    AdaptiveGradientModulation(Spectral(*PAIR)).loss(*batch(*PAIR)).backward()


@pytest.mark.parametrize(
    ("wrap", "found"),
    [(lambda x: {"logits": x}, "dict"), (lambda x: (x, x), "tuple"), (lambda x: x * 1j, "torch.complex128")],
)
def test_a_model_that_does_not_return_logits_says_so(wrap, found: str) -> None:
    class Wrapping(BlackBox):
        def forward(self, inputs):
            return wrap(super().forward(inputs))

    agm = AdaptiveGradientModulation(Wrapping(Late(*PAIR)), PAIR)
    with pytest.raises(BalancingError, match=f"Wrapping must return logits .*got {found}"):
        agm.loss(*batch(*PAIR))
