"""The part of a run that has been mirrored, stored on disk."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, MinLen

from m2pt import atomic
from m2pt.config.strict import Strict, validate
from m2pt.formats.documents import read_json
from m2pt.run_files import TRACKING

LOCAL_STORE = "default"
"""Name of the folder with the cursors of the local store."""


@dataclass
class Cursor:
    """The part of one run that the tracking server has acknowledged.

    The number of lines about to be sent and their time stamp are saved before they are sent (`sending`,
    `sending_time`). If it is unknown whether they arrived (after a crash or a timeout), exactly the same
    points are sent again: MLflow's SQL stores have (run, key, step, time, value) as primary key and ignore
    duplicates.
    """

    run_id: Annotated[str, MinLen(1)]
    """Id of the run in MLflow."""
    identity: str
    """`LocalRun.identity` of the run that was sent."""
    first_line: str = ""
    """First line of metrics.jsonl; a different one means that the training started over with other code."""
    lines: Annotated[int, Ge(0)] = 0
    """Lines of metrics.jsonl acknowledged."""
    sending: Annotated[int, Ge(0)] = 0
    """Lines sent and not acknowledged yet."""
    sending_time: Annotated[int, Ge(0)] = 0
    """Their time stamp, in ms since the epoch."""
    status: str = "RUNNING"
    """Status acknowledged."""
    cells: str | None = None
    """Tag `cells` acknowledged, None if unknown."""
    seen: dict[str, list[int]] = field(default_factory=dict)
    """Signature of the files when all of them had last been sent."""

    @classmethod
    def load(cls, path: Path) -> "Cursor | None":
        """Read a cursor; None if there is none.

        Raises:
            InputError: it is damaged.
        """
        if not path.exists():
            return None
        return validate(_Form, {"cursor": read_json(path)}, str(path)).cursor

    def save(self, path: Path) -> None:
        """Write the cursor atomically."""
        atomic.write_json(path, asdict(self))


class _Form(Strict):
    cursor: Cursor


def mlflow_runs(results: Path, training: Path) -> Iterator[str]:
    """Yield where MLflow has the training of this folder: a link for the local store, else id and server."""
    for store in sorted((results / TRACKING).glob("*/")):
        cursor = Cursor.load(store / training.relative_to(results).with_suffix(".json"))
        name = store.name.partition("+")[0]  # followed by the digest of an experiment
        if cursor is not None and name == LOCAL_STORE:
            words = ["make", "mlflow-ui", *([] if results == Path("results") else [f"RESULTS={results}"])]
            yield f"http://127.0.0.1:5000/#/runs/{cursor.run_id} (served by: {shlex.join(words)})"
        elif cursor is not None:
            yield f"run {cursor.run_id} on {name.rpartition('-')[0]}"
