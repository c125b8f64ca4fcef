"""Shapley responses against the mean over all orders of the modalities, and the published formulas."""

import itertools

import pytest
import torch
from agm_oracle import brute_force_responses

from m2pt.agm.responses import ShapleyAttribution, shapley_responses, shapley_weights, subsets_of

NAMES = ("text", "audio", "visual", "depth", "touch")


def random_values(names: tuple[str, ...]) -> dict[frozenset[str], torch.Tensor]:
    generator = torch.Generator().manual_seed(len(names))
    return {
        frozenset(chosen): torch.randn(3, 4, generator=generator, dtype=torch.float64)
        for size in range(len(names) + 1)
        for chosen in itertools.combinations(names, size)
    }


@pytest.mark.parametrize("empty", ["omitted", "subtracted"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_responses_equal_brute_force_over_all_orders(count: int, empty: str) -> None:
    names = NAMES[:count]
    values = random_values(names)
    found = shapley_responses(values, names, empty)
    expected = brute_force_responses(values, names, empty_is_zero=empty == "omitted")
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-13)
    total = values[frozenset(names)] - (values[frozenset()] if empty == "subtracted" else 0)
    torch.testing.assert_close(sum(found.values()), total, rtol=1e-12, atol=1e-13)


def test_the_released_formulas_of_two_and_three_modalities() -> None:
    f = random_values(("a", "v"))
    a, v, av = (f[frozenset(chosen)] for chosen in ("a", "v", "av"))
    torch.testing.assert_close(shapley_responses(f, ("a", "v"))["a"], (av - v + a) / 2)
    f = random_values(("t", "a", "v"))
    one = (f[frozenset("tav")] - f[frozenset("av")] + f[frozenset("t")]) / 3
    two = (f[frozenset("at")] - f[frozenset("a")] + f[frozenset("vt")] - f[frozenset("v")]) / 6
    torch.testing.assert_close(shapley_responses(f, ("t", "a", "v"))["t"], one + two)


@pytest.mark.parametrize("empty", ["omitted", "subtracted"])
def test_modulated_weights_give_the_weighted_sum_of_responses(empty: str) -> None:
    names, kappa = NAMES[:4], torch.tensor([0.2, 1.7, 1.0, 3.0], dtype=torch.float64)
    values = random_values(names)
    attribution = ShapleyAttribution(names, empty)
    stacked = torch.stack([values[subset] for subset in attribution.subsets])
    responses = shapley_responses(values, names, empty)
    expected = sum(k * responses[name] for k, name in zip(kappa, names, strict=True))
    if empty == "subtracted":
        expected = expected + values[frozenset()]
    found = torch.einsum("k,kbc->bc", attribution.modulated(kappa), stacked)
    torch.testing.assert_close(found, expected)
    ones = attribution.modulated(torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(torch.einsum("k,kbc->bc", ones, stacked), values[frozenset(names)])


def test_three_modalities_need_the_subsets_with_one_or_without_one() -> None:
    weights = shapley_weights(NAMES[:3], subsets_of(NAMES[:3]))
    thirds, sixths = 1 / 3, 1 / 6
    expected = [thirds, -sixths, -sixths, sixths, sixths, -thirds, thirds]
    torch.testing.assert_close(weights[0], torch.tensor(expected, dtype=torch.float64))


def test_the_weights_stay_exact_when_the_module_is_cast() -> None:
    attribution = ShapleyAttribution(NAMES[:3]).to(torch.bfloat16)
    assert torch.equal(attribution.weights, shapley_weights(NAMES[:3], attribution.subsets))


def test_an_unknown_convention_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty must be 'omitted' or 'subtracted', got 'zero'"):
        subsets_of(NAMES[:2], "zero")  # type: ignore[arg-type]
