"""The paper's claims, each beside what was measured here: results/summary.md."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from m2pt.reporting.cells import Cell, read_named
from m2pt.reporting.notes import judged, several_seeds
from m2pt.reporting.statistics import (
    CLAIM_RULE,
    Interval,
    claim_verdict,
    paired_differences,
    side,
    t_interval,
    verdict,
)
from m2pt.schema.cell_names import locate
from m2pt.schema.claims import Claim, Comparison, read_claims
from m2pt.schema.plan import Plan

READING = (
    "Published and ours are differences in percentage points, positive where the claim holds: a cell's gain "
    "over its row's baseline, or the difference to the other cell. `m2pt show CELL` prints what is behind a "
    "cell. Ours is paired by seed and the mean over seeds, bold where its 95 % interval excludes 0; the "
    "interval is each comparison's own, so of twenty differences that are none, one will."
)
READING_ONE_SEED = (
    "Published are differences in percentage points, positive where the claim holds: a cell's gain over its "
    "row's baseline, or the difference to the other cell. Ours are the measured numbers that are "
    "compared, in percent. `m2pt show CELL` prints what is behind a cell."
)
CLAIM_VERDICT = f"Verdict on a claim: {CLAIM_RULE}"
_HEAD = ("", "Claim", "Verdict", "Compared", "Published", "Ours", "95 % interval", "Its verdict")

Measured = tuple[tuple[tuple[str, ...], str], ...]
"""For each cell that goes into a comparison, its runs and metric: equal ones are one measurement."""


@dataclass(frozen=True)
class Compared:
    """A comparison with its numbers: the mean of each measured cell, their differences by seed; percent."""

    comparison: Comparison
    measured: Measured
    means: tuple[float, ...]
    differences: tuple[float, ...]
    published: float | None
    paper_scale: bool

    @property
    def mean(self) -> float | None:
        """Mean of the differences; None with one seed, which cannot tell it from chance."""
        return statistics.fmean(self.differences) if len(self.differences) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean; None with one seed."""
        return t_interval(self.differences)

    @property
    def verdict(self) -> str:
        """By the rule for gains."""
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
        InputError: the claims have a fault, or a result is missing or stale.
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
    differences, published = first.differences, first.published_gain
    if comparison.value is not None:
        differences = paired_differences(first.values, others[0].values)
        published = _difference(first.published, others[0].published)
    elif others:
        pairs = zip(first.differences, others[0].differences, strict=True)
        differences = tuple(one - other for one, other in pairs)
        published = _difference(first.published_gain, others[0].published_gain)
    over = (first, *others) if comparison.value is not None else _with_baselines(first, *others)
    measured = tuple((tuple(run.name for run in cell.runs), cell.column.metric) for cell in over)
    means = tuple(cell.mean for cell in over if cell.mean is not None)
    return Compared(comparison, measured, means, differences, published, plan.config.paper_scale)


def _with_baselines(*cells: Cell) -> tuple[Cell, ...]:
    return tuple(each for cell in cells for each in (cell, cell.baseline) if each is not None)


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one - other, 6)


def to_markdown(summary: Summary, made: str) -> str:
    """A line for each comparison, below its claim; `made` says how the cells were made."""
    lines = ["# The paper's claims", "", _count(summary), "", _row(_HEAD), _row(["---"] * len(_HEAD))]
    for number, (claim, compared) in enumerate(summary.claims, start=1):
        said = f"{claim.claim} ({claim.source})"
        if claim.note:
            said += f"<br><sub>{claim.note}</sub>"
        begin = [str(number), said, _verdict(compared)]
        if claim.elsewhere:
            lines.append(_row([*begin, claim.elsewhere, "", "", "", ""]))
        for each in compared:
            lines.append(_row([*begin, *_measured(each)]))
            begin = ["", "", ""]
    return "\n".join([*lines, "", *(f"- {note}" for note in (made, *_notes(summary)))]) + "\n"


def _notes(summary: Summary) -> list[str]:
    reading = READING if several_seeds(summary.plan) else READING_ONE_SEED
    return [reading, *judged(summary.plan, summary.cells), CLAIM_VERDICT]


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
    """The difference or, with one seed, the numbers that are compared, two by two."""
    if compared.mean is None:
        pairs = zip(compared.means[::2], compared.means[1::2], strict=True)
        return ", ".join(f"{one:.1f} against {other:.1f}" for one, other in pairs)
    ours = f"{compared.mean:+z.2f}"
    return f"**{ours}**" if side(compared.interval) else ours


def _count(summary: Summary) -> str:
    """How many claims, and how many comparisons (one that several claims make once), ended how."""
    elsewhere = sum(bool(claim.elsewhere) for claim, _ in summary.claims)
    claims = [_verdict(compared) for _, compared in summary.claims if compared]
    distinct = {
        (each.measured, each.published): each.verdict for _, compared in summary.claims for each in compared
    }
    shown = [*_counted(claims), *([f"{elsewhere} shown elsewhere"] if elsewhere else [])]
    return (
        f"Claims: {len(summary.claims)}, of which {', '.join(shown)}. Distinct comparisons: {len(distinct)}, "
        f"of which {', '.join(_counted(distinct.values()))}."
    )


def _counted(verdicts: Iterable[str]) -> list[str]:
    """How often each verdict was given, the most frequent first, and how often none."""
    counts = Counter(verdicts)
    without = counts.pop("", 0)
    given = [f"{count} {word}" for word, count in counts.most_common()]
    return [*given, *([f"{without} without a verdict"] if without else [])]


def _row(values: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(values) + " |"
