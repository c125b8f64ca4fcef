"""`encode` and `fuse` against `forward`, in both modes, for all methods that use them."""

import random
from collections.abc import Callable

import pytest
import torch
from balancing_models import Early, Late, batch, gradients
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from m2pt.agm import OGM, AdaptiveGradientModulation, BalancingError, BalancingMethod, GradientBlending, Joint
from m2pt.agm.first_batch import FirstBatches

PAIR = ("audio", "visual")


def agm(model: Late, **settings) -> BalancingMethod:
    return AdaptiveGradientModulation(model, **settings)


def ogm(model: Late, **settings) -> BalancingMethod:
    return OGM(model, alpha=0.5, parameters="all", **settings)


def blending(model: Late) -> BalancingMethod:
    return GradientBlending(model, heads={name: nn.Linear(4, 3).double() for name in PAIR})


METHODS = {"agm": agm, "ogm": ogm, "blending": blending}


class Dropped(Late):
    """Dropout between encoders and fusion, in forward only."""

    def __init__(self, *modalities: str) -> None:
        super().__init__(*modalities)
        self.dropout = nn.Dropout(0.5)

    def between(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.dropout(value) for name, value in features.items()}

    def forward(self, inputs):
        return self.fuse(self.between({name: self.encode(name, inputs[name]) for name in self.modalities}))


class Normed(Dropped):
    """BatchNorm there: with its first statistics it does nothing in evaluation mode."""

    def __init__(self, *modalities: str) -> None:
        super().__init__(*modalities)
        self.norm = nn.BatchNorm1d(4, eps=1e-12).double()

    def between(self, features):
        return {name: self.norm(value) for name, value in features.items()}


class Hiding(Dropped):
    """Leaves out a modality by chance, which is not so with the numbers of this test's seed."""

    def between(self, features):
        if self.training and torch.rand(()) < 0.01:
            features["audio"] = torch.zeros_like(features["audio"])
        return features


class Shifted(Dropped):
    """Adds something in training only, without a random number."""

    def between(self, features):
        return {name: value + self.training for name, value in features.items()}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Dropped, "draws other random numbers in training mode than .* in dropout"),
        (Hiding, "draws other random numbers in training mode than .* in rand"),
        (Normed, r"of Normed differs from its forward by \S+ in training mode"),
        (Shifted, r"of Shifted differs from its forward by \S+ in training mode"),
    ],
)
def test_what_forward_does_in_training_only_is_found(name: str, cls: type[Late], message: str) -> None:
    inputs, target = batch(*PAIR)
    with pytest.raises(BalancingError, match=message):
        METHODS[name](cls(*PAIR)).loss(inputs, target)
    if name != "blending":
        METHODS[name](cls(*PAIR), fast_path=False).loss(inputs, target).backward()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_that_would_be_skipped_are_refused(name: str, register: str) -> None:
    model = Late(*PAIR)
    getattr(model, register)(lambda *_: None)
    with pytest.raises(BalancingError, match="Late has hooks of its own, which encode and fuse would skip"):
        METHODS[name](model).loss(*batch(*PAIR))
    model = Late(*PAIR)
    model.encoders["audio"].register_forward_hook(lambda *_: None)  # called by encode too
    METHODS[name](model).loss(*batch(*PAIR)).backward()


class Backwards(Early):
    """Encodes in another order than the methods, with dropout of two kinds."""

    def encode(self, modality, value):
        encoded = functional.dropout(super().encode(modality, value), 0.3, self.training)
        return encoded * torch.empty(len(encoded), 1).bernoulli_(0.7) if self.training else encoded

    def forward(self, inputs):
        return self.fuse({name: self.encode(name, inputs[name]) for name in reversed(self.modalities)})


class Marked(Backwards):
    """Says that its encoders depend on the mode."""

    def encoder(self) -> nn.Module:
        return nn.Sequential(super().encoder(), nn.Dropout(0.3))


@pytest.mark.parametrize("name", METHODS)
def test_random_numbers_in_another_order_are_no_fault(name: str) -> None:
    METHODS[name](Marked(*PAIR)).loss(*batch(*PAIR)).backward()


@pytest.mark.parametrize("name", METHODS)
def test_the_check_leaves_no_trace(name: str) -> None:
    """Otherwise the first step would differ from that of a training that is resumed."""
    inputs, target = batch(*PAIR)
    found = []
    for checked in (False, True):
        method = METHODS[name](Marked(*PAIR))
        method._first_batches._done = not checked
        torch.manual_seed(1)
        random.seed(1)
        loss = method.loss(inputs, target)
        found.append((loss.item(), torch.rand(1).item(), random.random(), str(method.model.state_dict())))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", METHODS)
