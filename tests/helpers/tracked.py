"""What the tracker's tests write and read: a training's files, and the store's database through sqlite3."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from m2pt.atomic import write_json
from m2pt.tracking.tracker import Tracker

SPEC = {
    "recipe": {"training": {"lr": 0.01, "betas": [0.9, 0.95]}},
    "target_init": "pretrained",
    "freeze": None,
}
TAGS = {"target": "image", "auxiliary": "audio", "setting": "pretrained"}


class Training:
    """Writes what a training writes."""

    def __init__(
        self,
        results: Path,
        name: str = "tune-0a1b2c3d",
        *,
        spec: Any = SPEC,
        seed: int = 0,
        tags: Any = TAGS,
        **provenance: Any,
    ) -> None:
        self.folder = results / "runs" / name / f"seed{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.begin(name, spec, seed, tags, **provenance)

    def begin(self, name: str, spec: Any, seed: int = 0, tags: Any = TAGS, **provenance: Any) -> None:
        given = {"git_commit": "c0ffee", "device": "cpu", "packages": {"torch": "2.4"}}
        given |= {"started": "2024-01-25T12:00:00+00:00", **provenance}
        self.write("run.json", {"name": name, "spec": spec, "seed": seed, "provenance": given, "tags": tags})

    def write(self, name: str, content: Any) -> None:
        write_json(self.folder / name, content)

    def log(self, steps: range, *, offset: float = 0.0) -> None:
        with (self.folder / "metrics.jsonl").open("a") as stream:
            for step in steps:
                entry = {"step": step, "epoch": step // 10, "loss": offset + 1 / (1 + step), "lr": 0.5 * step}
                stream.write(json.dumps(entry | {"scale/blocks.0.attn.qkv": 0.25 * step}) + "\n")

    def truncate(self, lines: int) -> None:
        path = self.folder / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))

    def finish(self, **metrics: float) -> None:
        self.write("finished.json", {})
        if metrics:
            self.write("evaluation.json", {"metrics": metrics})


class Database:
    """The store as its database file says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(query, arguments).fetchall()

    def runs(self, name: str | None = None) -> list[tuple[str, str]]:
        """(id, status) of the training runs, oldest first."""
        query = "select run_uuid, status from runs where name != 'tables' order by rowid"
        if name is None:
            return self.rows(query)
        return self.rows(query.replace("order", "and name = ? order"), name)

    def run(self, name: str | None = None) -> str:
        [(run_id, _)] = self.runs(name)
        return run_id

    def points(self, run_id: str) -> list[tuple[str, int, float]]:
        return self.rows("select key, step, value from metrics where run_uuid = ? order by key, step", run_id)


def expected(steps: range, *, offset: float = 0.0) -> list[tuple[str, int, float]]:
    """Every point of `Training.log(steps)`, once."""
    values = {
        "epoch": [float(step // 10) for step in steps],
        "loss": [offset + 1 / (1 + step) for step in steps],
        "lr": [0.5 * step for step in steps],
        "scale/blocks.0.attn.qkv": [0.25 * step for step in steps],
    }
    return [(key, step, value) for key in values for step, value in zip(steps, values[key], strict=True)]


def mirror(results: Path) -> None:
    """A pass of a tracker that has just been started."""
    problems = Tracker(results, None).mirror()
    assert not problems, problems
