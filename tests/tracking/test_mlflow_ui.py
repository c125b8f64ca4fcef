"""`make mlflow-ui` serves the default store, with its artifacts."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_server import answers, free_port, get, wait_until
from tracked import Database, Training, mirror

from m2pt.tracking.mlflow_store import cell_filter

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def start(checkout: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """`make mlflow-ui` in a folder in which the environment counts as installed."""
    shutil.copy(MAKEFILE, checkout)
    plugin = "plugins/snakemake-executor-plugin-submitit"
    for folder in (".venv", plugin):
        (checkout / folder).mkdir(parents=True)
    for name in ("constraints.txt", "pyproject.toml", f"{plugin}/pyproject.toml", ".venv/complete"):
        (checkout / name).touch()
    own = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "RESULTS", "MLFLOW_TRACKING_URI")
    kept = {key: value for key, value in os.environ.items() if key not in own}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["make", "mlflow-ui", *words],
        cwd=checkout,
        env={**kept, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_opens_on_the_default_store_with_its_artifacts(
    tmp_path: Path, results: Path, database: Database
) -> None:
    training = Training(results, "run")
    training.finish(top1=50.0)
    cell = "table1:pretrained/M2PT-Point:imagenet_tune_acc"
    (results / "cells.json").write_text(json.dumps({"runs/run/seed0": [cell]}))
    (results / "table1.csv").write_text("setting,method\n")
    mirror(results)
    port = free_port()
    at = f"http://127.0.0.1:{port}"
    ui = start(tmp_path, MLFLOW_PORT=str(port))
    try:
        wait_until(lambda: ui.poll() is not None or answers(f"{at}/health"))
        assert b"<title>MLflow</title>" in get(f"{at}/")
        query = {"experiment_ids": ["1"], "filter": cell_filter(cell)}
        [run] = json.loads(get(f"{at}/ajax-api/2.0/mlflow/runs/search", query))["runs"]
        assert run["info"]["run_id"] == database.run()
        artifact = get(f"{at}/get-artifact?path=run.json&run_uuid={database.run()}")
        assert artifact == (training.folder / "run.json").read_bytes()
        [(tables,)] = database.rows("select run_uuid from runs where name = 'tables'")
        listed = json.loads(get(f"{at}/ajax-api/2.0/mlflow/artifacts/list?run_id={tables}"))
        assert [each["path"] for each in listed["files"]] == ["table1.csv"]
    finally:
        os.killpg(ui.pid, signal.SIGKILL)
        said, _ = ui.communicate()
    assert "Error" not in said


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://user:secret@host/mlflow", "https://host/mlflow"),
        ("HTTP://host/?token=secret#secret", "HTTP://host/?token=***#***"),
    ],
)
def test_it_names_the_server_that_has_the_runs(tmp_path: Path, uri: str, printed: str) -> None:
    ui = start(tmp_path, MLFLOW_TRACKING_URI=uri)
    said, _ = ui.communicate(timeout=300)
    assert ui.returncode and f"The runs are on your server: {printed}\n" in said and "secret" not in said