def test_the_check_does_not_take_gradients_away_under_autocast(name: str) -> None:
    method = METHODS[name](Late(*PAIR)).float()
    inputs, target = batch(*PAIR)
    inputs = {each: value.float() for each, value in inputs.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(inputs, target)
    loss.backward()
    assert len(gradients(method.model)) == len(list(method.model.parameters()))


class InPlace(Late):
    """Encodes in place."""

    def encode(self, modality, value):
        return super().encode(modality, value.relu_() if modality == "visual" else value)


class Popping(Late):
    """Takes the lengths out of its input."""

    def encode(self, modality, value):
        value.pop("lengths")
        return super().encode(modality, value["values"])


class BlackBox(nn.Module):
    def __init__(self, model: Late) -> None:
        super().__init__()
        self.inner = model

    def forward(self, inputs):
        return self.inner({name: inputs[name] for name in PAIR})


class Rectified(BlackBox):
    """Begins with an operation in place."""

    def forward(self, inputs):
        return super().forward({name: nn.ReLU(inplace=True)(value) for name, value in inputs.items()})


def whole(model: nn.Module) -> BalancingMethod:
    return AdaptiveGradientModulation(model, PAIR)


def whole_ogm(model: BlackBox) -> BalancingMethod:
    encoders = dict(model.inner.encoders.items())
    return OGM(model, PAIR, alpha=0.5, parameters="all", encoders=encoders)


@pytest.mark.parametrize(
    ("build", "modality"),
    [
        (lambda: agm(InPlace(*PAIR)), "visual"),
        (lambda: ogm(InPlace(*PAIR)), "visual"),
        (lambda: blending(InPlace(*PAIR)), "visual"),
        (lambda: whole(BlackBox(InPlace(*PAIR))), "visual"),
        (lambda: whole(Rectified(Late(*PAIR))), "audio"),
        (lambda: whole_ogm(Rectified(Late(*PAIR))), "audio"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_inputs_that_are_changed_in_place_are_named(
    build: Callable[[], BalancingMethod], modality: str, frozen: bool
) -> None:
    method = build()
    method.model.requires_grad_(not frozen)
    with pytest.raises(BalancingError, match=f"changes the inputs of modality '{modality}' in place"):
        method.loss(*batch(*PAIR))


def test_joint_training_may_change_its_inputs() -> None:
    Joint(InPlace(*PAIR)).loss(*batch(*PAIR)).backward()


@pytest.mark.parametrize("method", [agm, ogm, blending, lambda m: whole(BlackBox(m)), Joint])
def test_a_pass_may_take_entries_out_of_a_dict(method: Callable[..., BalancingMethod]) -> None:
    inputs, target = batch(*PAIR)
    given = {name: {"values": value, "lengths": torch.ones(6).long()} for name, value in inputs.items()}
    method(Popping(*PAIR)).loss(given, target).backward()
    assert list(given["audio"]) == ["values", "lengths"]


class FusingInPlace(Late):
    def fuse(self, features):
        features["audio"].add_(1.0)
        return super().fuse(features)


@pytest.mark.parametrize("name", METHODS)
def test_a_fusion_in_place_is_named(name: str) -> None:
    with pytest.raises(
        BalancingError, match="fuse of FusingInPlace changes the features of modality 'audio'"
    ):
        METHODS[name](FusingInPlace(*PAIR)).loss(*batch(*PAIR))


@pytest.mark.parametrize("build", [agm, ogm, blending, Joint])
def test_lazy_modules_on_the_fast_path_are_named(build: Callable[..., BalancingMethod]) -> None:
    class Lazy(Late):
        def head(self, width):
            return nn.LazyLinear(3)

    if build is Joint:  # forward alone gives them a shape
        Joint(Lazy(*PAIR)).loss(*batch(*PAIR)).backward()
        return
    with pytest.raises(BalancingError, match="Lazy has lazy modules without a shape yet"):
        build(Lazy(*PAIR)).loss(*batch(*PAIR))


def test_reentrant_checkpoints_of_encoders_are_named() -> None:
    class Checkpointed(Late):
        def encode(self, modality, value):
            return checkpoint(self.encoders[modality], value, use_reentrant=True)

    with pytest.raises(BalancingError, match="a checkpoint with use_reentrant=True"):
        agm(Checkpointed(*PAIR)).loss(*batch(*PAIR))


class Doubled(Late):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


@pytest.mark.parametrize("name", METHODS)
def test_a_last_layer_of_zeros_postpones_the_check(name: str) -> None:
    model = Doubled(*PAIR)
    for parameter in model.fusion.parameters():
        nn.init.zeros_(parameter)
    method = METHODS[name](model)
    method.loss(*batch(*PAIR)).backward()
    with torch.no_grad():
        nn.init.ones_(model.fusion.weight)
    with pytest.raises(BalancingError, match="differs from its forward by"):
        method.loss(*batch(*PAIR))


def test_a_check_that_says_nothing_is_repeated_ever_more_seldom() -> None:
    first, checked = FirstBatches(), []
    for number in range(1, 40):
        first(lambda number=number: bool(checked.append(number)) or number > 8, torch.device("cpu"))
    assert checked == [1, 2, 4, 8, 16]
