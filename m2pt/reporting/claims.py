"""The paper's claims next to our measurements: results/summary.md."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from m2pt.config.cell_names import locate
from m2pt.config.claims import Claim, Comparison
from m2pt.plan.claims import read_claims
from m2pt.plan.plan import Plan
from m2pt.reporting.cells import Cell, read_named
from m2pt.reporting.notes import has_several_seeds, verdict_notes
from m2pt.reporting.statistics import (
    CLAIM_RULE,
    UNDECIDED,
    Interval,
    claim_verdict,
    paired_differences,
    side,
    t_interval,
    verdict,
)

READING = (
    "Published and ours are differences in percentage points, positive where the claim holds: a cell's gain "
    "over its row's baseline, or the difference to the other cell. `m2pt show CELL` prints a cell's runs and "
    "the commands that make them. Ours is the mean over seeds of differences paired by seed, bold if its "
    "95 % interval excludes 0. Intervals are not corrected for multiple comparisons: of twenty true "
    "differences of 0, one is expected to be bold."
)
READING_ONE_SEED = (
    "Published are differences in percentage points, positive where the claim holds: a cell's gain over its "
    "row's baseline, or the difference to the other cell. Ours are the measured numbers that are "
    "compared, in percent. `m2pt show CELL` prints a cell's runs and the commands that make them."
)
CLAIM_VERDICT = f"Verdict on a claim: {CLAIM_RULE}"
_HEAD = ("", "Claim", "Verdict", "Compared", "Published", "Ours", "95 % interval", "Its verdict")

Measured = tuple[tuple[tuple[str, ...], str], ...]
"""Runs and metric of each cell in a comparison: equal ones are one measurement. Names, if it is undecided."""


@dataclass(frozen=True)
class Compared:
    """A comparison with its numbers in percent: the mean of each measured cell, the differences by seed.

    If a cell of it is left empty, it is `undecided` and has no differences.
    """

    comparison: Comparison
    measured: Measured
    means: tuple[float, ...]
    differences: tuple[float, ...]
    published: float | None
    paper_scale: bool
    undecided: bool

    @property
    def mean(self) -> float | None:
        """Mean of the differences; None with one seed, which cannot show that it is not chance."""
        return statistics.fmean(self.differences) if len(self.differences) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean; None with one seed."""
        return t_interval(self.differences)

    @property
    def verdict(self) -> str:
        """Verdict by the rule for gains."""
        if self.undecided:
            return UNDECIDED
        return verdict(self.differences, self.published, paper_scale=self.paper_scale)


@dataclass(frozen=True)
class Summary:
    """Every claim with its comparisons, and the cells that were read for them."""

    plan: Plan
    claims: tuple[tuple[Claim, tuple[Compared, ...]], ...]
    cells: tuple[Cell, ...]


def summarize(plan: Plan) -> Summary:
    """Measure every comparison of the claims that the plan's config names.

    Raises:
        InputError: the claims are invalid, or a result is missing or stale.
    """
    claims = read_claims(plan)
    cells = read_named(plan, claims.cells)
    compared = (
        (claim, tuple(_compare(plan, comparison, cells) for comparison in claim.comparisons))
        for claim in claims.claims
    )
    return Summary(plan, tuple(compared), tuple(cells.values()))


def _compare(plan: Plan, comparison: Comparison, cells: Mapping[str, Cell]) -> Compared:
    first, *others = (cells[locate(plan.tables, name).name] for name in comparison.cells)
    over = (first, *others) if comparison.value is not None else _with_baselines(first, *others)
    undecided = not all(cell.runs for cell in over)
    differences, published = first.differences, first.published_gain
    if comparison.value is not None:
        differences = () if undecided else paired_differences(first.values, others[0].values)
        published = _difference(first.published, others[0].published)
    elif others:
        pairs: Iterable[tuple[float, float]] = ()
        if not undecided:
            pairs = zip(first.differences, others[0].differences, strict=True)
        differences = tuple(one - other for one, other in pairs)
        published = _difference(first.published_gain, others[0].published_gain)
    measured = tuple((tuple(run.name for run in cell.runs), cell.column.metric) for cell in over)
    means = tuple(cell.mean for cell in over if cell.mean is not None)
    if undecided:
        measured, means = ((comparison.cells, ""),), ()
    return Compared(comparison, measured, means, differences, published, plan.config.paper_scale, undecided)


