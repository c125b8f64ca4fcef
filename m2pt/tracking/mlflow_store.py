"""MLflow as the tracker uses it: few requests, within MLflow's limits on sizes and names."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote

from m2pt.errors import InputError
from m2pt.tracking.local_run import Point, Status
from m2pt.tracking.uri import mask_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

RUN_TAG = "m2pt.run_id"

CELLS_TAG = "cells"
"""Tag with the names of the table cells that a run contributes to."""

EXPERIMENT = "m2pt"
"""Name of the experiment unless MLFLOW_EXPERIMENT_NAME is set."""

# The most that one request, one key and one value may hold (mlflow/utils/validation.py).
_METRICS_PER_REQUEST, _ITEMS_PER_REQUEST = 1000, 100
_KEY_LENGTH, _PARAM_LENGTH, _TAG_LENGTH = 250, 6000, 8000

# The tracker has its own retries: a hanging server may block it for seconds, not for many minutes.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class NoSuchStore(InputError):
    """MLflow does not support this kind of tracking URI."""


class StoredRun(NamedTuple):
    """A run in the store."""

    run_id: str
    status: str


class MlflowStore:
    """One experiment in an MLflow tracking store: `EXPERIMENT`, or the value of MLFLOW_EXPERIMENT_NAME.

    Artifacts go to the folder `artifacts`, unless a server stores them. The methods raise what MLflow raises;
    `is_unreachable` and `is_missing` classify it.
    """

    def __init__(self, uri: str, *, artifacts: Path) -> None:
        self.uri = uri
        self.experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        self._artifacts = artifacts
        self._client: MlflowClient | None = None
        self._experiment = ""

    @property
    def masked_uri(self) -> str:
        """The tracking URI without its secrets."""
        return mask_uri(self.uri)

    def connect(self) -> bool:
        """Connect unless connected; return whether the experiment was created by this, so that it is empty.

        Raises:
            NoSuchStore: MLflow does not support this kind of URI.
        """
        if self._client is not None:
            return False
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

        try:
            client = MlflowClient(tracking_uri=self.uri)
        except UnsupportedModelRegistryStoreURIException:
            raise NoSuchStore(
                f"MLFLOW_TRACKING_URI: {self.masked_uri}: MLflow does not support this kind of URI; "
                "give an http(s):// server or a database such as sqlite:///path/mlflow.db."
            ) from None
        experiment = client.get_experiment_by_name(self.experiment_name)
        if experiment is None:
            kept_by_server = self.uri.partition(":")[0].lower() in ("http", "https", "databricks")
            location = None if kept_by_server else self._artifacts.as_uri()
            self._experiment = client.create_experiment(self.experiment_name, artifact_location=location)
        else:
            self._experiment = experiment.experiment_id
        self._client = client
        return experiment is None

    def disconnect(self) -> None:
        """Forget the connection; the next `connect` opens another."""
        self._client = None

    @property
    def client(self) -> "MlflowClient":
        """The MLflow client, once connected."""
        if self._client is None:
            raise RuntimeError("call connect() first")
        return self._client

    def find(self, identity: str) -> StoredRun | None:
        """Return the run that was created with this identity, if there is one."""
        found = self.client.search_runs(
            [self._experiment],
            f"tags.`{RUN_TAG}` = '{identity}'",
            max_results=1,
            order_by=["start_time DESC"],
        )
        return StoredRun(found[0].info.run_id, found[0].info.status) if found else None

    def create(self, identity: str, name: str, started: int | None) -> StoredRun:
        """Create a run of this identity; `started` in ms since the epoch, None for now."""
        info = self.client.create_run(self._experiment, started, {RUN_TAG: identity}, name).info
        return StoredRun(info.run_id, info.status)

    def is_active(self, run_id: str) -> bool:
        """Return whether the run exists and is not deleted."""
        return self.client.get_run(run_id).info.lifecycle_stage == "active"

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log the params that the run lacks; MLflow refuses to change one."""
        from mlflow.entities import Param

        present = self.client.get_run(run_id).data.params
        legal = {legal_key(key): _clipped(value, _PARAM_LENGTH) for key, value in params.items()}
        missing = [Param(key, value) for key, value in legal.items() if key not in present]
        for some in _slices(missing, _ITEMS_PER_REQUEST):
            self.client.log_batch(run_id, params=some)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set or overwrite tags."""
        from mlflow.entities import RunTag

        legal = [RunTag(legal_key(key), _clipped(value, _TAG_LENGTH)) for key, value in tags.items()]
        for some in _slices(legal, _ITEMS_PER_REQUEST):
            self.client.log_batch(run_id, tags=some)

    def log_points(self, run_id: str, points: Iterable[Point], timestamp: int) -> None:
        """Log metric points with one time stamp (ms since the epoch); logging them again changes nothing."""
        from mlflow.entities import Metric

        metrics = [Metric(legal_key(point.key), point.value, timestamp, point.step) for point in points]
        for some in _slices(metrics, _METRICS_PER_REQUEST):
            self.client.log_batch(run_id, metrics=some)

    def logged_steps(self, run_id: str) -> set[tuple[str, int]]:
        """Return (key, step) of every metric point that the run has."""
        keys = self.client.get_run(run_id).data.metrics
        return {(key, metric.step) for key in keys for metric in self.client.get_metric_history(run_id, key)}

    def latest_metrics(self, run_id: str) -> dict[str, float]:
        """Return the last value of every metric."""
        return self.client.get_run(run_id).data.metrics

    def log_artifact(self, run_id: str, path: Path) -> None:
        """Upload a file, replacing an earlier one of the same name."""
        self.client.log_artifact(run_id, str(path))

    def set_status(self, run_id: str, status: Status) -> None:
        """Set the run's status and, if it has ended, its end time."""
        if status.ended is None:
            self.client.update_run(run_id, status=status.name)
        else:
            self.client.set_terminated(run_id, status.name, status.ended)


def sqlite_uri(path: Path) -> str:
    """Return the URI of a SQLite file.

    SQLAlchemy parses what follows a `?` in a plain path as options, so such a path needs the `file:` form;
    and that needs the driver's name, since MLflow creates a folder `file:` for `sqlite:///file:...`.
    """
    return f"sqlite+pysqlite:///file:{quote(str(path))}?uri=true" if "?" in str(path) else f"sqlite:///{path}"


def legal_key(key: str) -> str:
    """Return `key` in the alphabet and length that MLflow allows for metrics, params and tags."""
    return re.sub(r"[^\w./ -]", "_", key)[:_KEY_LENGTH]


def cells_tag(cells: Sequence[str]) -> str:
    """Return the value of `CELLS_TAG`: names between bars, so that no name matches a part of another."""
    return f"|{'|'.join(cells)}|" if cells else ""


def cell_filter(cell: str) -> str:
    """Return the expression that finds a cell's runs, for the search box of MLflow's UI and `search_runs`."""
    quote = '"' if "'" in cell else "'"
    return f"tags.{CELLS_TAG} LIKE {quote}%|{cell}|%{quote}"


def is_unreachable(error: Exception) -> bool:
    """Return whether an error means that the server does not answer or fails temporarily."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ConnectionError, Timeout
    from sqlalchemy.exc import OperationalError

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= 500 or status == 429
    return isinstance(error, ConnectionError | Timeout | OperationalError)


def is_missing(error: Exception) -> bool:
    """Return whether the store answered that it has no such run."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.get_http_status_code() == 404


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _slices(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
