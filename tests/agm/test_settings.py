"""Settings of the wrong type or out of range: one clear error each, for all methods."""

import math
from collections.abc import Callable

import pytest
import torch
from balancing_models import Early, Late, Stranger, batch, validation
from balancing_processes import new_method
from torch import Tensor, nn

from m2pt.agm import (
    MSES,
    MSLR,
    OGM,
    AdaptiveGradientModulation,
    BalancingError,
    ConditionalClipping,
    GradientBlending,
    Joint,
    Muting,
    mono_modal_logits,
)
from m2pt.agm.settings import check_modalities

PAIR = ("audio", "visual")
ONES = dict.fromkeys(PAIR, 1.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["audio"],
            r"Some needs at least 2 modalities, got \['audio'\]: train .* one modality with Joint",
        ),
        ([], r"Some needs at least 2 modalities, got \[\]$"),
        (["audio", "audio"], "Some: a modality is named twice: audio, audio"),
        ("audio", "Some: modalities must be a list of names, got the string 'audio'"),
        ([1, 1], r"Some: modalities must be a list of names, got \[1, 1\]"),
        (["audio", None], r"Some: modalities must be a list of names, got \['audio', None\]"),
        ([["audio"], "visual"], "Some: modalities must be a list of names"),
        (3, "Some: modalities must be a list of names, got 3"),
        ({"audio", "visual"}, "Some: modalities must be a list, since their order counts, got a set"),
    ],
)
def test_wrong_modalities(names: list[str], message: str) -> None:
    with pytest.raises(BalancingError, match=message):
        check_modalities("Some", names, 2)


def agm(**settings) -> AdaptiveGradientModulation:
    return AdaptiveGradientModulation(Late(*PAIR), **settings)


def ogm(**settings) -> OGM:
    return OGM(Late(*PAIR), **{"alpha": 1.0, "parameters": "all", **settings})


def mslr(**settings) -> MSLR:
    return MSLR(Late(*PAIR), **{"coefficients": ONES, **settings})