def _with_baselines(*cells: Cell) -> tuple[Cell, ...]:
    return tuple(each for cell in cells for each in (cell, cell.baseline) if each is not None)


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one - other, 6)


def to_markdown(summary: Summary, provenance: str, missing: Sequence[str] = ()) -> str:
    """Return a line for each comparison, with its claim.

    Args:
        summary: the claims and their comparisons.
        provenance: the cells' `provenance_note`.
        missing: sentences on cells that are left empty (`m2pt.plan.claims.missing_cells`).
    """
    lines = ["# The paper's claims", "", _count(summary), "", _row(_HEAD), _row(["---"] * len(_HEAD))]
    for number, (claim, compared) in enumerate(summary.claims, start=1):
        text = f"{claim.claim} ({claim.source})"
        if claim.note:
            text += f"<br><sub>{claim.note}</sub>"
        begin = [str(number), text, _verdict(compared)]
        if claim.elsewhere:
            lines.append(_row([*begin, claim.elsewhere, "", "", "", ""]))
        for each in compared:
            lines.append(_row([*begin, *_measured(each)]))
            begin = ["", "", ""]
    return "\n".join([*lines, "", *(f"- {note}" for note in (provenance, *missing, *_notes(summary)))]) + "\n"


def _notes(summary: Summary) -> list[str]:
    reading = READING if has_several_seeds(summary.plan) else READING_ONE_SEED
    return [reading, *verdict_notes(summary.plan, summary.cells), CLAIM_VERDICT]


def _verdict(compared: tuple[Compared, ...]) -> str:
    return claim_verdict([each.verdict for each in compared])


def _measured(compared: Compared) -> list[str]:
    comparison, interval = compared.comparison, compared.interval
    names = [f"`{name}`" for name in comparison.cells]
    over = " over " if comparison.value is not None else " over the gain of "
    what = ("gain of " if comparison.gain is not None else "") + over.join(names)
    return [
        what,
        "" if compared.published is None else f"{compared.published:+z.2f}",
        _ours(compared),
        "" if interval is None else f"{interval[0]:+z.2f} to {interval[1]:+z.2f}",
        compared.verdict,
    ]


def _ours(compared: Compared) -> str:
    """Return the difference or, with one seed, the numbers that are compared, in pairs."""
    if compared.undecided:
        return "a cell is left empty"
    if compared.mean is None:
        pairs = zip(compared.means[::2], compared.means[1::2], strict=True)
        return ", ".join(f"{one:.1f} against {other:.1f}" for one, other in pairs)
    ours = f"{compared.mean:+z.2f}"
    return f"**{ours}**" if side(compared.interval) else ours


def _count(summary: Summary) -> str:
    """Return how many claims and distinct comparisons got which verdict."""
    elsewhere = sum(bool(claim.elsewhere) for claim, _ in summary.claims)
    claims = [_verdict(compared) for _, compared in summary.claims if compared]
    distinct = {
        (each.measured, each.published): each.verdict for _, compared in summary.claims for each in compared
    }
    counts = [*_frequencies(claims), *([f"{elsewhere} shown elsewhere"] if elsewhere else [])]
    return (
        f"Claims: {len(summary.claims)}, of which {', '.join(counts)}. "
        f"Distinct comparisons: {len(distinct)}, of which {', '.join(_frequencies(distinct.values()))}."
    )


def _frequencies(verdicts: Iterable[str]) -> list[str]:
    """Return how often each verdict was given, the most frequent first, and how often none was."""
    counts = Counter(verdicts)
    without = counts.pop("", 0)
    given = [f"{count} {word}" for word, count in counts.most_common()]
    return [*given, *([f"{without} without a verdict"] if without else [])]


def _row(values: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(values) + " |"
