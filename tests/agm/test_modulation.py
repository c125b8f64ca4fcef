"""Scores and coefficients against closed forms."""

import math

import pytest
import torch
from torch.nn import functional

from m2pt.agm.checks import BalancingError
from m2pt.agm.modulation import PRESETS, Modulation, mono_modal_scores


def coefficients(scores: list[float], **settings) -> list[float]:
    modulation = Modulation([str(i) for i in range(len(scores))], **settings)
    return modulation.update(torch.tensor(scores, dtype=torch.float64)).tolist()


def test_the_sign_is_the_released_one() -> None:
    """The modality that is worse than its long-run level gets κ > 1: 2.0 nats against 1.0, τ = 1."""
    assert coefficients([2.0, 1.0], alpha=0.5) == pytest.approx([1.372, 0.424], abs=5e-4)
    assert coefficients([2.0, 1.0], alpha=0.5, direction="opposite") == pytest.approx(
        [0.424, 1.372], abs=5e-4
    )
    assert coefficients([2.735, 2.314], alpha=1.5) == pytest.approx([1.674, 0.456], abs=2e-3)


def test_ratio_of_three_modalities() -> None:
    """r = exp(3/2 (mean of all - s)), which is the mean of the other two minus s."""
    scores = [0.5, 1.0, 1.4]
    mean = sum(scores) / 3
    expected = [math.exp(2 * (1 - math.exp(1.5 * (mean - score)))) for score in scores]
    assert coefficients(scores, alpha=2.0) == pytest.approx(expected, rel=1e-12)


def test_running_means_are_those_before_the_batch() -> None:
    modulation = Modulation(("a", "v"), alpha=1.0)
    history = [(1.0, 2.0), (1.5, 0.5), (0.7, 0.9)]
    for step, (a, v) in enumerate(history):
        found = modulation.update(torch.tensor([a, v])).tolist()
        before = history[:step]
        mean_a, mean_v = (sum(each[i] for each in before) / max(step, 1) for i in (0, 1))
        tau_a, tau_v = math.exp(mean_v - mean_a), math.exp(mean_a - mean_v)
        expected = [math.exp(tau_a - math.exp(v - a)), math.exp(tau_v - math.exp(a - v))]
        assert found == pytest.approx(expected, rel=1e-6)
    assert modulation.batches.item() == 3
    assert modulation.running_scores.tolist() == pytest.approx([3.2 / 3, 3.4 / 3], rel=1e-6)


def test_caps_bound_both_sides() -> None:
    assert coefficients([4.0, 0.0], alpha=20.0)[1] == 0.0
    assert coefficients([4.0, 0.0], alpha=20.0, floor=-2.0)[1] == pytest.approx(math.exp(-40))
    modulation = Modulation(("a", "v"), alpha=1.0, cap=7.0)
    modulation.update(torch.tensor([0.0, 6.0]))
    assert modulation.update(torch.tensor([6.0, 0.0]))[0].item() == pytest.approx(math.exp(7))


@pytest.mark.parametrize("direction", ["released", "opposite"])
def test_ratios_beyond_the_largest_number_keep_their_order(direction: str) -> None:
    """Logits of 1e6 have scores of which both τ and r overflow; inf - inf would be NaN."""
    modulation = Modulation(("a", "v"), alpha=0.5, cap=7.0, direction=direction)  # type: ignore[arg-type]
    modulation.update(torch.tensor([0.0, 2e6], dtype=torch.float64))
    grown = modulation.update(torch.tensor([0.0, 3e6], dtype=torch.float64)).tolist()
    shrunk = modulation.update(torch.tensor([0.0, 1e6], dtype=torch.float64)).tolist()
    ahead = 0 if direction == "released" else 1
    assert (grown[ahead], shrunk[ahead]) == (0.0, pytest.approx(math.exp(3.5)))
    assert grown[1 - ahead] == shrunk[1 - ahead] == 1.0
    modulation.running_scores.copy_(torch.tensor([0.0, 3e6]))
    assert modulation.update(torch.tensor([0.0, 3e6])).tolist() == [1.0, 1.0]


def test_alpha_zero_is_one_even_where_a_ratio_overflows() -> None:
    assert coefficients([0.0, 1000.0], alpha=0.0) == [1.0, 1.0]


