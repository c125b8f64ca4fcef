"""Decide whether a gain is real and agrees with the published one. With few seeds, intervals decide."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from math import sqrt

CONFIDENCE = 0.95
UNDECIDED = "undecided"
_DIGITS = 9
"""Decimals (of percentage points) beyond which a number is float noise."""

Interval = tuple[float, float]


def paired_differences(values: Mapping[int, float], baseline: Mapping[int, float]) -> tuple[float, ...]:
    """Return the difference of each seed's value to the baseline's of the same seed.

    Raises:
        KeyError: the baseline lacks a seed.
    """
    return tuple(value - baseline[seed] for seed, value in values.items())


def t_interval(differences: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean of n differences: mean ± t(n - 1) · sd / √n.

    None for fewer than two differences, and for differences that are all equal: neither says anything about
    their spread.
    """
    count = len(differences)
    if count < 2:
        return None
    deviation = statistics.stdev(differences)
    if round(deviation, _DIGITS) == 0:
        return None
    from scipy.special import stdtrit  # imported here: it takes longer than all else that a table needs

    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / sqrt(count)
    mean = statistics.fmean(differences)
    return round(mean - half, _DIGITS), round(mean + half, _DIGITS)


def side(interval: Interval | None) -> int:
    """Return on which side of 0 an interval lies: 1, -1, or 0 if it contains or touches 0 or is None."""
    if interval is None:
        return 0
    low, high = interval
    return (low > 0) - (high < 0)


def verdict(differences: Sequence[float], published_gain: float | None, *, paper_scale: bool) -> str:
    """Return the verdict on a gain, measured as differences paired by seed; "" if there is none to give.

    The interval is the 95 % t interval (n - 1 degrees of freedom) of the mean difference to the baseline's
    run of the same seed. Under a recipe of the paper's scale the verdict is: reproduced, if the interval lies
    wholly on the published gain's side of 0 and contains the published gain; smaller or larger, if it lies on
    that side, but nearer to 0 or farther from it than the published gain; contradicted, if it lies wholly on
    the other side; inconclusive, if it contains or touches 0. Under any other recipe, which can reproduce
    nothing, it is only: same sign, opposite sign or inconclusive. With one seed there is no interval and no
    verdict; differences that are all equal have no interval either and are inconclusive; where no gain, or
    one of 0, was published, there is no verdict.
    """
    if len(differences) < 2 or not published_gain:
        return ""
    interval = t_interval(differences)
    if interval is None or side(interval) == 0:
        return "inconclusive"
    same = (side(interval) > 0) == (published_gain > 0)
    if not paper_scale:
        return "same sign" if same else "opposite sign"
    if not same:
        return "contradicted"
    low, high = interval
    if low <= published_gain <= high:
        return "reproduced"
    return "smaller" if max(abs(low), abs(high)) < abs(published_gain) else "larger"


def claim_verdict(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim from those on its comparisons; "" if there is none to give.

    A claim is contradicted, or has the opposite sign, if any of its comparisons does; else it is undecided if
    a cell of one is left empty; else it has the verdict that all of them agree on; else it is inconclusive. A
    comparison without a verdict, for example because nothing was published, does not count; if no comparison
    has a verdict, neither has the claim.
    """
    given = set(verdicts) - {""}
    for decisive in ("contradicted", "opposite sign", UNDECIDED):
        if decisive in given:
            return decisive
    if len(given) > 1:
        return "inconclusive"
    return next(iter(given), "")


def _rule(function: Callable[..., str]) -> str:
    """Return a function's docstring after its first paragraph, on one line."""
    return " ".join((function.__doc__ or "").partition("\n\n")[2].split())


RULE = _rule(verdict)
"""The rule of `verdict` in words, printed below a table."""

CLAIM_RULE = _rule(claim_verdict)
"""The rule of `claim_verdict` in words, printed below the summary."""
