"""A real MLflow server on loopback that can be killed and come back, and what it says over REST."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

SECONDS = 120.0
"""What is waited for comes within a few seconds, unless the machine is very busy."""


# MLflow's own background jobs are eight processes, of which nothing here is asked.
OWN = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def wait_until(condition: Callable[[], Any]) -> None:
    """Look again and again."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(address: str, body: Any = None) -> bytes:
    """The answer to a GET, or to a POST of JSON if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(address, data, {"Content-Type": "application/json"}), timeout=30) as answer:
        content: bytes = answer.read()
        return content


def answers(address: str) -> bool:
    """Whether a server answers there, and well."""
    try:
        get(address)
    except (URLError, OSError):
        return False
    return True


class Server:
    """`mlflow server` with a SQLite store and a folder of artifacts of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same port and store each time, and wait until it is well."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'store.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=kept | OWN,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: answers(f"{self.uri}/health"))

    def kill(self) -> None:
        """SIGKILL to the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, path: str, body: Any = None, **query: Any) -> Any:
        """What the REST API answers."""
        address = f"{self.uri}/api/2.0/mlflow/{path}"
        return json.loads(get(f"{address}?{urlencode(query)}" if query else address, body))

    def runs(self, experiment: str, search: str = "") -> dict[str, dict[str, Any]]:
        """The training runs of an experiment by their folder, or their id before it is known."""
        runs: dict[str, dict[str, Any]] = {}
        for run in self._search(experiment, search):
            if run["info"]["run_name"] != "tables":
                folder = run["tags"].get("m2pt.directory", run["info"]["run_id"])
                assert folder not in runs
                runs[folder] = run
        return runs

    def tables(self, experiment: str) -> list[str]:
        """Ids of the runs that hold tables."""
        runs = self._search(experiment, "attributes.run_name = 'tables'")
        return [run["info"]["run_id"] for run in runs]

    def _search(self, experiment: str, search: str) -> Iterator[dict[str, Any]]:
        named = self.ask("experiments/search", {"filter": f"name = '{experiment}'", "max_results": 10})
        ids = [each["experiment_id"] for each in named.get("experiments", ())]
        answer = self.ask("runs/search", {"experiment_ids": ids, "filter": search, "max_results": 1000})
        for run in answer.get("runs", ()):
            yield {**run, "tags": {tag["key"]: tag["value"] for tag in run["data"]["tags"]}}

    def points(self, run: dict[str, Any]) -> list[tuple[str, int, float]]:
        """The whole history of every metric of a run, sorted."""
        return sorted(
            (key, int(point["step"]), float(point["value"]))
            for key in (metric["key"] for metric in run["data"].get("metrics", ()))
            for point in self._history(run["info"]["run_id"], key)
        )

    def _history(self, run_id: str, key: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            answer = self.ask("metrics/get-history", run_id=run_id, metric_key=key, max_results=1000, **token)
            yield from answer.get("metrics", ())
            if not answer.get("next_page_token"):
                return
            token = {"page_token": answer["next_page_token"]}