def test_scores_are_mean_cross_entropies() -> None:
    responses = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 3, 1, 2, 2])
    expected = torch.stack([functional.cross_entropy(each, target) for each in responses])
    found = mono_modal_scores(responses, target)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


def test_the_floor_of_the_probability_bounds_a_score() -> None:
    responses = torch.tensor([[[0.0, 100.0], [0.0, 0.0]]])
    target = torch.tensor([0, 0])
    assert mono_modal_scores(responses, target)[0].item() == pytest.approx((100 + math.log(2)) / 2)
    expected = (-math.log(1e-8) + math.log(2)) / 2
    assert mono_modal_scores(responses, target, 1e-8)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize(("after_window", "later"), [("reset", 1.0), ("stays", math.exp(1 - math.exp(1)))])
def test_window(after_window: str, later: float) -> None:
    """Epochs count from 1, and the window contains its first and last."""
    modulation = Modulation(("a", "v"), 1.0, window=(2, 3), after_window=after_window)  # type: ignore[arg-type]
    scores = torch.tensor([0.0, 1.0], dtype=torch.float64)
    phases = []
    for epoch in range(1, 5):
        phases.append((modulation.phase, modulation.needs_passes))
        if epoch == 1:
            assert modulation.update(scores).tolist() == [1.0, 1.0]
            modulation.running_scores.zero_()
        elif epoch == 2:
            modulation.update(scores)
        modulation.finish_epoch(epoch)
    stays = after_window == "stays"
    assert phases == [("before", True), ("active", True), ("active", True), ("after", stays)]
    assert modulation.coefficients[0].item() == pytest.approx(later)
    if stays:
        assert modulation.update(torch.tensor([5.0, 0.0]))[0].item() == pytest.approx(later)


def test_a_nan_score_names_the_modality_and_an_overflow_the_cap() -> None:
    with pytest.raises(BalancingError, match="score of modality 'visual' is NaN or infinite"):
        Modulation(("audio", "visual"), 1.0).update(torch.tensor([1.0, math.nan]))
    modulation = Modulation(("audio", "visual"), 80.0)
    modulation.update(torch.tensor([0.0, 3.0]))
    with pytest.raises(BalancingError, match="coefficient of modality 'audio' is NaN or infinite: set cap"):
        modulation.update(torch.tensor([0.0, 0.0]))


def test_a_coefficient_beyond_float32_is_refused_and_leaves_no_trace() -> None:
    modulation = Modulation(("audio", "visual"), 100.0)
    modulation.update(torch.tensor([1.0, 1.0]))
    before = {name: value.clone() for name, value in modulation.named_buffers()}
    with pytest.raises(BalancingError, match="coefficient of modality 'audio' is NaN or infinite: set cap"):
        modulation.update(torch.tensor([4.0, 1.0]))  # exp(100 (1 - exp(-3))) = 2e41
    assert all(torch.equal(value, before[name]) for name, value in modulation.named_buffers())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1.0}, "alpha must be a finite number, 0 or more, got -1.0"),
        ({"alpha": math.nan}, "alpha must be a finite number, 0 or more, got nan"),
        ({"alpha": math.inf}, "alpha must be a finite number, 0 or more, got inf"),
        ({"cap": 0.0}, "cap must be a finite number, above 0"),
        ({"floor": 1.0}, "floor must be a number below 0"),
        ({"alpha": "1"}, "alpha must be a number, got '1'"),
        ({"cap": "1"}, "cap must be a number, got '1'"),
        ({"floor": "-1"}, "floor must be a number below 0 or None, got '-1'"),
        ({"direction": "paper"}, "direction must be 'released' or 'opposite', got 'paper'"),
        ({"after_window": "keep"}, "after_window must be 'reset' or 'stays', got 'keep'"),
        ({"window": (5, 4)}, r"window must end no earlier than it starts, got \(5, 4\)"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(BalancingError, match=message):
        Modulation(("a", "b"), **{"alpha": 1.0, **settings})


def test_presets_have_the_released_caps_and_limits() -> None:
    assert {name: (p.cap, p.probability_floor, p.clip_limit) for name, p in PRESETS.items()} == {
        "AV-MNIST": (None, 1e-8, 1.0),
        "CREMA-D": (10.0, 1e-8, 1.0),
        "UR-FUNNY": (7.0, None, 5.0),
    }
