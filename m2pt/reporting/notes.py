"""What stands below a table of numbers: how to read it, what is compared with what, how it was made."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from m2pt.reporting.cells import Cell
from m2pt.reporting.statistics import RULE
from m2pt.schema.plan import Plan
from m2pt.schema.tables import Row, Setting, Table

SETTINGS: dict[Setting, str] = {
    "pretrained": "Pretrained setting",
    "scratch": "From-scratch setting",
    "control": "Controls (ours)",
    "ablation": "Ablations",
    "extension": "Beyond the paper (ours)",
}

READING = (
    "A cell shows the mean ± standard deviation over seeds [gain over the baseline, paired by seed: its "
    "95 % interval], the verdict, and as “paper” the published number [gain]. Bold: the interval excludes 0; "
    "it is each cell's own, so of twenty gains that are none, one will. An empty cell was not run."
)
READING_ONE_SEED = (
    "A cell shows the measured number and as “paper” the published number [the published gain over the "
    "baseline]. An empty cell was not run."
)
VERDICT = f"Verdict: {RULE}"
ONE_SEED = (
    "One seed: differences between rows are not printed, since one seed cannot tell them from chance. "
    "There is no deviation, no interval and no verdict."
)

_TOLD_ELSEWHERE = ("results", "seeds")
"""Overrides that a caption need not name: it lists the seeds, and where results lie changes no number."""


def made(plan: Plan, cells: Iterable[Cell]) -> str:
    """Say with which config, seeds, code and device the measured cells were made, and how long it took."""
    results = {
        (result.run, result.seed): result
        for cell in cells
        for results in cell.results.values()
        for result in results
    }
    if not results:
        return f"Nothing is measured with {_config(plan)}."
    found = results.values()
    seeds = sorted({result.seed for result in found})
    commits = sorted({_short(commit) for result in found for commit in result.commits})
    devices = sorted({result.device for result in found})
    minutes = sum(result.training_seconds for result in found) / 60
    took = f"{minutes:.1f} minutes" if minutes < 60 else f"{minutes / 60:.1f} hours"
    return (
        f"Measured with {_config(plan)}, {_listed('seed', seeds)}, {_listed('commit', commits)}, on "
        f"{' and '.join(devices)}; {len(results)} trainings took {took} added up (some ran side "
        "by side), not counting what they start from."
    )


def below(plan: Plan, table: Table, cells: list[Cell], made: str) -> list[str]:
    """Return the notes of a table, a sentence or a few each; `made` is what `made` says."""
    notes = [made, READING if several_seeds(plan) else READING_ONE_SEED, *judged(plan, cells)]
    return [*notes, *_baselines(cells), *_columns(table), *_rows(table)]


def several_seeds(plan: Plan) -> bool:
    """Whether results are of more than one seed, so that there are gains, deviations and verdicts."""
    return len(plan.config.seeds) > 1


def judged(plan: Plan, cells: Iterable[Cell]) -> list[str]:
    """State the verdict's rule, and what the intervals do not cover; with one seed, why there are none."""
    if not several_seeds(plan):
        return [ONE_SEED, VERDICT]
    used = {name for cell in cells for run in cell.runs for name in run.experiment.encoders}
    if all(plan.config.encoders[name].random for name in used):
        return [VERDICT]
    starts = {seed: plan.pretrain_seed(seed) for seed in plan.config.seeds}
    if len(set(starts.values())) == 1:
        covered = (
            f"All seeds start from the encoders of pretraining seed {next(iter(starts.values()))}: the "
            "interval does not cover another pretraining. Random weights are drawn anew for each seed."
        )
    else:
        pairs = ", ".join(f"seed {seed} from {start}" for seed, start in starts.items())
        covered = f"Seeds start from the encoders of these pretraining seeds: {pairs}."
        if len(set(starts.values())) < len(starts):
            covered += " Those that share one have its encoders in common, which the interval leaves out."
    return [VERDICT, covered]


def _baselines(cells: list[Cell]) -> list[str]:
    """Say which row is compared with which, and on what terms."""
    compared: dict[str, dict[str, None]] = {}
    other_recipe: dict[str, None] = {}
    for cell in cells:
        if cell.baseline is not None:
            compared.setdefault(_named(cell.baseline.row), {})[cell.row.method] = None
            if not cell.has_recipe_of_baseline:
                other_recipe[_named(cell.row)] = None
    if not compared:
        return []
    terms = (
        "Baselines get the same recipe and the same tuning budget as the rows compared with them: one recipe "
        "serves both, which is the baseline's own or was chosen on models without pathways. Its only value "
        "that concerns pathways alone, the learning rate of the cross-modal scales (scale_lr), was set once "
        "and not tuned."
    )
    if other_recipe:
        terms += f" Not so, since its recipe is another one: {', '.join(other_recipe)}."
    pairs = (f"Baseline {baseline}: {', '.join(methods)}." for baseline, methods in compared.items())
    return [terms, *pairs]


def _columns(table: Table) -> list[str]:
    """The columns' own notes, each once."""
    columns: dict[str, dict[str, None]] = {}
    for column in table.columns:
        if column.note:
            columns.setdefault(column.note, {})[f"{column.group} {column.title}"] = None
    return [f"{', '.join(titles)}: {note}." for note, titles in columns.items()]


def _rows(table: Table) -> list[str]:
    """The rows' own notes, each once; a method that stands in several settings with its setting."""
    count = Counter(row.method for row in table.rows)
    rows: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row.note:
            rows.setdefault(row.note, {})[_named(row) if count[row.method] > 1 else row.method] = None
    return [f"{', '.join(methods)}: {note}." for note, methods in rows.items()]


def _config(plan: Plan) -> str:
    """The config's path, and what of it was replaced."""
    replaced = {key: value for key, value in plan.overrides.items() if key not in _TOLD_ELSEWHERE}
    if not replaced:
        return plan.source
    values = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in replaced.items())
    return f"{plan.source} but {values}"


def _named(row: Row) -> str:
    return f"{row.method} ({SETTINGS[row.setting].lower()})"


def _short(commit: str) -> str:
    """A commit's first 12 digits, and "-dirty" where it is."""
    digits, dash, dirty = commit.partition("-")
    return digits[:12] + dash + dirty


def _listed(word: str, values: Sequence[object]) -> str:
    return f"{word}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"
