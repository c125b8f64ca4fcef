"""From result files to cells: numbers by hand, and the refusal of stale, damaged or missing results."""

import json
import statistics
from pathlib import Path

import pytest
import yaml
from synthetic_results import TINY, synthetic_plan

from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan
from m2pt.reporting.cells import read_cells, read_named

MAE, POINT = (80.0, 82.0, 84.0), (81.0, 82.5, 86.0)


def accuracy(experiment, seed, metric):
    return (POINT if experiment.auxiliaries == ("pointcloud",) else MAE)[seed]


@pytest.fixture
def plan(tmp_path):
    """A plan of three seeds in which MAE and M2PT-Point have chosen accuracies."""
    return synthetic_plan(tmp_path / "results", accuracy, tables=["tests/tiny/table.yaml"])


def cell(plan, setting, method, column):
    cells = read_cells(plan, "table")
    names = [(each.row.setting, each.row.method, each.column.name) for each in cells]
    return cells[names.index((setting, method, column))]


def test_mean_deviation_and_paired_gain(plan):
    point = cell(plan, "pretrained", "M2PT-Point", "tune_acc")
    assert point.values == dict(enumerate(POINT))
    assert point.mean == pytest.approx(statistics.mean(POINT))
    assert point.deviation == pytest.approx(statistics.stdev(POINT))
    assert point.differences == (1.0, 0.5, 2.0) and point.gain == pytest.approx(3.5 / 3)
    assert point.published_gain == 0.6
    low, high = point.interval
    assert low < 0 < high and not point.significant and point.verdict == "inconclusive"


def test_under_a_recipe_of_the_paper_s_scale_a_gain_may_be_reproduced(tmp_path):
    def value(experiment, seed, metric):
        return 83.3 + (seed / 10 + 0.5 if experiment.auxiliaries == ("pointcloud",) else 0)

    tables = ["tests/tiny/table.yaml"]
    for paper_scale, expected in ((True, "reproduced"), (False, "same sign")):
        config = tmp_path / f"{expected}.yaml"
        config.write_text(yaml.safe_dump(read_yaml(TINY) | {"paper_scale": paper_scale}))
        plan = synthetic_plan(tmp_path / expected, value, config=config, tables=tables)
        point = cell(plan, "pretrained", "M2PT-Point", "tune_acc")
        assert point.significant and point.verdict == expected


def test_what_was_not_run_or_not_published_is_none(plan):
    quoted = cell(plan, "pretrained", "MFF", "tune_acc")
    assert (quoted.published, quoted.mean, quoted.gain, quoted.values, quoted.runs) == (
        83.6,
        None,
        None,
        {},
        (),
    )
    not_run = cell(plan, "pretrained", "MAE", "fix_acc")
    assert (not_run.published, not_run.mean) == (65.6, None)
    without_baseline = cell(plan, "pretrained", "M2PT-Point", "fix_acc")
    assert without_baseline.mean is not None and without_baseline.gain is None
    assert without_baseline.interval is None and without_baseline.verdict == ""
    control = cell(plan, "control", "random auxiliary", "tune_acc")
    assert control.published is None and control.gain == 0 and control.verdict == ""


def test_one_seed_has_no_deviation_no_gain_and_no_verdict(plan):
    one = Plan.load(TINY, plan.overrides | {"seeds": [1]})
    point = cell(one, "pretrained", "M2PT-Point", "tune_acc")
    assert (point.mean, point.one_seed_difference) == (82.5, 0.5)
    assert (point.deviation, point.gain, point.interval, point.verdict) == (None, None, None, "")


def test_only_one_seed_has_a_difference_in_place_of_a_gain(plan):
    two = Plan.load(TINY, plan.overrides | {"seeds": [0, 1]})
    point = cell(two, "pretrained", "M2PT-Point", "tune_acc")
    assert (point.gain, point.one_seed_difference) == (0.75, None)
    for seeds in ([1], [0, 1]):  # neither where nothing is compared
        mae = cell(Plan.load(TINY, plan.overrides | {"seeds": seeds}), "pretrained", "MAE", "tune_acc")
        assert (mae.gain, mae.one_seed_difference) == (None, None)


