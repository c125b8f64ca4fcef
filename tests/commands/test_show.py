"""What `m2pt show` prints of cells that are made, half made, not run, or do not exist."""

import json
import shlex
import subprocess
import sys

import pytest
import yaml
from config_documents import TINY, given_points
from synthetic_results import synthetic_plan

from m2pt.commands import main
from m2pt.config.cell_names import locate
from m2pt.formats.documents import read_yaml
from m2pt.tracking.cursor import Cursor

TUNED = "table:pretrained/M2PT-Point:tune_acc"


def accuracy(experiment, seed, metric):
    return 80.0 + seed + len(experiment.auxiliaries) + seed * len(experiment.auxiliaries) / 10


@pytest.fixture
def plan(tmp_path):
    return synthetic_plan(
        tmp_path / "results",
        accuracy,
        tables=["tests/tiny/table.yaml", "tests/tiny/targets.yaml"],
        seeds=[0, 1],
    )


@pytest.fixture
def show(plan, capsys):
    def run(cell):
        assert main(["show", cell, *plan.arguments]) == 0
        return capsys.readouterr().out

    return run


def commands(text):
    """The commands of a cell, without their config."""
    lines = [line.strip() for line in text.splitlines()]
    words = [shlex.split(line[3:]) for line in lines if line.startswith("[")]
    return [
        line[line.index("m2pt") : line.index("--config") if "--config" in line else None] for line in words
    ]


def tuned(plan):
    return next(
        run for name, run in plan.runs.items() if name.startswith("imagenet-tune-from-image-pointcloud-")
    )


def test_a_cell_with_its_numbers_runs_and_seeds(plan, show):
    text, run = show(TUNED), tuned(plan)
    assert text.startswith(f"{TUNED}\n") and "published  83.9\n" in text
    assert "measured   81.55 ± 0.78, seeds 0, 1" in text
    assert (
        "gain       +1.05 (95 %: +0.41 to +1.69) over MAE" in text and "+0.6 in the paper: same sign" in text
    )
    assert f"run {run.name}, spec {run.digest}" in text
    assert "seed 0: top1 81.00" in text and "seed 1: top1 82.10" in text
    assert f"{plan.run_directory(run.name, 0)}: evaluation.json" in text


def test_one_seed_shows_the_baseline_s_number_and_no_gain(plan, capsys):
    assert main(["show", TUNED, *plan.arguments, "--set", "seeds=[1]"]) == 0
    text = capsys.readouterr().out
    assert "  measured   82.10, seed 1\n  baseline   81.00, MAE\n" in text
    assert "  gain       not given: one seed cannot distinguish a difference from chance\n" in text
    assert "+1.1" not in text and "+0.6 in the paper\n" in text


def test_the_baseline_s_runs_stand_below_the_cell_s(plan, show):
    text = show(TUNED)
    (baseline,) = plan.cell_runs(*locate(plan.tables, "table:MAE:tune_acc"))
    own, below = (
        text.index(f"\nrun {tuned(plan).name}"),
        text.index(f"\nbaseline: run {baseline.name}, spec "),
    )
    assert own < text.index("\ncommands") < below < text.index("\nbaseline: commands")
    assert "seed 0: top1 80.00" in text and "seed 1: top1 81.00" in text
    its = [line[1:3] for line in commands(text[below:])]  # what the cell needs too is told once
    assert its[0] == ["finetune", baseline.name] and not any("pretrain" in line for line in its)
    assert "baseline: " not in show("table:MAE:tune_acc")


def test_the_commands_stand_in_the_order_in_which_they_run(plan, show):
    name = tuned(plan).name
    folders = [plan.run_directory(name, seed) for seed in (0, 1)]
    expected = [
        ["m2pt", "data", "build", "imagenet"],
        ["m2pt", "pretrain", "image", "--seed", "0"],
        ["m2pt", "data", "build", "shapenet55"],
        ["m2pt", "pretrain", "pointcloud", "--seed", "0"],
    ]
    for seed, folder in enumerate(folders):
        expected += [
            ["m2pt", "finetune", name, "--seed", str(seed)],
            ["m2pt", "merge", str(folder / "attached.safetensors"), str(folder / "merged.safetensors")],
            ["m2pt", "evaluate", name, "--seed", str(seed)],
        ]
    assert commands(show(TUNED).partition("\nbaseline: ")[0]) == expected