def blending(*names: str, **settings) -> GradientBlending:
    names = names or PAIR
    heads = {name: nn.Linear(4, 3) for name in names}
    return GradientBlending(Late(*PAIR), names, **{"heads": heads, **settings})


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "alpha": (lambda: agm(alpha=True), "alpha must be a number, got True"),
    "fast path": (lambda: agm(fast_path="no"), "fast_path must be True or False, got 'no'"),
    "constant": (
        lambda: agm(constant_when_muted="audio"),
        "constant_when_muted must be a list of names, got the string 'audio'",
    ),
    "no constant": (lambda: agm(constant_when_muted=None), "constant_when_muted must be a list of names"),
    "direction": (
        lambda: agm(direction=["released"]),
        r"must be 'released' or 'opposite', got \['released'\]",
    ),
    "empty": (lambda: agm(empty=None), "empty must be 'omitted' or 'subtracted', got None"),
    "window before 1": (lambda: agm(window=(-5, -2)), r"window has no epoch, .* got \(-5, -2\)"),
    "window of 0": (lambda: agm(window=(0, 0)), r"window has no epoch, .* got \(0, 0\)"),
    "window of flags": (lambda: agm(window=(True, True)), "window must have integers"),
    "fusion": (
        lambda: AdaptiveGradientModulation.from_preset("CREMA-D", Late(*PAIR), fusion="Late"),
        "fusion must be 'late' or 'early', got 'Late'",
    ),
    "patience": (lambda: MSES(Late(*PAIR), patience="3"), "patience must be an integer, 0 or more, got '3'"),
    "half patience": (
        lambda: MSES(Late(*PAIR), patience=1.5),
        "patience must be an integer, 0 or more, got 1.5",
    ),
    "smoothing": (
        lambda: MSES(Late(*PAIR), patience=1, smoothing="a"),
        "smoothing must be a number, got 'a'",
    ),
    "memory": (lambda: mslr(memory="x"), "memory must be an integer, 1 or more, got 'x'"),
    "half memory": (lambda: mslr(memory=2.5), "memory must be an integer, 1 or more, got 2.5"),
    "coefficients": (lambda: mslr(coefficients=None), "coefficients must be a dict with one value for each"),
    "strategy": (lambda: mslr(strategy=1), "strategy must be 'keep' or 'dynamic', got 1"),
    "first epoch": (lambda: ogm(first_epoch="x"), "first_epoch must be an integer, 1 or more, got 'x'"),
    "last epoch": (
        lambda: ogm(first_epoch=3, last_epoch=2),
        "last_epoch, .* must be an integer, 3 or more, got 2",
    ),
    "seed": (lambda: ogm(seed=1.5), "seed must be an integer, got 1.5"),
    "enhance": (lambda: ogm(enhance="yes"), "enhance must be True or False, got 'yes'"),
    "super-epoch": (lambda: blending(super_epoch="x"), "super_epoch must be an integer, 1 or more, got 'x'"),
    "head": (
        lambda: blending(heads=dict.fromkeys(PAIR, lambda x: x)),
        "the head of 'audio' must be a torch.nn.Module",
    ),
    "heads": (lambda: blending(heads=None), "heads must be a dict with one value for each of audio, visual"),
    "blending weights": (lambda: blending(weights=1), "weights must be a dict with one value for each"),
    "an attribute": (lambda: blending("values", "audio"), "a modality cannot be named 'values'; rename it"),
    "a dot": (lambda: blending("a.b", "audio"), "a modality cannot be named 'a.b'; rename it"),
    "limit": (lambda: ConditionalClipping(Late(*PAIR), "1"), "limit must be a number, got '1'"),
    "clipped": (lambda: ConditionalClipping(None, 1.0), "model must be a torch.nn.Module, got None"),
    "clipping head": (lambda: ConditionalClipping(Late(*PAIR), 1.0, "head"), "head must be a linear layer"),
    "no clipping head": (lambda: ConditionalClipping(Late(*PAIR), 1.0, []), "head must be a linear layer"),
    "model": (lambda: Joint(lambda inputs: inputs, PAIR), "Joint: model must be a torch.nn.Module"),
    "measured": (
        lambda: mono_modal_logits(lambda inputs: inputs, batch(*PAIR)[0]),
        "mono_modal_logits: model must be a torch.nn.Module",
    ),
    "no encoder": (
        lambda: agm(encoders={"audio": None, "visual": None}),
        "encoders: the value for 'audio' must be a torch.nn.Module, got None",
    ),
    "encoders": (lambda: agm(encoders=[1]), r"encoders must be a dict with one value for each .* got \[1\]"),
    "muted": (lambda: Muting({"audio": 0.5}), "the value of 'audio' must be a tensor .* got 0.5"),
    "all muted": (lambda: Muting(0.5), "values must be a dict by modality, got float"),
    "learned": (
        lambda: Muting({"audio": torch.ones(1).long()}, learned=True),
        "the value of 'audio' must be a tensor of floating-point numbers",
    ),
    "pairs": (lambda: Muting.mean([batch(*PAIR)]), "muting needs inputs as a dict by modality, got tuple"),
    "pair": (lambda: Muting.learned(batch(*PAIR)), "muting needs inputs as a dict by modality, got tuple"),
    "shapes": (
        lambda: Muting.mean([{"audio": torch.ones(2, 3)}, {"audio": torch.ones(2, 1)}]),
        r"samples of 'audio' differ in shape, \(3,\) and \(1,\)",
    ),
    "mean of text": (lambda: Muting.mean([{"text": ["a"]}]), "'text' has no floating-point tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_named(case: str) -> None:
    build, message = WRONG[case]
    with pytest.raises(BalancingError, match=message):
        build()


def test_the_released_window_is_allowed() -> None:
    assert agm(window=(0, 20)).modulation.window == (0, 20)


def test_encoders_that_are_no_modules_are_not_known() -> None:
    model = Stranger()
    model.encoders = {"audio": torch.sin, "visual": torch.sin}
    assert AdaptiveGradientModulation(model, PAIR)._encoders == {}
    with pytest.raises(BalancingError, match="has no `encoders` of all of them"):
        MSLR(model, PAIR, coefficients=ONES)


ALL = ["joint", "agm", "ogm", "mslr", "mses", "blending"]


@pytest.mark.parametrize("name", ALL)
def test_a_validation_of_another_type_is_named(name: str) -> None:
    with pytest.raises(BalancingError, match=r"after_epoch\(\) needs a Validation, got dict"):
        new_method(name).after_epoch(1, {"loss": 1.0})


def test_values_of_a_validation_that_are_no_numbers_are_named() -> None:
    method = new_method("mslr")
    for wrong in ({"audio": "x", "visual": 0.5}, {"audio": math.nan, "visual": 0.5}, {"audio": 0.5}):
        with pytest.raises(BalancingError, match="mono_accuracy of the validation has no finite value for"):
            method.after_epoch(1, validation(wrong))
    with pytest.raises(BalancingError, match="has no finite value for 'audio', got 3"):
        method.after_epoch(1, validation(3))


STATEFUL = {"ogm": "step", "mslr": "ratios", "mses": "lowest", "blending": "losses"}


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("key", ["modalities", "last_epoch", "own"])
def test_a_truncated_state_is_one_clear_error(name: str, key: str) -> None:
    method = new_method(name)
    if name == "blending":
        method.loss(*batch(*PAIR)).backward()
        method.before_step()
        method.after_epoch(1, validation(method_losses={**ONES, "joint": 1.0}))
    state = method.state_dict()
    del state["_extra_state"][STATEFUL[name] if key == "own" else key]
    with pytest.raises(BalancingError, match=f"{type(method).__name__}: the state is damaged or of another"):
        new_method(name).load_state_dict(state)


@pytest.mark.parametrize("state", [torch.tensor([3]), torch.tensor([]), {"epoch": 3}], ids=str)
def test_a_truncated_state_of_agm_is_one_clear_error(state: Tensor | dict) -> None:
    with pytest.raises(BalancingError, match="AdaptiveGradientModulation: the state is damaged"):
        agm().modulation.set_extra_state(state)


def test_the_state_of_another_method_is_named() -> None:
    other = MSLR(Early(*PAIR), coefficients=ONES)
    with pytest.raises(BalancingError, match=r"MSES: the state is damaged or of another method .*'previous'"):
        MSES(Early(*PAIR), patience=1).load_state_dict(other.state_dict())
