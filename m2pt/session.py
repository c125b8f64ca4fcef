"""One training, from its command to its files. Every kind of training goes through `train`.

It locks the run's folder, checks that the checkpoints will fit on the disk, writes run.json, logs a
header, trains, exports the weights and keeps hard links to them in finished/.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2pt import job_log
from m2pt.atomic import write_json
from m2pt.config.experiment import SCRATCH, digest
from m2pt.config.strict import validate
from m2pt.errors import DamagedError, InputError, RunError, count
from m2pt.formats.documents import read_json
from m2pt.inputs import manifest_digest
from m2pt.locks import LockedError, holder, locked
from m2pt.plan.jobs import Training
from m2pt.plan.plan import Plan
from m2pt.plan.snapshot import write_snapshot
from m2pt.plan.specs import PretrainingSpec, Stored
from m2pt.provenance import provenance
from m2pt.results import Description, Finished, metrics_entry, metrics_lines, read
from m2pt.run_files import CHECKSUMS, FINAL, FINISHED, KEPT, LOCK, METRICS, RUN

if TYPE_CHECKING:
    from torch import nn

    from m2pt.training.averaging import MergedAverage
    from m2pt.training.method import Method

_ENDING_S = 120
"""Seconds to wait for a stopped training to save its state and exit."""


@dataclass(frozen=True)
class Setup:
    """Model, loss and data of a training; see `m2pt.training.loop.fit`."""

    model: "nn.Module"
    loss: Callable[..., Any]
    dataset: Any
    collate: Callable[[list[Any]], Any] | None = None
    describe: Callable[["nn.Module"], Mapping[str, float]] | None = None
    snapshots: Mapping[int, Callable[["nn.Module"], None]] = field(default_factory=dict)
    method: "Method | None" = None
    average: "MergedAverage | None" = None


Export = Callable[["nn.Module", Mapping[str, Any]], Mapping[str, float] | None]
"""Writes the files of a trained model, given its provenance; returns the metrics if it evaluates the model.

Called in every process; only the main process returns metrics.
"""


def train(plan: Plan, training: Training, set_up: Callable[[], Setup], export: Export) -> None:
    """Train and export, or restore the files if the same training has already finished.

    `set_up` seeds the random generators itself, since the order of draws decides the initial weights.

    Raises:
        InputError: the dataset or the weights are missing, stale or do not fit.
        RunError: another process trains in the same folder.
        Interrupted: it was asked to stop; the same command resumes it.
    """
    from m2pt.training.checkpoint import check_disk_space
    from m2pt.training.loop import fit

    directory = training.directory
    with lock_run_folder(directory):
        (directory / CHECKSUMS).unlink(missing_ok=True)  # of weights that had come by DVC
        if restore_finished(plan, training):
            return
        set_threads(plan)
        setup = set_up()
        if is_main_process():
            check_disk_space(directory, setup.model, averaged=setup.average is not None)
        identity, made = describe_run(plan, training)
        if is_main_process():
            print(header(training, setup, made["device"]), flush=True)
        model = fit(
            setup.model,
            setup.loss,
            setup.dataset,
            settings=training.settings,
            directory=directory,
            identity=identity,
            seed=training.seed,
            collate=setup.collate,
            describe=setup.describe,
            snapshots=setup.snapshots,
            method=setup.method,
            average=setup.average,
            device=plan.config.device,
        )
        metrics = export(model, made)
        if is_main_process():
            save_finished(directory, identity, training.files)
            if metrics is None:
                print(last_loss(directory))
            job_log.end(*(directory / name for name in training.files), metrics=metrics)


def header(training: Training, setup: Setup, device: str) -> str:
    """Return what a training's log begins with: what it is, and where its results go."""
    dataset, settings = training.spec.dataset, training.settings
    batch = f"batch_size {settings.batch_size} x accumulation {settings.accumulation}"
    classes = count(dataset.num_classes, "class", "classes")
    rows = {
        "dataset": f"{dataset.key}: {len(setup.dataset):,} training items, {classes}",
        "parameters": job_log.parameter_counts(setup.model),
        "device": device,
        "batch": f"{settings.effective_batch()} = {batch}; peak learning rate {settings.peak_lr():g}",
        **training.weights,
        "results": training.directory,
    }
    return job_log.header(f"{training.kind} {training.name}, seed {training.seed}", rows)


