"""What every training and evaluation command does around its own work: check, identify, describe, verify."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from m2pt.atomic import write_json
from m2pt.errors import DamagedError, InputError, RunError
from m2pt.formats.documents import parse_json, read_json
from m2pt.locks import TRAINING, Held, holder, holding
from m2pt.reporting import asked
from m2pt.reporting.cells import differing
from m2pt.reporting.provenance import provenance
from m2pt.results import FINISHED, RUN, Description, Finished, Manifest, read
from m2pt.schema.base import validate
from m2pt.schema.experiments import SCRATCH, digest
from m2pt.schema.plan import Plan, Spec

if TYPE_CHECKING:
    from torch import nn

_ENDING_S = 120
"""What a training that was stopped may take to save and end."""


class Training(TypedDict):
    """What a training is: everything that its identity depends on, and its name."""

    name: str
    spec: Spec
    seed: int
    plan: Plan
    weights: Mapping[str, Path]
    dataset: str


def open_dataset(plan: Plan, spec: Spec, split: str, *, seed: int, training: bool) -> Any:
    """Return a reader of the dataset of a spec, after the quick form of its check.

    `training` chooses the recipe's augmentation, else it is the evaluation view.

    Raises:
        InputError: the dataset is missing or has faults; all of them are named.
    """
    from m2pt.datasets.layouts import check, reader

    name, recipe = spec["dataset"]["name"], spec["recipe"]
    dataset, root = plan.config.datasets[name], plan.root(name)
    faults = check(dataset.layout, root, num_classes=dataset.classes, full=False)
    if faults:
        raise InputError(f"dataset {name} at {root} is not sound:\n  " + "\n  ".join(faults))
    settings = dict(spec["architecture"]["input"])
    if "subset" in spec["dataset"]:
        settings["subset"] = spec["dataset"]["subset"]
    if "evaluation" in recipe and not training:
        settings["views"] = recipe["evaluation"]
    return reader(dataset.layout)(
        root,
        split,
        num_classes=spec["dataset"]["num_classes"],
        seed=seed,
        augmentation=recipe["augmentation"] if training else None,
        **settings,
    )


def manifest_digest(plan: Plan, dataset: str) -> str:
    """Return the hash in a dataset's manifest: of a miniature's contents, of your dataset's file list.

    Not of its contents even if `full_check` read them: looking closer makes it no other dataset.

    Raises:
        InputError: the dataset has not been checked yet.
    """
    path = plan.manifest(dataset)
    if not path.exists():
        raise InputError(f"{path}: missing; make it with: {plan.command(path)}")
    manifest = read(Manifest, path)
    built = plan.config.datasets[dataset].miniature is not None
    stored = manifest.content_sha256 if built else manifest.listing_sha256
    if stored is None:
        raise InputError(f"{path}: has no digest; make it again with: {plan.command(path, again=True)}")
    return stored


def load_input(plan: Plan, path: Path, spec: Spec, *, made_with: Path | None = None) -> dict[str, Any]:
    """Return the weights of an input, after checking that they are what the config asks for.

    `made_with` is the file to ask Snakemake for where `path` is written beside another one.

    Raises:
        InputError: the file is missing or damaged, or was made with another spec.
    """
    from m2pt.formats.weights import load_weights

    state, metadata = load_weights(path)
    stored = parse_json(metadata["spec"], f"{path}: its spec") if "spec" in metadata else None
    differences = list(differing(stored, spec))
    if differences:
        raise InputError(
            f"{path}: made with another spec than the config asks for ({'; '.join(differences[:3])}); "
            f"make it again with: {plan.command(made_with or path, again=True)}"
        )
    return state


def describe_run(directory: Path, **training: Unpack[Training]) -> tuple[str, dict[str, Any]]:
    """Write run.json and return the run's identity and its provenance.

    The identity is a hash of spec, seed, input weights and dataset: what a resume checkpoint must agree with.
    """
    identity, inputs, manifest = _identity(training)
    name, spec, seed, plan = training["name"], training["spec"], training["seed"], training["plan"]
    made = provenance(threads=plan.config.threads, device=device_name(plan), manifest_digest=manifest)
    described = {"name": name, "seed": seed, "spec": spec, "provenance": made, "inputs": inputs}
    if is_main():
        asked.record(plan)
        write_json(directory / "run.json", {**described, "tags": tags(name, spec, seed)})
    return identity, made


def _identity(training: Training) -> tuple[str, dict[str, str], str]:
    """The run's identity, and of that the digests of the input weights and of the dataset."""
    from m2pt.formats.weight_files import file_digest

    manifest = manifest_digest(training["plan"], training["dataset"])
    inputs = {role: file_digest(path) for role, path in training["weights"].items()}
    return digest([training["spec"], training["seed"], inputs, manifest], 64), inputs, manifest


def put_back(directory: Path, **training: Unpack[Training]) -> bool:
    """Whether this training has finished before; what it had written is then where it was.

    Raises:
        InputError: an input is missing, or the folder cannot be written.
    """
    from m2pt.training import checkpoint, finished

    if not (directory / finished.FOLDER).is_dir():
        return False
    identity, _, _ = _identity(training)
    name = training["name"]
    try:
        state = finished.find(directory, identity)
        if state is not None and is_main():
            asked.record(training["plan"])
            finished.put_back(directory, state)
            checkpoint.remove(directory, *checkpoint.UNFINISHED)
            print(f"{name}: trained before; put back {', '.join(state['files'])} in {directory}", flush=True)
    except DamagedError as error:
        if is_main():
            aside = finished.set_aside(directory)
            print(f"{error}: set aside in {aside}, which may be deleted; {name} is trained again", flush=True)
        return False
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error}): make room or fix the permissions"
        ) from error
    return state is not None


