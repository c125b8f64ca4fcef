"""A user filters MLflow's runs to a table cell, as `m2pt show` says, also after tables were edited."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_results import synthetic_plan
from tracked import Database, Training, expected, mirror

from m2pt.commands import main
from m2pt.config.tables import Table
from m2pt.plan.jobs import Jobs
from m2pt.plan.plan import Plan
from m2pt.plan.snapshot import write_snapshot
from m2pt.session import describe_run, tags
from m2pt.tracking.tracker import Tracker

TINY = Path("tests/tiny")


def plan_of(results: Path, *tables: Path, seeds: tuple[int, ...] = (0,)) -> Plan:
    """A plan of these tables alone."""
    changes = {"tables": [str(path) for path in tables], "seeds": list(seeds), "figures": [], "claims": None}
    return Plan.load(TINY / "config.yaml", {"results": str(results), **changes})


@pytest.fixture
def plan(results: Path) -> Plan:
    return plan_of(results, TINY / "table.yaml", seeds=(0, 1))


@pytest.fixture(scope="module")
def mirrored(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Every run of a table with a transfer, and of one whose cells average two runs, in MLflow."""
    results = tmp_path_factory.mktemp("mirrored") / "results"
    results.mkdir()
    shutil.copy(empty_store, results / "mlflow.db")
    plan = plan_of(results, TINY / "table.yaml", TINY / "targets.yaml", seeds=(0, 1))
    train(plan)
    mirror(results)
    return plan


def train(plan: Plan) -> None:
    """Leave what a training of each run leaves."""
    for run in plan.runs.values():
        for seed in plan.config.seeds:
            training = Jobs(plan).training(run, seed)
            Training(plan.results, run.name, spec=training.stored, seed=seed, tags=tags(training)).finish()
    write_snapshot(plan)


def shown_filter(plan: Plan, cell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `m2pt show` gives for the search box."""
    assert main(["show", cell, *plan.arguments]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  MLflow  ")]
    return line.split(maxsplit=1)[1]


def found(results: Path, search: str) -> set[str]:
    """Folders of the runs that MLflow's search gives."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("m2pt")
    return {run.data.tags["m2pt.directory"] for run in client.search_runs([experiment.experiment_id], search)}


def test_the_filter_that_show_prints_finds_exactly_a_cell_s_runs(
    mirrored: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, several = mirrored, 0
    for name, table in plan.tables.items():
        for row in table.rows:
            for column in table.columns:
                if runs := plan.cell_runs(name, row, column):
                    cell = f"{name}:{row.setting}/{row.method}:{column.name}"
                    expected = {f"runs/{run.name}/seed{seed}" for run in runs for seed in (0, 1)}
                    assert found(plan.results, shown_filter(plan, cell, capsys)) == expected, cell
                    several += len(runs) > 1
    assert several


def test_runs_are_filtered_by_target_auxiliary_setting_and_seed(mirrored: Plan) -> None:
    plan = mirrored
    search = (
        "tags.target = 'image' and tags.auxiliary = 'pointcloud' and tags.setting = 'pretrained' "
        "and tags.seed = '1' and tags.task = 'classification' and tags.mode = 'tune'"
    )
    wanted = [
        run.name
        for run in plan.runs.values()
        if run.experiment.auxiliaries == ("pointcloud",)
        and (run.experiment.task, run.experiment.mode) == ("classification", "tune")
        and run.spec.architecture.modality == "image"
        and run.experiment.target_init != "scratch"
    ]
    assert found(plan.results, search) == {f"runs/{name}/seed1" for name in wanted} and wanted
    pretraining = tags(Jobs(plan).pretraining("image", 0))
    assert (pretraining["setting"], pretraining["target"]) == ("pretraining", "image")


def test_an_edited_table_moves_its_cells_without_a_training(
    results: Path, database: Database, tmp_path: Path
) -> None:
    train(plan_of(results, TINY / "table.yaml"))
    mirror(results)
    before = set(database.rows("select run_uuid, key, value from tags where key != 'cells'"))
    edited: dict[str, Any] = yaml.safe_load((TINY / "table.yaml").read_text())
    [row] = [row for row in edited["rows"] if row["method"] == "MAE"]
    row["method"] = "masked autoencoder"
    for other in edited["rows"]:
        if other.get("baseline") == "MAE":
            other["baseline"] = row["method"]
    Table.model_validate(edited)
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(edited))
    old = found(results, "tags.cells LIKE '%|table:pretrained/MAE:tune_acc|%'")

    write_snapshot(plan_of(results, tmp_path / "table.yaml"))
    mirror(results)
    assert found(results, "tags.cells LIKE '%|table:pretrained/MAE:%'") == set()
    assert (
        found(results, "tags.cells LIKE '%|table:pretrained/masked autoencoder:tune_acc|%'") == old != set()
    )
    assert found(results, "tags.cells LIKE '%|targets:%'") == set()
    assert set(database.rows("select run_uuid, key, value from tags where key != 'cells'")) == before


def test_the_resolved_config_is_an_artifact_and_can_be_given_back(
    plan: Plan, results: Path, database: Database
) -> None:
    write_snapshot(plan)
    mirror(results)
    [(tables,)] = database.rows("select run_uuid from runs where name = 'tables'")
    stored = results / "mlartifacts" / tables / "artifacts" / "config.yaml"
    again = Plan.load(stored)
    assert again.config == plan.config and again.config.seeds == (0, 1)
    assert {name: run.digest for name, run in again.runs.items()} == {
        name: run.digest for name, run in plan.runs.items()
    }


def test_what_is_asked_is_written_only_when_it_changed(plan: Plan, results: Path) -> None:
    def files() -> list[tuple[int, int]]:
        found = [(results / name).stat() for name in ("cells.json", "config.yaml")]
        return [(each.st_ino, each.st_mtime_ns) for each in found]  # reading changes st_atime

    write_snapshot(plan)
    first = files()
    write_snapshot(plan)
    assert files() == first


def test_a_training_and_tabulate_record_what_is_asked(tmp_path: Path) -> None:
    plan = synthetic_plan(tmp_path / "results", lambda *_: 50.0)
    manifest = plan.manifest("imagenet")
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"listing_sha256": "b" * 64, "content_sha256": "a" * 64}))
    run = next(iter(plan.runs.values()))
    describe_run(plan, replace(Jobs(plan).training(run, 0), weights={}))
    by_training = (plan.results / "cells.json").read_text()
    assert json.loads(by_training)[f"runs/{run.name}/seed0"]
    assert "cells" not in json.loads((plan.run_directory(run.name, 0) / "run.json").read_text())["tags"]
    (plan.results / "cells.json").unlink()
    assert main(["tabulate", "table", *plan.arguments]) == 0
    assert (plan.results / "cells.json").read_text() == by_training


def test_a_damaged_record_of_cells_is_named_and_holds_nothing_up(results: Path, database: Database) -> None:
    Training(results).log(range(2))
    (results / "cells.json").write_text("{")
    assert list(Tracker(results, None).mirror()) == ["cells.json"]
    assert database.points(database.run()) == expected(range(2))