def last_loss(directory: Path) -> str:
    """Return the loss that a finished training logged last."""
    path = directory / METRICS
    entries = [metrics_entry(line, str(path)) for line in metrics_lines(path)]
    last = next(entry for entry in reversed(entries) if "loss" in entry)
    return f"loss {last['loss']:.4f} after {last['step']:,} steps"


def describe_run(plan: Plan, training: Training) -> tuple[str, dict[str, Any]]:
    """Write run.json and return the run's identity and its provenance.

    The identity is a hash of spec, seed, input weights and dataset; a resume checkpoint must match it.
    """
    identity, inputs, manifest = _identity(plan, training)
    made = provenance(threads=plan.config.threads, device=device_name(plan), manifest_digest=manifest)
    if is_main_process():
        described = {
            "name": training.name,
            "seed": training.seed,
            "spec": training.stored,
            "provenance": made,
        }
        write_snapshot(plan)
        write_json(
            training.directory / RUN,
            {**described, "inputs": inputs, "tags": tags(training)},
        )
    return identity, made


def _identity(plan: Plan, training: Training) -> tuple[str, dict[str, str], str]:
    """Return the run's identity, and the digests of input weights and dataset that are part of it."""
    from m2pt.formats.weight_files import file_digest

    manifests = [manifest_digest(plan, name) for name in training.datasets]
    manifest = manifests[0] if len(manifests) == 1 else digest(manifests, 64)
    inputs = {role: file_digest(path) for role, path in training.weights.items()}
    return digest([training.stored, training.seed, inputs, manifest], 64), inputs, manifest


def restore_finished(plan: Plan, training: Training) -> bool:
    """Restore the files of this training if it has already finished; return whether it has.

    Raises:
        InputError: an input is missing, or the folder cannot be written.
    """
    from m2pt.training import finished

    directory, name = training.directory, training.name
    if not (directory / KEPT).is_dir():
        return False
    identity, _, _ = _identity(plan, training)
    try:
        state = finished.load(directory, identity)
        if state is not None and is_main_process():
            write_snapshot(plan)
            finished.restore(directory, state)
            print(
                f"{name}: already finished; restored {', '.join(state['files'])} in {directory}", flush=True
            )
    except DamagedError as error:
        if is_main_process():
            aside = finished.move_to_damaged(directory)
            print(f"{error}: moved to {aside} (safe to delete); restarting {name} from step 0", flush=True)
        return False
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error}): free disk space or fix the permissions"
        ) from error
    return state is not None


def save_finished(directory: Path, identity: str, names: Sequence[str]) -> None:
    """Keep the exported files for `restore_finished`, and remove the training's own state.

    Raises:
        RunError: a file was not exported or is lost, or weights exported earlier have been damaged since.
    """
    from m2pt.formats.weight_files import load_metadata
    from m2pt.training import finished

    try:
        for name in names:
            if not (directory / name).exists():
                raise InputError(f"{directory / name}: No such file, though this kind of run exports it")
            if name.endswith(".safetensors"):
                load_metadata(directory / name)
    except InputError as error:
        (directory / FINAL).unlink(missing_ok=True)
        fault = str(error).partition(";")[0]
        raise RunError(f"{fault}; start the same command again to train from the start.") from error
    finished.save(directory, identity, names)


