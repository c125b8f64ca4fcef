"""Intervals against scipy and against simulation; the verdict's rule at all of its edges."""

import random
from math import sqrt

import pytest
from scipy import stats

from m2pt.reporting.statistics import (
    CLAIM_RULE,
    RULE,
    claim_verdict,
    paired_differences,
    side,
    t_interval,
    verdict,
)

T2 = stats.t.ppf(0.975, 2)


def around(mean, half):
    """Three differences whose 95 % interval is mean ± half."""
    deviation = half * sqrt(3) / T2
    return (mean - deviation, mean, mean + deviation)


def test_differences_are_taken_between_equal_seeds():
    values, baseline = {7: 81.0, 2: 80.0}, {2: 79.0, 7: 82.0}
    assert paired_differences(values, baseline) == (-1.0, 1.0)
    with pytest.raises(KeyError):
        paired_differences(values, {7: 1.0})


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_interval_is_that_of_scipy_s_paired_t_test(count):
    draw = random.Random(count)
    ours, theirs = ({seed: draw.gauss(80, 1) for seed in range(count)} for _ in range(2))
    expected = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    assert t_interval(paired_differences(ours, theirs)) == pytest.approx(tuple(expected), abs=1e-8)


def test_the_interval_contains_the_true_gain_19_times_in_20():
    draw = random.Random(0)
    intervals = [t_interval([draw.gauss(0.3, 1) for _ in range(3)]) for _ in range(4000)]
    assert 0.94 < sum(low <= 0.3 <= high for low, high in intervals) / len(intervals) < 0.96


def test_one_difference_or_equal_ones_have_no_interval():
    assert t_interval([]) is None and t_interval([0.4]) is None
    assert t_interval([0.3, 0.3, 0.3]) is None
    assert t_interval([0.1 + 0.2, 0.3]) is None  # equal but for float noise


def test_an_interval_that_touches_0_is_on_no_side():
    assert [side(interval) for interval in ((0.1, 1.0), (-1.0, -0.1), (0.0, 1.0), (-1.0, 0.0))] == [
        1,
        -1,
        0,
        0,
    ]
    assert side((-1.0, 1.0)) == side(None) == 0
    low, high = t_interval(around(0.7, 0.7))
    assert low == 0 and high == pytest.approx(1.4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("mean", "half", "expected"),
    [
        (0.7, 0.3, "reproduced"),
        (0.6, 0.1, "reproduced"),
        (0.3, 0.2, "smaller"),
        (1.0, 0.2, "larger"),
        (-0.7, 0.3, "contradicted"),
        (0.5, 0.6, "inconclusive"),
        (-0.5, 0.6, "inconclusive"),
        (0.6, 0.6, "inconclusive"),  # touches 0
        (0.4, 0.2, "reproduced"),  # touches the published gain
    ],
)
def test_the_verdict_at_the_paper_s_scale(mean, half, expected, sign):
    differences = around(sign * mean, half)
    assert verdict(differences, sign * 0.6, paper_scale=True) == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("mean", "half", "expected"),
    [
        (0.7, 0.3, "same sign"),
        (9.0, 0.1, "same sign"),
        (-0.7, 0.3, "opposite sign"),
        (0.5, 0.6, "inconclusive"),
        (0.6, 0.6, "inconclusive"),
    ],
)
def test_a_miniature_reproduces_nothing(mean, half, expected, sign):
    assert verdict(around(sign * mean, half), sign * 0.6, paper_scale=False) == expected


@pytest.mark.parametrize("paper_scale", [True, False])
def test_where_there_is_no_verdict(paper_scale):
    assert verdict([0.6], 0.6, paper_scale=paper_scale) == ""  # one seed
    assert verdict([], 0.6, paper_scale=paper_scale) == ""
    assert verdict(around(0.6, 0.1), None, paper_scale=paper_scale) == ""
    assert verdict(around(0.6, 0.1), 0.0, paper_scale=paper_scale) == ""
    assert verdict([0.6, 0.6, 0.6], 0.6, paper_scale=paper_scale) == "inconclusive"


def test_the_printed_rule_names_every_verdict():
    for word in (
        "reproduced",
        "smaller",
        "larger",
        "contradicted",
        "inconclusive",
        "same sign",
        "opposite sign",
    ):
        assert word in RULE


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["smaller"], "smaller"),
        (["same sign", "", "same sign"], "same sign"),  # nothing is published of the second
        (["reproduced", "smaller"], "inconclusive"),
        (["same sign", "inconclusive"], "inconclusive"),
        (["inconclusive", "inconclusive"], "inconclusive"),
        (["reproduced", "contradicted", "inconclusive"], "contradicted"),
        (["same sign", "opposite sign", "same sign"], "opposite sign"),
        (["reproduced", "undecided"], "undecided"),  # a cell of the second is left empty
        (["undecided", "contradicted"], "contradicted"),
        (["", "undecided"], "undecided"),
        (["", ""], ""),  # one seed
        ([], ""),
    ],
)
def test_the_verdict_on_a_claim(verdicts, expected):
    assert claim_verdict(verdicts) == claim_verdict(verdicts[::-1]) == expected


def test_the_printed_rule_for_claims_names_what_it_decides():
    for words in (
        *("contradicted", "opposite sign", "undecided", "agree", "inconclusive"),
        "no comparison has a verdict",
    ):
        assert words in CLAIM_RULE
