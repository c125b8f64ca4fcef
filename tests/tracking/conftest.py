"""A results folder with an empty store; what reaches MLflow is read from its database with sqlite3."""

import os
import shutil
from pathlib import Path

import pytest
from tracked import Database

from m2pt.tracking import mlflow_store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them; making one takes MLflow seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    for name, value in mlflow_store._ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def results(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with an empty default store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def database(results: Path) -> Database:
    return Database(results / "mlflow.db")