def test_a_transfer_stands_behind_the_finetuning_it_starts_from(plan, show):
    words = [line[1:3] for line in commands(show("table:pretrained/M2PT-Point:ap_box"))]
    finetuned = next(run.name for run in plan.runs.values() if run.experiment.task == "detection")
    assert words.index(["finetune", tuned(plan).name]) < words.index(["transfer", finetuned])


def test_an_epoch_is_taken_from_a_pretraining(show):
    words = [line[1:3] for line in commands(show("targets:VideoMAE:video_top1"))]
    assert words.index(["pretrain", "pointcloud"]) + 1 == words.index(["import", "pointcloud_early"])


def test_a_cell_of_several_runs_names_each(show):
    text = show("targets:Point-MAE:partnet_miou")
    assert text.count("\nrun partnet-") == 2


def test_what_is_not_made_comes_with_the_command_that_makes_it(plan, show):
    path = plan.run_directory(tuned(plan).name, 1) / "evaluation.json"
    path.unlink()
    text = show(TUNED)
    assert f"seed 1: not run yet; run it with: {plan.command(path)}" in text
    assert "incomplete" in text and "seed 0: top1 81.00" in text
    lines = text.partition("\nbaseline: ")[0].splitlines()
    assert [line.strip()[1] for line in lines if "m2pt evaluate" in line] == ["x", " "]


def test_a_stale_result_is_said_to_be(plan, show):
    path = plan.run_directory(tuned(plan).name, 1) / "evaluation.json"
    path.write_text(path.read_text().replace('"epochs": ', '"epochs": 9'))
    assert "seed 1: " in show(TUNED) and "stale" in show(TUNED)


def test_mlflow_s_run_is_found_through_the_tracker_s_cursor(plan, show):
    assert "MLflow: " not in show(TUNED)
    folder = f"runs/{tuned(plan).name}/seed0.json"
    for store, run_id in (("default", "abc123"), ("example.org-0123abcd", "def456")):
        Cursor(run_id=run_id, identity="").save(plan.results / "tracking" / store / folder)
    text = show(TUNED)
    assert (
        f"MLflow: http://127.0.0.1:5000/#/runs/abc123 (served by: make mlflow-ui RESULTS={plan.results})"
        in text
    )
    assert "MLflow: run def456 on example.org\n" in text


def test_a_quoted_cell_is_not_run(show):
    text = show("table:MFF:tune_acc")
    assert "published  83.6" in text and "not run, the row is quoted" in text and "commands" not in text


def test_a_cell_that_cannot_be_made_of_a_file_says_why(plan, capsys):
    words = [*plan.arguments, "--set", f"encoders={json.dumps(given_points())}"]
    assert main(["show", "targets:VideoMAE:video_top1", *words]) == 0
    text = capsys.readouterr().out
    assert (
        "  measured   left empty, since encoder pointcloud is a file, of which no epoch 1 is kept; " in text
    )
    assert "commands" not in text


def test_a_cell_whose_baseline_is_left_empty_has_no_gain(plan, tmp_path, capsys):
    table = read_yaml(TINY.with_name("table.yaml"))
    table["rows"][1]["run"] = {"target_init": "pointcloud_early"}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    overrides = {"tables": [str(tmp_path / "table.yaml")], "encoders": given_points()}
    given = synthetic_plan(tmp_path / "given", accuracy, **overrides)
    assert main(["show", TUNED, *given.arguments]) == 0
    assert "  gain       not given: MAE is left empty, since encoder pointcloud is" in capsys.readouterr().out


def test_an_unknown_cell_is_refused_with_what_exists(plan, capsys):
    assert main(["show", "table:MF:tune_acc", *plan.arguments]) == 2
    assert "no method 'MF'; it has pretrained/MFF, pretrained/MAE" in capsys.readouterr().err


def test_tables_claims_and_cells_need_neither_torch_nor_timm_nor_mlflow(plan, tmp_path):
    (tmp_path / "claims.yaml").write_text(
        f"claims: [{{claim: It helps, source: section 3, comparisons: [{{gain: '{TUNED}'}}]}}]"
    )
    config = [*plan.arguments, "--set", f"claims={tmp_path / 'claims.yaml'}"]
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'timm', 'mlflow')));"
        "from m2pt.commands import main;"
        f"commands = ['tabulate', 'table'], ['summarize'], ['show', {TUNED!r}];"
        f"sys.exit(any([main([*words, *{config!r}]) for words in commands]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
