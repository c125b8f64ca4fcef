"""Mirror every run below a results folder to MLflow: each metric point exactly once, whatever crashes.

One process writes to the store (concurrent writers break a fresh SQLite store), and it only reads what the
runs have written, so a training never waits for a server. Every request can be repeated:
params, tags, artifacts and status are overwritten with equal values, and `Cursor` explains why no metric
point is stored twice. If a cursor is lost, the run is found in MLflow by its tag, and only points that its
history lacks are sent.
"""

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import time

from m2pt.errors import InputError, short
from m2pt.run_files import (
    CELLS,
    EVALUATION,
    FIGURE_FORMATS,
    METRICS,
    MLFLOW_ARTIFACTS,
    MLFLOW_DATABASE,
    RUN,
    TABLE_FORMATS,
    TRACKING,
)
from m2pt.tracking.cursor import LOCAL_STORE, Cursor
from m2pt.tracking.liveness import Liveness
from m2pt.tracking.local_run import (
    LocalRun,
    Point,
    Status,
    as_text,
    file_signature,
    find_runs,
    flatten,
    read_cells_of_runs,
)
from m2pt.tracking.mlflow_store import (
    CELLS_TAG,
    EXPERIMENT,
    RUN_TAG,
    MlflowStore,
    NoSuchStore,
    cells_tag,
    is_missing,
    is_unreachable,
    legal_key,
    sqlite_uri,
)
from m2pt.tracking.uri import host, mask_secrets

_ARTIFACTS = {f".{kind}" for kind in (*TABLE_FORMATS, *FIGURE_FORMATS, "yaml")}
_LINES_PER_REQUEST = 1000


class Unreachable(Exception):
    """The tracking server does not answer, or reports a temporary failure; the message names it."""


