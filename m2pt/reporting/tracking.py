"""Mirrors every run below a results folder to MLflow: each metric point exactly once, whatever crashes.

One process writes to the store (several at once break a fresh SQLite store), and it only reads what the runs
have written, so a training neither waits for a server nor knows of one. Repeating any request is harmless:
params, tags, artifacts and status are overwritten with the same, metric points are protected as `Cursor`
explains. If a cursor is lost, the run is found in MLflow by its tag, and only points that its history lacks
are sent.
"""

import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import time

from m2pt.errors import InputError, short
from m2pt.reporting.asked import TAG, cells_tag, recorded_cells
from m2pt.reporting.liveness import Liveness
from m2pt.reporting.mlflow_store import (
    EXPERIMENT,
    RUN_TAG,
    MlflowStore,
    NoSuchStore,
    is_missing,
    legal_key,
    no_answer,
    sqlite_uri,
)
from m2pt.reporting.run_folder import (
    Point,
    RunFolder,
    Status,
    as_text,
    file_signature,
    find_runs,
    flatten,
    points,
)
from m2pt.reporting.tracking_cursor import LOCAL_STORE, Cursor
from m2pt.reporting.tracking_uri import host, masked
from m2pt.results import CELLS, EVALUATION, METRICS, RUN

_TABLES = {".csv", ".md", ".tex", ".pdf", ".png", ".svg", ".yaml"}
_LINES_AT_ONCE = 1000


class Unreachable(Exception):
    """The tracking server gave no answer, or answered that it cannot work now; the message names it."""