def test_a_cell_of_several_runs_is_their_mean_seed_by_seed(tmp_path):
    def value(experiment, seed, metric):
        return {"Chair-1": 40.0, "Lamp-1": 50.0}.get(experiment.subset, 0.0) + seed

    plan = synthetic_plan(tmp_path / "results", value, tables=["tests/tiny/targets.yaml"])
    table = plan.table("targets")
    column = next(column for column in table.columns if column.dataset == "partnet")
    row = next(row for row in table.rows if column.name in row.columns)
    (partnet,) = read_named(plan, [f"targets:{row.method}:{column.name}"]).values()
    assert [run.experiment.subset for run in partnet.runs] == ["Chair-1", "Lamp-1"]
    assert partnet.values == {0: 45.0, 1: 46.0, 2: 47.0} and partnet.deviation == 1.0


def test_a_table_s_published_numbers_are_its_own(tmp_path, plan):
    again = tmp_path / "again.yaml"
    text = Path("tests/tiny/table.yaml").read_text()
    again.write_text(text.replace("published: {tune_acc: 83.3, fix_acc: 65.6}, ", ""))
    both = Plan.load(TINY, plan.overrides | {"tables": ["tests/tiny/table.yaml", str(again)]})
    found = {each.row.method: each for each in read_cells(both, "again") if each.column.name == "tune_acc"}
    assert found["MAE"].mean is not None and found["MAE"].published is None
    assert found["M2PT-Point"].published == 83.9 and found["M2PT-Point"].published_gain is None


def test_a_stale_result_is_refused_and_the_difference_named(plan):
    name, run = next(iter(plan.runs.items()))
    path = plan.run_directory(name, 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["spec"]["recipe"]["training"]["lr"] = 0.5
    path.write_text(json.dumps(result))
    with pytest.raises(InputError) as error:
        read_cells(plan, "table")
    assert f"{path}: stale" in str(error.value)
    expected = run.spec.stored["recipe"]["training"]["lr"]
    assert f"spec.recipe.training.lr: stored 0.5, expected {expected}" in str(error.value)


def test_a_result_of_another_seed_is_refused(plan):
    first, second = (plan.run_directory(next(iter(plan.runs)), seed) / "evaluation.json" for seed in (0, 1))
    second.write_text(first.read_text())
    with pytest.raises(InputError, match="seed: stored 0, expected 1"):
        read_cells(plan, "table")


@pytest.mark.parametrize("value", [None, float("nan"), "high", True, -1, 100.1, 1234.5, -100.0, [50.0]])
def test_a_metric_that_is_no_percentage_is_refused(plan, value):
    path = plan.run_directory(next(iter(plan.runs)), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["metrics"]["top1"] = value
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"evaluation\.json: (metrics\.top1 = |not valid JSON: NaN).*"):
        read_cells(plan, "table")


def test_a_result_that_does_not_say_how_it_was_made_is_refused(plan):
    path = plan.run_directory(next(iter(plan.runs)), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    del result["training"]["seconds"]
    path.write_text(json.dumps(result))
    with pytest.raises(
        InputError,
        match=r"training\.seconds: this key is missing.*\n.*evaluation\.json: make it again with: snakemake",
    ):
        read_cells(plan, "table")


def test_all_missing_results_are_named_at_once(plan):
    names = list(plan.runs)[:2]
    for name in names:
        (plan.run_directory(name, 2) / "evaluation.json").unlink()
    with pytest.raises(InputError) as error:
        read_cells(plan, "table")
    assert all(name in str(error.value) for name in names)
    assert str(error.value).count("this result is missing") == 2
