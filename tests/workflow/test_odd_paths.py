"""Paths and names are data: the smallest DAG in folders that a shell would take apart, or a plain refusal."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from forked_commands import forked_commands
from snakemake.cli import parse_config

from m2pt.errors import InputError
from m2pt.plan.plan import Plan

REPOSITORY = Path(__file__).parents[2]
TINY = yaml.safe_load((REPOSITORY / "tests/tiny/config.yaml").read_text())
EXECUTED = "RAN"
ODD = f'it\'s "1" $(touch {EXECUTED}) `touch {EXECUTED}`; touch {EXECUTED} #%d & é 結果 ?*\\ !'
PROJECT = f"my project's $(touch {EXECUTED}) é"
CONFIG = f"my $(touch {EXECUTED}) #.yaml"
TABLE = {
    "title": "One run",
    "caption": "Nothing else.",
    "columns": [
        {
            "name": "acc",
            "group": "ImageNet",
            "title": "acc (%)",
            "metric": "top1",
            "task": "classification",
            "dataset": "imagenet",
            "mode": "tune",
        }
    ],
    "rows": [{"method": "ViT", "setting": "control", "run": {"target_init": "image"}, "columns": ["acc"]}],
}


def smallest_config(folder: Path, **changes) -> dict:
    """One dataset, one encoder, one run, one table, which is written to `folder`."""
    table = folder / "my-table.v2.yaml"
    table.write_text(yaml.safe_dump(TABLE))
    return TINY | {
        "datasets": {"imagenet": TINY["datasets"]["imagenet"]},
        "encoders": {"image": {"modality": "image", "random": True}},
        "finetune": {"imagenet": TINY["finetune"]["imagenet"]},
        "transfer": {},
        "tables": [str(table)],
        "figures": [],
        "claims": None,
        **changes,
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the workflow in an odd folder, with an odd config file and an odd results folder."""
    folder = tmp_path_factory.mktemp("odd") / PROJECT
    for name in ("workflow", "profiles", "tests/tiny"):
        shutil.copytree(REPOSITORY / name, folder / name)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, folder)
    config = smallest_config(folder, results=ODD)
    (folder / CONFIG).write_text(yaml.safe_dump(config, allow_unicode=True))
    return folder


def snakemake(folder: Path, *arguments: str, programs: Path = Path(sys.executable).parent) -> str:
    paths = f"{REPOSITORY}{os.pathsep}{os.environ['PYTHONPATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def measured(folder: Path) -> list[str]:
    rows = csv.DictReader((folder / ODD / "my-table.v2.csv").read_text().splitlines())
    return [row["mean"] for row in rows if row["mean"]]


def executed(folder: Path) -> list[Path]:
    return list(folder.parent.rglob(EXECUTED))


def test_a_workflow_runs_where_every_name_is_odd(project):
    with forked_commands() as programs:
        words = (f"{ODD}/my-table.v2.csv", "--cores", "1", "--configfile", CONFIG)
        said = snakemake(project, *words, programs=programs)
    assert len(measured(project)) == 1 and not executed(project)
    assert "ended with exit code" not in said
    assert (project / ODD / "mlflow.db").exists() and "stopped" in (
        project / ODD / "logs/track.log"
    ).read_text()
    assert list((project / ODD / "mlartifacts").glob("*/artifacts/evaluation.json"))
    made = {path.name for path in project.iterdir() if path.name != ".snakemake"} - {
        CONFIG,
        "my-table.v2.yaml",
    }
    assert made == {"workflow", "profiles", "tests", "Snakefile", "environment.yml", ODD}
    [command] = [line for line in said.splitlines() if line.startswith("Shell command: m2pt merge")]
    merged = next((project / ODD).rglob("merged.safetensors"))
    before = merged.stat().st_mtime_ns
    pasted = command.removeprefix("Shell command: ")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", pasted], cwd=project, env=environment, check=True)
    assert merged.stat().st_mtime_ns > before and not executed(project)