class Tracker:
    """Sends what is new in the runs of one results folder, one `mirror()` at a time.

    `uri` is an MLflow tracking URI; None means the SQLite file `mlflow.db` in the results folder. The
    connection is made when the first run is there, so that waiting for one does not even import MLflow.
    """

    def __init__(self, results: Path, uri: str | None) -> None:
        self.results = results.resolve()
        self.store = MlflowStore(
            uri or sqlite_uri(self.results / "mlflow.db"), artifacts=self.results / "mlartifacts"
        )
        self._cursors = self.results / "tracking" / _folder_name(uri, self.store.experiment_name)
        self._cells: dict[str, list[str]] = {}
        self._liveness = Liveness()

    def mirror(self) -> dict[str, str]:
        """Send everything new. Return the runs that were refused or could not be read, with the reason.

        Raises:
            Unreachable: there is no server; nothing is lost, call again later.
            InputError: MLflow knows no such kind of tracking URI.
        """
        problems: dict[str, str] = {}
        with self._collecting(CELLS, problems):
            self._cells = recorded_cells(self.results)
        for run in find_runs(self.results):
            with self._collecting(run.directory, problems):
                self._connect()
                self._mirror_run(run)
        tables = {path.name: path for path in sorted(self.results.iterdir()) if path.suffix in _TABLES}
        if tables:
            with self._collecting("tables", problems):
                self._connect()
                self._mirror_tables(tables)
        return problems

    def waiting(self) -> int:
        """Count the metric points that the server has not acknowledged."""
        count = 0
        for run in find_runs(self.results):
            cursor = _known(self._cursor_path(run.directory))
            with suppress(InputError):  # a damaged line is reported where it is sent
                count += len(_points(run, run.lines(cursor.lines if cursor else 0)))
        return count

    @contextmanager
    def _collecting(self, name: str, problems: dict[str, str]) -> Iterator[None]:
        """Let no trouble with one run keep the others from being mirrored."""
        try:
            yield
        except NoSuchStore:
            raise
        except InputError as error:
            problems[name] = short(" ".join(str(error).split()), 1000)
        except Exception as error:  # whatever it is, the tracker must go on
            reason = " ".join(masked(f"{type(error).__name__}: {error}", self.store.uri).split())
            if no_answer(error):
                raise Unreachable(f"{self.store.shown_uri} does not answer ({reason:.200})") from error
            if is_missing(error):
                # The store was made anew or the run purged from it: start over with the next pass.
                self._cursor_path(name).unlink(missing_ok=True)
                self.store.disconnect()
            problems[name] = reason

    def _connect(self) -> None:
        if self.store.connect():
            # An empty store holds nothing of what the cursors claim.
            shutil.rmtree(self._cursors, ignore_errors=True)

    def _mirror_run(self, run: RunFolder) -> None:
        path = self._cursor_path(run.directory)
        cursor = _known(path)
        signature = run.signature()
        cells = cells_tag(self._cells.get(run.directory, ()))
        if cursor and (cursor.seen, cursor.status, cursor.cells) == (
            signature,
            run.status(signature, self._liveness).name,
            cells,
        ):
            return
        identity = run.identity()
        signature = run.signature()  # after run.json was read: the next pass sees what replaces it meanwhile
        status = run.status(signature, self._liveness)
        if cursor and cursor.identity != identity and run.has_leftovers(signature):
            return
        if cursor and self._is_another(run, identity, cursor):
            self._retire(cursor)
            cursor = None
        cursor = cursor or self._opened(run, identity)
        if not self.store.is_active(cursor.run_id):
            return  # deleted in MLflow by its owner: left alone

        changed = {name for name in signature if cursor.seen.get(name) != signature[name]}
        if RUN in changed:
            self.store.set_tags(cursor.run_id, self._tags(run))
            self.store.log_artifact(cursor.run_id, run.path / RUN)
        if cursor.cells != cells:
            self.store.set_tags(cursor.run_id, {TAG: cells})
        if METRICS in changed:
            self._send_lines(run, cursor, path)
        if EVALUATION in changed:
            self._send_evaluation(run, cursor.run_id, signature[EVALUATION][0] // 1_000_000)
            self.store.log_artifact(cursor.run_id, run.path / EVALUATION)
        if status.ended and METRICS in signature:  # not while it grows
            self.store.log_artifact(cursor.run_id, run.path / METRICS)
        if status.ended or cursor.status != status.name:
            self.store.set_tags(cursor.run_id, {"ended": status.how})
            self.store.set_status(cursor.run_id, status)
        cursor.seen, cursor.status, cursor.cells = signature, status.name, cells
        cursor.save(path)

    @staticmethod
    def _is_another(run: RunFolder, identity: str, cursor: Cursor) -> bool:
        """Whether the folder now holds another training than the one that the cursor belongs to."""
        first = run.lines(0, 1)
        return cursor.identity != identity or bool(
            cursor.first_line and first and first != [cursor.first_line]
        )

    def _retire(self, cursor: Cursor) -> None:
        """Leave a run whose folder another training has taken over, so that it is not found again."""
        self.store.set_tags(cursor.run_id, {RUN_TAG: "superseded", TAG: ""})
        if cursor.status == "RUNNING":
            how = "superseded: another training began in its folder"
            self.store.set_tags(cursor.run_id, {"ended": how})
            self.store.set_status(cursor.run_id, Status("KILLED", _now()))

    def _opened(self, run: RunFolder, identity: str) -> Cursor:
        """Create the run in the store; if only the cursor was lost, find it and send what it lacks."""
        description = run.description()
        tag = self._run_tag(identity)
        found = self.store.find(tag)
        stored = found or self.store.create(tag, description.name or run.directory, run.started())
        self.store.log_params(stored.run_id, flatten({"seed": description.seed, **description.spec}))
        if not found:
            return Cursor(stored.run_id, identity)
        known = self.store.logged_steps(stored.run_id)
        lines = run.lines()
        lacking = [point for point in _points(run, lines) if (legal_key(point.key), point.step) not in known]
        self.store.log_points(stored.run_id, lacking, _now())
        return Cursor(stored.run_id, identity, "".join(lines[:1]), lines=len(lines), status=stored.status)

    def _send_lines(self, run: RunFolder, cursor: Cursor, path: Path) -> None:
        """Send the lines that are there now. More than that could hold up the other runs without an end:
        a training may write as fast as a request takes.
        """
        more = True
        while more:
            if not cursor.sending:
                cursor.sending = len(run.lines(cursor.lines, cursor.lines + _LINES_AT_ONCE))
                more = cursor.sending == _LINES_AT_ONCE
                if not cursor.sending:
                    return
                cursor.sending_time = _now()
                cursor.first_line = cursor.first_line or run.lines(0, 1)[0]
                cursor.save(path)
            lines = run.lines(cursor.lines, cursor.lines + cursor.sending)
            if len(lines) < cursor.sending:
                return  # resumed at an earlier step: the training writes the same lines once more
            self.store.log_points(cursor.run_id, _points(run, lines), cursor.sending_time)
            cursor.lines, cursor.sending = cursor.lines + cursor.sending, 0
            cursor.save(path)

    def _send_evaluation(self, run: RunFolder, run_id: str, timestamp: int) -> None:
        """Log the final metrics at step 0 as `evaluation/...`, except values that the store has already."""
        latest = self.store.latest_metrics(run_id)
        final = [Point(f"evaluation/{key}", 0, value) for key, value in run.evaluation().items()]
        new = [point for point in final if latest.get(legal_key(point.key)) != point.value]
        self.store.log_points(run_id, new, timestamp)

    def _mirror_tables(self, files: Mapping[str, Path]) -> None:
        """Keep the tables, figures and configs in the results folder as artifacts of one run, "tables"."""
        path = self._cursor_path("tables")
        seen = {name: file_signature(file) for name, file in files.items()}
        cursor = _known(path)
        if cursor is None:
            tag = self._run_tag("tables")
            cursor = Cursor((self.store.find(tag) or self.store.create(tag, "tables", None)).run_id, "tables")
        if cursor.seen == seen or not self.store.is_active(cursor.run_id):
            return
        for name in files:
            if cursor.seen.get(name) != seen[name]:
                self.store.log_artifact(cursor.run_id, files[name])
        self.store.set_tags(cursor.run_id, {"m2pt.results": self._place})
        changed = max(changed for changed, _ in seen.values()) // 1_000_000
        self.store.set_status(cursor.run_id, Status("FINISHED", changed))
        cursor.seen = seen
        cursor.save(path)

    def _tags(self, run: RunFolder) -> dict[str, str]:
        """What a person filters by, and where the run came from."""
        description = run.description()
        provenance = description.provenance.model_dump(exclude_unset=True)
        commit = provenance.pop("git_commit", None)
        return {
            **{key: as_text(value) for key, value in description.tags.items()},
            **{f"provenance.{key}": as_text(value) for key, value in provenance.items()},
            **({"mlflow.source.git.commit": commit} if commit else {}),
            "m2pt.directory": run.directory,
            "m2pt.results": self._place,
        }

    def _run_tag(self, identity: str) -> str:
        """Tell runs of several results folders on one server apart."""
        return sha256(f"{self._place}/{identity}".encode()).hexdigest()[:16]

    @property
    def _place(self) -> str:
        return f"{platform.node()}:{self.results}"

    def _cursor_path(self, directory: str) -> Path:
        return self._cursors / f"{directory}.json"


def _points(run: RunFolder, lines: Iterable[str]) -> list[Point]:
    return [point for line in lines for point in points(line, run.path / METRICS)]


def _known(path: Path) -> Cursor | None:
    """A cursor; a damaged one is as good as lost, and MLflow then knows what it has."""
    try:
        return Cursor.load(path)
    except InputError:
        return None


def _now() -> int:
    return round(time() * 1000)


def _folder_name(uri: str | None, experiment: str) -> str:
    """Name of the cursors' folder: host and digest tell stores apart without showing a URI's password.

    That of the local store begins with `LOCAL_STORE`; another experiment than `EXPERIMENT` adds its digest.
    """
    store = LOCAL_STORE if uri is None else f"{host(uri)}-{_short_digest(uri)}"
    return store if experiment == EXPERIMENT else f"{store}+{_short_digest(experiment)}"


def _short_digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]
