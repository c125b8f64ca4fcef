"""The log of every job begins with what the job is and ends with its metrics and files."""

from pathlib import Path

import pytest
from synthetic_results import synthetic_plan

from m2pt.commands import main
from m2pt.plan.plan import Plan

TINY = "tests/tiny/config.yaml"


@pytest.fixture
def log(tmp_path, capsys):
    """Return a function that runs a command below a folder of its own and returns the lines it prints."""
    options = [
        "--config",
        TINY,
        "--set",
        f"results={tmp_path}",
    ]

    def run(*words, config=True):
        assert main([*words, *(options if config else ())]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def row(lines, name):
    return next(line.split(maxsplit=1)[1] for line in lines if line.startswith(f"  {name} "))


def test_the_log_of_every_job_says_what_it_is_and_what_it_wrote(log, tmp_path):
    plan = Plan.load(Path(TINY), {"results": str(tmp_path)})
    run = next(run for run in plan.runs.values() if list(run.spec.inputs) == ["random"])
    folder = plan.run_directory(run.name, 0)

    first, *lines = log("data", "build", "imagenet")
    assert first == "data build imagenet"
    assert row(lines, "layout") == "imagenet"
    assert lines[-1].endswith(" val") and f"{plan.manifest('imagenet')}: " in lines[-1]

    first, *lines = log("import", "random", "--seed", "0")
    assert (first, row(lines, "source")) == ("import random, seed 0", "random weights")
    assert lines[-1].startswith(f"wrote {plan.encoder_directory('random', 0)}/encoder.safetensors: ")

    first, *lines = log("finetune", run.name)
    assert first == f"finetune {run.name}, seed 0"
    assert lines[-2].startswith("loss ") and lines[-2].endswith(" steps")
    assert lines[-1] == f"wrote {folder / 'attached.safetensors'}"

    first, *lines = log(
        "merge", str(folder / "attached.safetensors"), str(folder / "merged.safetensors"), config=False
    )
    assert first == f"merge {folder / 'attached.safetensors'}"
    assert lines[-1].startswith(f"wrote {folder / 'merged.safetensors'}: ")

    first, *lines = log("evaluate", run.name)
    assert first == f"evaluate {run.name}, seed 0"
    assert row(lines, "dataset").startswith("imagenet: ") and "validation items" in row(lines, "dataset")
    assert [bool(row(lines, name)) for name in ("parameters", "device", "batch")] == [True] * 3
    assert row(lines, "results") == str(folder)
    assert lines[-2].startswith("top1 ")
    assert lines[-1] == f"wrote {folder / 'evaluation.json'}"


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["tabulate", "table"], ["table.csv", "table.md", "table.tex", "table.made.txt"]),
        (["summarize"], ["summary.md", "summary.made.txt"]),
    ],
)
def test_the_log_of_a_report_says_what_it_reads_and_what_it_wrote(tmp_path, capsys, command, files):
    settings = {
        "tables": ["tests/tiny/table.yaml", "tests/tiny/targets.yaml"],
        "claims": "tests/tiny/claims.yaml",
        "seeds": [0, 1],
    }
    plan = synthetic_plan(tmp_path, lambda experiment, seed, metric: 50.0, **settings)
    assert main([*command, *plan.arguments]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    paths = ", ".join(str(tmp_path / name) for name in files)
    assert first == " ".join(command)
    assert row(lines, "reads") == str(tmp_path / "runs/*/seed*/evaluation.json")
    assert row(lines, "seeds") == "0, 1"
    assert row(lines, "results") == paths
    assert lines[-1] == f"wrote {paths}"