def training_record(directory: Path) -> dict[str, Any]:
    """Return provenance, input weights and wall time in seconds of the training in a run's folder.

    If it skipped corrupt files, also how many.

    Raises:
        InputError: the training has not finished, or its files are gone.
    """
    for name in (RUN, FINISHED):
        if not (directory / name).exists():
            raise InputError(
                f"{directory / name}: missing; a finished training leaves it beside its weights, so train "
                "again."
            )
    finished, stored = read(Finished, directory / FINISHED), read_json(directory / RUN)
    described = validate(Description, stored, str(directory / RUN))
    # copied exactly as stored
    record = {"provenance": stored["provenance"], "inputs": described.inputs, "seconds": finished.seconds}
    return record | ({"skipped": finished.skipped} if finished.skipped else {})


def is_main_process() -> bool:
    """Return whether this process is the one that writes: the only one, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def lock_run_folder(directory: Path) -> Iterator[None]:
    """Lock a run's folder within the block; record a request to stop there.

    Waits up to two minutes for a training that is shutting down, and says so.

    Raises:
        InputError: the folder cannot be written.
        RunError: another process trains there.
        Interrupted: it was asked to stop.
    """
    from m2pt.training.signals import exit_on_stop_signal

    with ExitStack() as stack:
        path = directory / LOCK
        try:
            if is_main_process() and (other := holder(path)):
                print(f"{directory}: waiting up to {_ENDING_S:g} s for {other} to end", flush=True)
                with exit_on_stop_signal():  # while waiting, the folder belongs to another process
                    stack.enter_context(locked(path, timeout=_ENDING_S))
            elif is_main_process():
                stack.enter_context(locked(path))
        except LockedError as error:
            raise RunError(
                f"{directory}: {error} is training here; wait for it, or stop it and rerun this command. If "
                f"its machine is down, delete {path}."
            ) from None
        except OSError as error:
            raise InputError(
                f"{directory} cannot be written ({error}): free disk space or fix the permissions"
            ) from error
        stack.enter_context(exit_on_stop_signal(directory))
        yield


def tags(training: Training) -> dict[str, str]:
    """Return tags to filter runs by.

    `target` is the modality of what is trained, `setting` what it starts from: "pretrained" or "scratch", as
    in the paper, or "pretraining". The tag with the table cells is the tracker's.
    """
    spec = training.spec
    always = {
        "target": "+".join(spec.modalities),
        "seed": str(training.seed),
        "dataset": spec.dataset.name,
        "subset": spec.dataset.subset or "",
    }
    if isinstance(spec, PretrainingSpec):
        task, start = spec.task, training.name
        return {
            **always,
            "setting": "pretraining",
            "task": task,
            "mode": "",
            "target_init": start,
            "auxiliary": "",
        }
    origin = spec.experiment.transfer_from or spec.experiment
    balancing = spec.experiment.balancing
    if balancing is not None:
        ((method, settings),) = spec.recipe.model_dump()["methods"].items()
        always |= {"method": method, "fusion": str(spec.experiment.fusion)}
        always |= {"alpha": str(settings["alpha"])} if "alpha" in settings else {}
    return {
        **always,
        "setting": "scratch" if origin.target_init == SCRATCH else "pretrained",
        "task": spec.experiment.task,
        "mode": spec.experiment.mode,
        "target_init": origin.target_init,
        "auxiliary": "+".join(origin.auxiliaries),
    }


def set_threads(plan: Plan) -> None:
    """Give torch the threads of the spec, whatever the machine has."""
    import torch

    torch.set_num_threads(plan.config.threads)


def device_name(plan: Plan) -> str:
    """Return a human-readable name of the training's device."""
    import torch

    if plan.config.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "cpu"


def weights_metadata(stored: Stored, seed: int) -> dict[str, str]:
    """Return the metadata of a weight file: everything that it depends on and nothing else.

    So the same training gives the same bytes; commit and machine are in run.json next to it.
    """
    return {"spec": json.dumps(stored), "seed": str(seed)}