class Tracker:
    """Sends new data of the runs in one results folder, with each call of `mirror()`.

    `uri` is an MLflow tracking URI; None means the SQLite file `mlflow.db` in the results folder. The
    connection is made once there is a run, so that waiting for the first one does not even import MLflow.
    """

    def __init__(self, results: Path, uri: str | None) -> None:
        self.results = results.resolve()
        self.store = MlflowStore(
            uri or sqlite_uri(self.results / MLFLOW_DATABASE), artifacts=self.results / MLFLOW_ARTIFACTS
        )
        self._cursors = self.results / TRACKING / _folder_name(uri, self.store.experiment_name)
        self._cells: dict[str, list[str]] = {}
        self._liveness = Liveness()

    def mirror(self) -> dict[str, str]:
        """Send everything new; return by folder why runs were rejected or could not be read.

        Raises:
            Unreachable: the server does not answer; nothing is lost, call again later.
            InputError: MLflow does not support this kind of tracking URI.
        """
        problems: dict[str, str] = {}
        with self._collect_problems(CELLS, problems):
            self._cells = read_cells_of_runs(self.results)
        for run in find_runs(self.results):
            with self._collect_problems(run.directory, problems):
                self._connect()
                self._mirror_run(run)
        tables = {path.name: path for path in sorted(self.results.iterdir()) if path.suffix in _ARTIFACTS}
        if tables:
            with self._collect_problems("tables", problems):
                self._connect()
                self._mirror_tables(tables)
        return problems

    def pending(self) -> int:
        """Count the metric points that the server has not acknowledged."""
        count = 0
        for run in find_runs(self.results):
            cursor = _load_cursor(self._cursor_path(run.directory))
            with suppress(InputError):  # a damaged line is reported where it is sent
                count += len(run.points(run.lines(cursor.lines if cursor else 0)))
        return count

    @contextmanager
    def _collect_problems(self, name: str, problems: dict[str, str]) -> Iterator[None]:
        """Record a problem with one run, so that the others are still mirrored."""
        try:
            yield
        except NoSuchStore:
            raise
        except InputError as error:
            problems[name] = short(" ".join(str(error).split()), 1000)
        except Exception as error:  # the tracker must survive whatever MLflow raises
            reason = " ".join(mask_secrets(f"{type(error).__name__}: {error}", self.store.uri).split())
            if is_unreachable(error):
                raise Unreachable(f"{self.store.masked_uri} does not answer ({reason:.200})") from error
            if is_missing(error):
                # The store was recreated or the run purged from it: start over in the next pass.
                self._cursor_path(name).unlink(missing_ok=True)
                self.store.disconnect()
            problems[name] = reason

    def _connect(self) -> None:
        if self.store.connect():
            # The store is empty, whatever the cursors say.
            shutil.rmtree(self._cursors, ignore_errors=True)

    def _mirror_run(self, run: LocalRun) -> None:
        path = self._cursor_path(run.directory)
        cursor = _load_cursor(path)
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
        if cursor and cursor.identity != identity and run.has_stale_metrics(signature):
            return
        if cursor and self._was_replaced(run, identity, cursor):
            self._retire(cursor)
            cursor = None
        cursor = cursor or self._open(run, identity)
        if not self.store.is_active(cursor.run_id):
            return  # deleted in MLflow by its owner: do not restore it

        changed = {name for name in signature if cursor.seen.get(name) != signature[name]}
        if RUN in changed:
            self.store.set_tags(cursor.run_id, self._tags(run))
            self.store.log_artifact(cursor.run_id, run.path / RUN)
        if cursor.cells != cells:
            self.store.set_tags(cursor.run_id, {CELLS_TAG: cells})
        if METRICS in changed:
            self._send_lines(run, cursor, path)
        if EVALUATION in changed:
            self._send_evaluation(run, cursor.run_id, signature[EVALUATION][0] // 1_000_000)
            self.store.log_artifact(cursor.run_id, run.path / EVALUATION)
        if status.ended and METRICS in signature:  # not while it grows
            self.store.log_artifact(cursor.run_id, run.path / METRICS)
        if status.ended or cursor.status != status.name:
            self.store.set_tags(cursor.run_id, {"ended": status.reason})
            self.store.set_status(cursor.run_id, status)
        cursor.seen, cursor.status, cursor.cells = signature, status.name, cells
        cursor.save(path)

    @staticmethod
    def _was_replaced(run: LocalRun, identity: str, cursor: Cursor) -> bool:
        """Return whether the folder now holds another training than the cursor's."""
        first = run.lines(0, 1)
        return cursor.identity != identity or bool(
            cursor.first_line and first and first != [cursor.first_line]
        )

    def _retire(self, cursor: Cursor) -> None:
        """Close a run after another training took over its folder, so that it is not found again."""
        self.store.set_tags(cursor.run_id, {RUN_TAG: "superseded", CELLS_TAG: ""})
        if cursor.status == "RUNNING":
            reason = "superseded: another training began in its folder"
            self.store.set_tags(cursor.run_id, {"ended": reason})
            self.store.set_status(cursor.run_id, Status("KILLED", _now()))

    def _open(self, run: LocalRun, identity: str) -> Cursor:
        """Create the run in the store; if only the cursor was lost, find it there and send the rest."""
        description = run.description()
        tag = self._run_tag(identity)
        found = self.store.find(tag)
        stored = found or self.store.create(tag, description.name or run.directory, run.started())
        self.store.log_params(stored.run_id, flatten({"seed": description.seed, **description.spec}))
        if not found:
            return Cursor(stored.run_id, identity)
        known = self.store.logged_steps(stored.run_id)
        lines = run.lines()
        missing = [point for point in run.points(lines) if (legal_key(point.key), point.step) not in known]
        self.store.log_points(stored.run_id, missing, _now())
        return Cursor(stored.run_id, identity, "".join(lines[:1]), lines=len(lines), status=stored.status)

    def _send_lines(self, run: LocalRun, cursor: Cursor, path: Path) -> None:
        """Send the lines that are there now, and return.

        A training may write as fast as lines are sent: waiting for its last one would hold up all other runs.
        """
        more = True
        while more:
            if not cursor.sending:
                cursor.sending = len(run.lines(cursor.lines, cursor.lines + _LINES_PER_REQUEST))
                more = cursor.sending == _LINES_PER_REQUEST
                if not cursor.sending:
                    return
                cursor.sending_time = _now()
                cursor.first_line = cursor.first_line or run.lines(0, 1)[0]
                cursor.save(path)
            lines = run.lines(cursor.lines, cursor.lines + cursor.sending)
            if len(lines) < cursor.sending:
                return  # resumed at an earlier step: the training writes the same lines again
            self.store.log_points(cursor.run_id, run.points(lines), cursor.sending_time)
            cursor.lines, cursor.sending = cursor.lines + cursor.sending, 0
            cursor.save(path)

    def _send_evaluation(self, run: LocalRun, run_id: str, timestamp: int) -> None:
        """Log the final metrics at step 0 as `evaluation/...`, except values that the store already has."""
        latest = self.store.latest_metrics(run_id)
        final = [Point(f"evaluation/{key}", 0, value) for key, value in run.evaluation().items()]
        new = [point for point in final if latest.get(legal_key(point.key)) != point.value]
        self.store.log_points(run_id, new, timestamp)

    def _mirror_tables(self, files: Mapping[str, Path]) -> None:
        """Log the tables, figures and configs in the results folder as artifacts of one run, "tables"."""
        path = self._cursor_path("tables")
        signature = {name: file_signature(file) for name, file in files.items()}
        cursor = _load_cursor(path)
        if cursor is None:
            tag = self._run_tag("tables")
            cursor = Cursor((self.store.find(tag) or self.store.create(tag, "tables", None)).run_id, "tables")
        if cursor.seen == signature or not self.store.is_active(cursor.run_id):
            return
        for name in files:
            if cursor.seen.get(name) != signature[name]:
                self.store.log_artifact(cursor.run_id, files[name])
        self.store.set_tags(cursor.run_id, {"m2pt.results": self._place})
        changed = max(changed for changed, _ in signature.values()) // 1_000_000
        self.store.set_status(cursor.run_id, Status("FINISHED", changed))
        cursor.seen = signature
        cursor.save(path)

    def _tags(self, run: LocalRun) -> dict[str, str]:
        """Return the tags to filter by, and where the run came from."""
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
        """Return an id that is unique among the runs of all results folders on one server."""
        return sha256(f"{self._place}/{identity}".encode()).hexdigest()[:16]

    @property
    def _place(self) -> str:
        return f"{platform.node()}:{self.results}"

    def _cursor_path(self, directory: str) -> Path:
        return self._cursors / f"{directory}.json"


def _load_cursor(path: Path) -> Cursor | None:
    """Return a cursor; None if it is lost or damaged: the caller then queries MLflow."""
    try:
        return Cursor.load(path)
    except InputError:
        return None


def _now() -> int:
    return round(time() * 1000)


def _folder_name(uri: str | None, experiment: str) -> str:
    """Return the name of the cursors' folder: host and digest of the URI, which do not reveal a password.

    For the local store it begins with `LOCAL_STORE`; the digest of an experiment other than `EXPERIMENT` is
    appended.
    """
    store = LOCAL_STORE if uri is None else f"{host(uri)}-{_short_digest(uri)}"
    return store if experiment == EXPERIMENT else f"{store}+{_short_digest(experiment)}"


def _short_digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]