def test_the_executor_hands_jobs_every_name_as_it_is(project):
    """After the test before it: the same results folder, named by `--config`, through cluster jobs."""
    before = measured(project)
    (project / ODD / "my-table.v2.csv").unlink()
    snakemake(
        project,
        f"{ODD}/my-table.v2.csv",
        *("--executor", "submitit", "--submitit-cluster", "local", "--jobs", "1"),
        *("--seconds-between-status-checks", "1", "--forcerun", "evaluate", "--configfile", CONFIG),
        *("--config", f"results= {json.dumps(ODD)} "),  # Snakemake strips quotes from the ends
    )
    assert measured(project) == before and not executed(project)


def test_a_printed_command_names_the_same_folder(tmp_path):
    """What `m2pt` tells people to type, read by a shell and then by Snakemake."""
    config = _written(tmp_path)
    for folder in (ODD, "0", "my results", "'q'", "null", "a: b", "[x]"):
        words = shlex.split(Plan.load(config, {"results": folder}).command(Path(folder) / "x.csv"))
        assert words[1] == f"{folder}/x.csv"
        assert parse_config(words[words.index("--config") + 1 :]) == {"results": folder}


@pytest.mark.parametrize("key", ["results", "checkpoints"])
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("a{b}", "must not contain { or }"),
        ("results/{run}", "must not contain { or }"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("a\tb", "control character"),
        ("a\u2028b", "control character"),
        ("\ud800", "control character"),
        ("-x", "must not begin with -"),
        ("./-x", "must not begin with -"),
        ("~/results", "must not begin with ~"),
        (".", "must be a dedicated folder"),
        ("..", "must be a dedicated folder"),
        ("../../", "must be a dedicated folder"),
        ("s3://bucket/results", "not a URL"),
        ("x" * 300, "no part may be longer than 255 bytes"),
        ("é" * 128, "no part may be longer than 255 bytes"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_in_a_sentence(tmp_path, key, folder, why):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(smallest_config(tmp_path)))
    with pytest.raises(InputError) as refused:
        Plan.load(path, {key: folder})
    assert str(refused.value).startswith(f"{path}: {key} = ") and why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "folder", [ODD, "my results", "a/../b", "../b", "/absolute/x", "b/-x", "b/~", "a  b", "50%", "x" * 255]
)
def test_a_folder_of_any_other_name_is_taken_as_it_is(tmp_path, folder):
    assert Plan.load(_written(tmp_path, results=folder)).results == Path(folder)
    assert Plan.load(_written(tmp_path, checkpoints=folder)).checkpoints == Path(folder)


@pytest.mark.parametrize(
    "name", ["my table", f"$(touch {EXECUTED})", "-x", "a'b", "a:b", "{a}", "a;b", "a\nb", ".yaml", "a b"]
)
def test_a_table_or_figure_of_an_odd_name_is_refused(tmp_path, name):
    for key in ("tables", "figures"):
        with pytest.raises(InputError, match=r"rename it to letters, digits|control character"):
            Plan.load(_written(tmp_path, **{key: [str(tmp_path / f"{name}.yaml")]}))


@pytest.mark.parametrize("file", ["w{a}.pth", "-w.pth", "w\n.pth"])
def test_a_file_that_no_rule_can_name_is_refused(tmp_path, file):
    encoders = {"image": {"modality": "image", "file": file}}
    with pytest.raises(InputError, match=r"encoders\.image\.file = .*must not"):
        Plan.load(_written(tmp_path, encoders=encoders))


@pytest.mark.parametrize("subset", ["Chair 1", "../Chair-1", f"$(touch {EXECUTED})", "-1", "", "a/b", "{a}"])
def test_a_subset_of_an_odd_name_is_refused(tmp_path, subset):
    datasets = {"partnet": {"layout": "partnet", "subsets": {subset: 5}, "root": "x"}}
    with pytest.raises(InputError, match=r"datasets\.partnet\.subsets"):
        Plan.load(_written(tmp_path, datasets=TINY["datasets"] | datasets))


def _written(folder: Path, **changes) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(smallest_config(folder, **changes), allow_unicode=True))
    return path
