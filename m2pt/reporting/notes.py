"""The notes below a table: how to read it, which rows are compared, how the numbers were measured."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from m2pt.config.tables import Row, Setting, Table
from m2pt.errors import count
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.plan.specs import stored_recipe
from m2pt.reporting.cells import Cell
from m2pt.reporting.statistics import RULE
from m2pt.training.settings import TrainingSettings

SETTINGS: dict[Setting, str] = {
    "pretrained": "Pretrained setting",
    "scratch": "From-scratch setting",
    "control": "Controls (ours)",
    "ablation": "Ablations",
    "extension": "Beyond the paper (ours)",
}

READING = (
    "A cell shows the mean ± standard deviation over seeds [gain over the baseline, paired by seed: its "
    "95 % interval], the verdict and, after “paper”, the published number [gain]. Bold: the interval "
    "excludes 0. Intervals are not corrected for multiple comparisons: of twenty true gains of 0, one is "
    "expected to be bold. Empty cells were not run."
)
READING_ONE_SEED = (
    "A cell shows the measured number and, after “paper”, the published number [its gain over the baseline]. "
    "Empty cells were not run."
)
VERDICT = f"Verdict: {RULE}"
ONE_SEED = (
    "One seed: differences between rows are not printed, since one seed cannot tell them from chance. "
    "There is no deviation, no interval and no verdict."
)

SAME_RECIPE = (
    "Baselines get the same recipe and the same tuning budget as the rows compared with them: one recipe "
    "serves both, which is the baseline's own or was chosen on models without pathways. Its only value "
    "that concerns pathways alone, the learning rate of the cross-modal scales (scale_lr), was set once "
    "and not tuned."
)
SAME_RECIPE_OF_METHODS = (
    "Below are the recipes: what the methods share, and the settings of each method. The epoch is selected "
    "on the validation split, and the test split is evaluated once."
)

_UNLISTED_OVERRIDES = ("results", "seeds")
"""Overrides that a note leaves out: it lists the seeds, and the results folder changes no number."""


def provenance_note(plan: Plan, cells: Iterable[Cell]) -> str:
    """Return with which config, seeds, code and device cells were measured, and how long it took."""
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
    trainings = count(len(results), "training", "trainings")
    return (
        f"Measured with {_config(plan)}, {_plural('seed', seeds)}, {_plural('commit', commits)}, on "
        f"{' and '.join(devices)}; {trainings} took {took} in total (some ran in parallel), "
        "not counting the trainings they start from."
    )


def table_notes(
    plan: Plan, table: Table, cells: list[Cell], provenance: str, missing: Sequence[str] = ()
) -> list[str]:
    """Return the notes of a table, one or a few sentences each.

    Args:
        plan: the plan.
        table: the table.
        cells: its cells.
        provenance: their `provenance_note`.
        missing: sentences on the cells that are left empty (`m2pt.plan.claims.missing_cells`).
    """
    notes = [provenance, READING if has_several_seeds(plan) else READING_ONE_SEED, *missing]
    notes += verdict_notes(plan, cells)
    return [*notes, *_baselines(cells), *_recipes(cells), *_columns(table), *_rows(table)]


def has_several_seeds(plan: Plan) -> bool:
    """Return whether there is more than one seed, and with that gains, deviations and verdicts."""
    return len(plan.config.seeds) > 1


def verdict_notes(plan: Plan, cells: Iterable[Cell]) -> list[str]:
    """Return the rule of verdicts and the limits of the intervals; with one seed, why there are none."""
    if not has_several_seeds(plan):
        return [ONE_SEED, VERDICT]
    used = {name for cell in cells for run in cell.runs for name in run.experiment.encoders}
    if all(plan.config.encoders[name].random for name in used):
        return [VERDICT]
    pretrain_seeds = {seed: plan.pretrain_seed(seed) for seed in plan.config.seeds}
    if len(set(pretrain_seeds.values())) == 1:
        covered = (
            f"All seeds start from the encoders of pretraining seed {next(iter(pretrain_seeds.values()))}: "
            "the interval does not cover another pretraining. Random weights are drawn anew for each seed."
        )
    else:
        pairs = ", ".join(
            f"seed {seed} from {pretrain_seed}" for seed, pretrain_seed in pretrain_seeds.items()
        )
        covered = f"Seeds start from the encoders of these pretraining seeds: {pairs}."
        if len(set(pretrain_seeds.values())) < len(pretrain_seeds):
            covered += " Those that share one have its encoders in common, which the interval leaves out."
    return [VERDICT, covered]


def _baselines(cells: list[Cell]) -> list[str]:
    """Return which rows are compared, and how the comparison is kept fair."""
    compared: dict[str, dict[str, None]] = {}
    other_recipe: dict[str, None] = {}
    for cell in cells:
        if cell.baseline is not None:
            compared.setdefault(_row_name(cell.baseline.row), {})[cell.row.method] = None
            if not cell.has_recipe_of_baseline:
                other_recipe[_row_name(cell.row)] = None
    if not compared:
        return []
    runs = [run for cell in cells for run in cell.runs]
    terms = SAME_RECIPE_OF_METHODS if any(map(_compares_methods, runs)) else SAME_RECIPE
    if other_recipe:
        terms += f" Exceptions, which have a recipe of their own: {', '.join(other_recipe)}."
    pairs = (f"Baseline {baseline}: {', '.join(methods)}." for baseline, methods in compared.items())
    return [terms, *pairs]


def _recipes(cells: list[Cell]) -> list[str]:
    """Return the recipes of each group of columns whose rows are methods of joint training.

    Runs on one modality alone have the same recipe with fewer encoders. What a row overrides, such as alpha,
    is not in a recipe.
    """
    methods: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        for run in cell.runs:
            balancing = run.experiment.balancing
            if balancing is None or balancing.modalities:
                continue
            recipe = _compact(stored_recipe(run.spec.recipe))
            recipe["training"] = _without_defaults(recipe["training"])
            settings = recipe.pop("methods")
            known = methods.setdefault((cell.column.group, _flow(recipe)), {})
            if balancing.alpha is None:
                known.update(settings)
    return [f"Recipe of {group}: {shared}; methods {_flow(own)}." for (group, shared), own in methods.items()]


def _compares_methods(run: Run) -> bool:
    return run.experiment.balancing is not None


def _without_defaults(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return training settings without those at their defaults, except for the optimizer."""
    defaults = {each.name: each.default for each in dataclasses.fields(TrainingSettings)}
    unlisted = {"log_every"}  # it changes no result
    return {
        key: value
        for key, value in training.items()
        if key == "optimizer" or (value != defaults[key] and key not in unlisted)
    }


