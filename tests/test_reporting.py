"""From result files to a table: numbers by hand, and the refusal of stale or missing results."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from m2pt.errors import InputError
from m2pt.reporting.cells import differing, read_cells
from m2pt.reporting.tables import to_csv, to_latex, to_markdown
from m2pt.schema.plan import Plan

MAE, POINT = (80.0, 82.0, 84.0), (81.0, 82.5, 86.0)


@pytest.fixture
def plan(tmp_path):
    """A plan of three seeds whose results are all there; MAE and M2PT-Point have chosen accuracies."""
    plan = Plan.load(Path("tests/tiny/config.yaml"), {"results": str(tmp_path), "seeds": [0, 1, 2]})
    for name, run in plan.runs.items():
        for seed in plan.config.seeds:
            chosen = POINT if run.experiment.auxiliaries == ("pointcloud",) else MAE
            metrics = {"top1": chosen[seed], "ap_box": 10.0 + seed, "miou": 20.0}
            folder = plan.run_directory(name, seed)
            folder.mkdir(parents=True)
            result = {"metrics": metrics, "seed": seed, "spec": plan.seeded_spec(run, seed)}
            (folder / "evaluation.json").write_text(json.dumps(result))
    return plan


def rows(plan):
    text = to_csv(read_cells(plan, "table"))
    return {(row["setting"], row["method"], row["column"]): row for row in csv.DictReader(text.splitlines())}


def test_mean_deviation_and_paired_gain(plan):
    cell = rows(plan)["pretrained", "M2PT-Point", "tune_acc"]
    assert float(cell["mean"]) == pytest.approx(statistics.mean(POINT), abs=1e-4)
    assert float(cell["standard_deviation"]) == pytest.approx(statistics.stdev(POINT), abs=1e-4)
    assert float(cell["gain"]) == pytest.approx((1 + 0.5 + 2) / 3, abs=1e-4)
    assert (cell["seeds"], cell["baseline"]) == ("3", "MAE")
    assert (cell["published"], cell["published_gain"]) == ("83.9", "0.6")


def test_what_was_not_run_or_not_published_is_empty(plan):
    table = rows(plan)
    quoted = table["pretrained", "MFF", "tune_acc"]
    assert (quoted["published"], quoted["mean"], quoted["seeds"], quoted["run"]) == ("83.6", "", "", "")
    not_run = table["pretrained", "MAE", "fix_acc"]
    assert (not_run["published"], not_run["mean"], not_run["gain"]) == ("65.6", "", "")
    no_baseline_value = table["pretrained", "M2PT-Point", "fix_acc"]
    assert no_baseline_value["gain"] == "" and no_baseline_value["mean"] != ""
    assert table["control", "random auxiliary", "tune_acc"]["published"] == ""


def test_one_seed_has_no_deviation(plan):
    one = Plan.load(Path("tests/tiny/config.yaml"), {"results": str(plan.results), "seeds": [1]})
    cell = rows(one)["pretrained", "M2PT-Point", "tune_acc"]
    assert (cell["mean"], cell["gain"]) == ("82.5000", "0.5000")
    assert (cell["standard_deviation"], cell["seeds"]) == ("", "1")


def test_markdown_and_latex_are_laid_out_as_in_the_paper(plan):
    table, cells = plan.tables["table"], read_cells(plan, "table")
    markdown = to_markdown(table, cells, "Three seeds.").splitlines()
    lines = [line for line in markdown if line.startswith("|")]
    columns = ["ImageNet tune acc (%)", "ImageNet fix acc (%)", "COCO AP box (%)", "ADE20K mIoU (%)"]
    assert lines[0] == f"| {' | '.join(['Method', *columns])} |"
    assert len({line.count("|") for line in lines}) == 1
    point = next(line for line in lines if line.startswith("| M2PT-Point"))
    assert "83.2 ± 2.6 [+1.2]<br><sub>paper 83.9 [+0.6]</sub>" in point
    latex = to_latex(table, cells, "Three seeds.")
    assert r"\multicolumn{2}{c}{ImageNet} & \multicolumn{1}{c}{COCO}" in latex
    assert r"83.2 $\pm$ 2.6 [+1.2] (83.9 [+0.6])" in latex
    assert all(line.count("&") == 4 for line in latex.splitlines() if line.startswith(("M", "random")))


def test_a_stale_result_is_refused_and_the_difference_named(plan):
    name, run = next(iter(plan.runs.items()))
    path = plan.run_directory(name, 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["spec"]["recipe"]["training"]["lr"] = 0.5
    path.write_text(json.dumps(result))
    with pytest.raises(InputError) as error:
        read_cells(plan, "table")
    assert f"{path}: stale" in str(error.value)
    asked = run.spec["recipe"]["training"]["lr"]
    assert f"spec.recipe.training.lr: stored 0.5, asked for {asked}" in str(error.value)


def test_a_result_of_another_seed_is_refused(plan):
    first, second = (plan.run_directory(next(iter(plan.runs)), seed) / "evaluation.json" for seed in (0, 1))
    second.write_text(first.read_text())
    with pytest.raises(InputError, match="seed: stored 0, asked for 1"):
        read_cells(plan, "table")


@pytest.mark.parametrize("value", [None, float("nan"), "high"])
def test_a_metric_that_is_no_number_is_refused(plan, value):
    path = plan.run_directory(next(iter(plan.runs)), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["metrics"]["top1"] = value
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match="metric 'top1' is"):
        read_cells(plan, "table")


def test_all_missing_results_are_named_at_once(plan):
    names = list(plan.runs)[:2]
    for name in names:
        (plan.run_directory(name, 2) / "evaluation.json").unlink()
    with pytest.raises(InputError) as error:
        read_cells(plan, "table")
    assert all(name in str(error.value) for name in names)
    assert str(error.value).count("this result is missing") == 2


def test_differing_names_each_leaf():
    stored, asked = {"a": {"b": 1, "c": [1]}, "gone": 0}, {"a": {"b": 2, "c": [1]}, "new": 1}
    assert list(differing(stored, asked)) == [
        "spec.a.b: stored 1, asked for 2",
        "spec.new: stored None, asked for 1",
        "spec.gone: stored 0, asked for None",
    ]