def keep_finished(directory: Path, identity: str, names: Sequence[str]) -> None:
    """Keep the exported files for `put_back`, after which the training's own state is wanted no more.

    Raises:
        RunError: weights that were exported earlier in the training have been damaged or lost since.
    """
    from m2pt.formats.weight_files import load_metadata
    from m2pt.training import checkpoint, finished

    try:
        for name in names:
            if name.endswith(".safetensors"):
                load_metadata(directory / name)
    except InputError as error:
        checkpoint.remove(directory, checkpoint.FINAL)
        fault = str(error).partition(";")[0]
        raise RunError(f"{fault}; start the same command again to train from the start.") from error
    finished.keep(directory, identity, names)
    checkpoint.remove(directory, checkpoint.FINAL)


def training_of(directory: Path) -> dict[str, Any]:
    """Return how the training in a run's folder came about: provenance, input weights, wall time in seconds.

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
    # what is stored, as it is stored
    return {"provenance": stored["provenance"], "inputs": described.inputs, "seconds": finished.seconds}


def write_evaluation(directory: Path, metrics: Mapping[str, float], **made: Any) -> None:
    """Write evaluation.json, the metrics in percent and how they came about, and print the metrics."""
    write_json(directory / "evaluation.json", {"metrics": metrics, **made})
    print(", ".join(f"{name} {value:.2f}" for name, value in metrics.items()))


def is_main() -> bool:
    """Whether this process is the one that writes: the only one, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def at_work_in(directory: Path) -> Iterator[None]:
    """Within the block a training has this folder for itself, and being asked to stop leaves its word there.

    One that is ending there is waited for, two minutes at most.

    Raises:
        InputError: the folder cannot be written.
        RunError: another process trains there.
        Interrupted: it was asked to stop.
    """
    from m2pt.training.signals import stopping_at_once

    with ExitStack() as stack:
        path = directory / TRAINING
        try:
            if is_main() and holder(path):
                with stopping_at_once():  # while it waits, the folder is another's
                    stack.enter_context(holding(path, patience=_ENDING_S))
            elif is_main():
                stack.enter_context(holding(path))
        except Held as error:
            raise RunError(
                f"{directory}: {error} trains here already; wait for it, or stop it and start this again. If "
                f"its machine is down, delete {path}."
            ) from None
        except OSError as error:
            raise InputError(
                f"{directory} cannot be written ({error}): make room or fix the permissions"
            ) from error
        stack.enter_context(stopping_at_once(directory))
        yield


def check_room(directory: Path, model: "nn.Module") -> None:
    """Make sure before a training that its checkpoints will fit on the disk.

    A checkpoint has the weights and, of what is trained, two moments; while one is replaced there are two of
    them, and the exported weights come on top.

    Raises:
        InputError: there is less room than that.
    """
    if not is_main():
        return
    sizes = [(value.numel() * value.element_size(), value.requires_grad) for value in model.parameters()]
    needed = sum(size * (7 if trained else 3) for size, trained in sizes)
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise InputError(
            f"{directory}: {free / 2**20:.0f} MiB are free, and training needs about "
            f"{needed / 2**20:.0f} MiB for its checkpoints; make room, or set results: to a folder "
            "on another disk."
        )


def tags(name: str, spec: Spec, seed: int) -> dict[str, str]:
    """Return what a person would filter runs by.

    `target` is the modality of what is trained, `setting` what it starts from: "pretrained" or "scratch", as
    the paper has it, or "pretraining". The table cells are not here: `m2pt.reporting.asked`.
    """
    experiment = spec.get("experiment", {})
    origin = experiment.get("transfer_from") or experiment
    pathway = origin.get("pathway") or {}
    start = origin.get("target_init")
    setting = "pretraining" if start is None else "scratch" if start == SCRATCH else "pretrained"
    return {
        "target": spec.get("architecture", {}).get("modality", ""),
        "setting": setting,
        "seed": str(seed),
        "task": experiment.get("task", spec.get("task", "")),
        "dataset": spec["dataset"]["name"],
        "subset": experiment.get("subset") or "",
        "mode": experiment.get("mode", ""),
        "target_init": start or name,
        "auxiliary": "+".join(pathway.get("auxiliaries", ())),
    }


def set_threads(plan: Plan) -> None:
    """Give torch the threads of the spec, whatever the machine has."""
    import torch

    torch.set_num_threads(plan.config.threads)


def device_name(plan: Plan) -> str:
    """Return what the training runs on, for people."""
    import torch

    if plan.config.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "cpu"


def metadata(spec: Spec, seed: int) -> dict[str, str]:
    """Return what a weight file says about itself: what it depends on and nothing else, so that the same
    training gives the same bytes. Commit and machine are in run.json beside it.
    """
    return {"spec": json.dumps(spec), "seed": str(seed)}