def _compact(value: Any) -> Any:
    """Return nested settings without those that are null or empty, except for a method without settings."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: _compact(each)
        for key, each in value.items()
        if each is not None and each != [] and (each != {} or key == "joint")
    }


def _flow(settings: Mapping[str, Any]) -> str:
    """Return settings as one line of YAML."""
    return yaml.safe_dump(settings, default_flow_style=True, sort_keys=False, width=10**6).strip()


def _columns(table: Table) -> list[str]:
    """Return the columns' own notes, each once."""
    columns: dict[str, dict[str, None]] = {}
    for column in table.columns:
        if column.note:
            columns.setdefault(column.note, {})[f"{column.group} {column.title}"] = None
    return [f"{', '.join(titles)}: {note}." for note, titles in columns.items()]


def _rows(table: Table) -> list[str]:
    """Return the rows' own notes, each once; a method that has rows in several settings with its setting."""
    count = Counter(row.method for row in table.rows)
    rows: dict[str, dict[str, None]] = {}
    for row in table.rows:
        public = f"“public” is from {row.public_source}" if row.public else ""
        for note in filter(None, (row.note, public)):
            rows.setdefault(note, {})[_row_name(row) if count[row.method] > 1 else row.method] = None
    return [f"{', '.join(methods)}: {note}." for note, methods in rows.items()]


def _config(plan: Plan) -> str:
    """Return the config's path and the values that override it."""
    replaced = {key: value for key, value in plan.overrides.items() if key not in _UNLISTED_OVERRIDES}
    if not replaced:
        return plan.source
    values = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in replaced.items())
    return f"{plan.source} but {values}"


def _row_name(row: Row) -> str:
    return f"{row.method} ({SETTINGS[row.setting].lower()})"


def _short(commit: str) -> str:
    """Return a commit's first 12 digits, and "-dirty" if it is."""
    digits, dash, dirty = commit.partition("-")
    return digits[:12] + dash + dirty


def _plural(word: str, values: Sequence[object]) -> str:
    return f"{word}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"
