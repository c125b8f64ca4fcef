"""How far the mirroring of one run has come, on disk."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, MinLen

from m2pt import atomic
from m2pt.formats.documents import read_json
from m2pt.schema.base import Strict, validate

LOCAL_STORE = "default"
"""Name of the folder with the cursors of the results folder's own store."""


@dataclass
class Cursor:
    """What the tracking server has acknowledged of one run.

    Before lines are sent, their number and the time they are stamped with are written down (`sending`,
    `sending_time`). If nobody learns whether they arrived (a crash, a timeout), the very same points are
    sent again: MLflow's SQL stores have (run, key, step, time, value) as primary key and ignore what they
    hold already.
    """

    run_id: Annotated[str, MinLen(1)]
    """Id of the run in MLflow."""
    identity: str
    """`RunFolder.identity` of what was sent."""
    first_line: str = ""
    """First line of metrics.jsonl; another one means that the training began anew with other code."""
    lines: Annotated[int, Ge(0)] = 0
    """Lines of metrics.jsonl acknowledged."""
    sending: Annotated[int, Ge(0)] = 0
    """Lines on their way, 0 if none."""
    sending_time: Annotated[int, Ge(0)] = 0
    """Their time stamp, in ms of the epoch."""
    status: str = "RUNNING"
    """Status acknowledged."""
    cells: str | None = None
    """Tag `cells` acknowledged, None if that is not known."""
    seen: dict[str, list[int]] = field(default_factory=dict)
    """Signature of the files at the last time when all of them had been sent."""

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
