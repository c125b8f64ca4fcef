"""Seconds of an optimizer step: of finished trainings, measured or rehearsed on a device, or counted."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2pt.atomic import write_json
from m2pt.config.experiment import digest
from m2pt.errors import InputError
from m2pt.locks import LockedError, locked
from m2pt.plan.specs import Stored
from m2pt.results import Description, Finished, StepCosts, read
from m2pt.run_files import FINISHED, RUN, STEP_COSTS
from m2pt.tracking.local_run import find_runs

if TYPE_CHECKING:
    from m2pt.plan.jobs import Training

RESULTS, MEASURED, REHEARSED, COUNTED = "results", "measured", "rehearsed", "counted"
"""Origin of a cost: finished trainings, `m2pt plan --measure`, `m2pt rehearse --save`, or `FlopEstimator`."""

_PREFERRED = (RESULTS, MEASURED, REHEARSED)
"""From the best: with data loading; of the recipe's batch; extrapolated from fewer samples."""

_PATIENCE_S = 60.0
"""Seconds to wait for another process that saves."""

TFLOPS, TFLOPS_FLOAT32 = 125.0, 7.8
"""40 % of the peak in an A100's data sheet: 312 TFLOP/s in bf16 on tensor cores, 19.5 in float32."""

_COST_SETTINGS = (
    *("batch_size", "accumulation", "optimizer", "optimizer_args", "clip_grad"),
    *("repeat_step", "precision", "layer_decay"),
)
"""Training settings that the cost of a step depends on; the others do not change the work."""


@dataclass(frozen=True)
class StepCost:
    """Seconds per optimizer step on one device, that device, and the origin of the number."""

    seconds: float
    device: str
    basis: str


def cost_key(spec: Stored) -> str:
    """Return a digest of everything the cost of a training's step depends on.

    For an auxiliary, the shapes of its blocks count, not its modality or weights; for a pathway, its
    layers, not the order of its blocks or the initial value of its scales; for a balancing method, all
    settings but its strength.
    """
    experiment = spec.get("experiment") or {}
    pathway = experiment.get("pathway")
    recipe = {key: value for key, value in spec["recipe"].items() if key not in ("training", "keep_epochs")}
    if methods := recipe.get("methods"):
        recipe["methods"] = {name: {**settings, "alpha": None} for name, settings in methods.items()}
    training = spec["recipe"]["training"]
    work: dict[str, Any] = {
        "task": experiment.get("task", spec.get("task")),
        "mode": experiment.get("mode"),
        "layout": spec["dataset"]["layout"],
        "num_classes": spec["dataset"]["num_classes"],
        "architecture": _architecture(spec["architecture"])
        if "architecture" in spec
        else {name: _architecture(each) for name, each in spec["architectures"].items()},
        "recipe": recipe,
        "training": {key: training.get(key) for key in _COST_SETTINGS},
        "threads": spec["threads"],
    }
    if training.get("ema") is not None:
        work["averaged"] = True
    for setting in ("compile", "tf32", "channels_last"):
        if training.get(setting):
            work[setting] = True
    if pathway is not None:
        shapes = [_architecture(spec["inputs"][name]["architecture"]) for name in pathway["auxiliaries"]]
        work["pathway"] = [
            [shape.get("convnext") or shape["backbone"] for shape in shapes],
            *(pathway[key] for key in ("layers", "depth", "scale_trainable")),
        ]
    return digest(work)


def _architecture(stored: Stored) -> Stored:
    """Return what the cost of an architecture depends on."""
    if "backbone" not in stored:
        return stored
    return {
        **stored,
        "backbone": {key: value for key, value in stored["backbone"].items() if key != "norm_eps"},
    }


def kind_key(spec: Stored) -> str:
    """Return the `cost_key` of a training; subsets of a dataset, which differ in their classes, have one."""
    if "subset" not in spec["dataset"]:
        return cost_key(spec)
    return cost_key({**spec, "dataset": {**spec["dataset"], "num_classes": "of its subset"}})


def finished_costs(results: Path) -> dict[str, list[StepCost]]:
    """Return the mean cost of a step in the finished trainings below `results`, by `cost_key`.

    Raises:
        InputError: a file of a training is damaged.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for folder in find_runs(results):
        if not (folder.path / FINISHED).exists():
            continue
        finished, description = read(Finished, folder.path / FINISHED), folder.description()
        provenance = description.provenance
        if provenance.device is None:
            raise InputError(f"{folder.path / RUN}: key 'provenance.device' is missing; delete the folder.")
        total = sums.setdefault((_stored_cost_key(description, folder.path / RUN), provenance.device), [0, 0])
        # Processes share the recipe's effective batch, so each of them is busy for the whole step.
        total[0] += finished.seconds * provenance.processes
        total[1] += finished.step
    found: dict[str, list[StepCost]] = {}
    for (key, device), (seconds, steps) in sums.items():
        found.setdefault(key, []).append(StepCost(seconds / steps, device, RESULTS))
    return found


def measured_costs(results: Path) -> dict[str, list[StepCost]]:
    """Return the costs measured or rehearsed on this and other machines, by `cost_key`.

    Raises:
        InputError: step_costs.json is damaged.
    """
    return {
        key: [
            StepCost(entry.seconds, device, REHEARSED if entry.samples else MEASURED)
            for device, entry in devices.items()
        ]
        for key, devices in _read(results / STEP_COSTS).root.items()
    }


def save_measurements(results: Path, entries: Mapping[str, Mapping[str, Any]], device: str) -> None:
    """Add measurements on a device to step_costs.json, by their `cost_key`.

    One of the same key and device is replaced, unless it is the better one: of more samples, or of the
    recipe's batch in place of a rehearsal's.

    Raises:
        InputError: the file is damaged, or another process keeps it locked.
    """
    path = results / STEP_COSTS
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE_S))
        except LockedError as error:
            raise InputError(f"{path}: {error} is writing it; wait for that process to end.") from None
        known = _read(path).model_dump(exclude_unset=True)
        for key, entry in entries.items():
            devices = known.setdefault(key, {})
            if device not in devices or _samples(entry) >= _samples(devices[device]):
                devices[device] = dict(entry)
        write_json(path, known)


def _samples(entry: Mapping[str, Any]) -> float:
    """Return how many samples a measurement is of; of the recipe's batch, more than any rehearsal."""
    return entry.get("samples") or math.inf


def best(costs: Iterable[StepCost], device: str | None = None) -> StepCost | None:
    """Return the cost to plan with: on `device` if that is given, else on a GPU rather than on a CPU.

    Costs of finished trainings are preferred to measured ones, and these to rehearsed ones.
    """
    matching = [cost for cost in costs if device in (None, cost.device)]
    return min(
        matching,
        key=lambda cost: (cost.device == "cpu", _PREFERRED.index(cost.basis), cost.device),
        default=None,
    )


class FlopEstimator:
    """Estimates step costs as FLOPs over an assumed throughput, and counts each kind of model only once.

    FLOPs are the same with and without pathways as long as all weights are trained, and affine in the number
    of classes, since the last layer is linear: two counts determine all others.

    Args:
        tflops: throughput in mixed precision, in 10^12 operations per second.
        tflops_float32: throughput of recipes with precision "no".
    """

    def __init__(self, tflops: float = TFLOPS, tflops_float32: float = TFLOPS_FLOAT32) -> None:
        self._tflops, self._tflops_float32 = tflops, tflops_float32
        self._counts: dict[str, dict[int, int]] = {}

    def cost(self, training: "Training", count: Callable[[], int]) -> StepCost:
        """Return the cost of a step; `count` is called for the FLOPs of a micro-batch if they are unknown."""
        settings = training.settings
        flops = self.flops(training.stored, count) * settings.accumulation
        tflops = self._tflops_float32 if settings.precision == "no" else self._tflops
        return StepCost(flops / (tflops * 1e12), f"{tflops:g} TFLOP/s", COUNTED)

    def flops(self, spec: Stored, count: Callable[[], int]) -> int:
        """Return the FLOPs of a micro-batch."""
        counts = self._counts.setdefault(_key_without_classes(spec), {})
        classes = spec["dataset"]["num_classes"]
        if classes not in counts:
            if len(counts) < 2:
                counts[classes] = count()
            else:
                (first, at_first), (second, at_second) = list(counts.items())[:2]
                per_class = (at_second - at_first) // (second - first)
                counts[classes] = at_first + per_class * (classes - first)
        return counts[classes]


def _key_without_classes(spec: Stored) -> str:
    """Return the `cost_key` without number of classes and, if all weights are trained, without pathway."""
    experiment = spec.get("experiment") or {}
    if experiment.get("mode") == "tune":
        spec = {**spec, "experiment": {**experiment, "pathway": None}}
    return cost_key({**spec, "dataset": {**spec["dataset"], "num_classes": 0}})


def _stored_cost_key(description: Description, path: Path) -> str:
    try:
        return cost_key(description.spec)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{path}: its spec does not describe a training; delete the folder.") from None


def _read(path: Path) -> StepCosts:
    if not path.exists():
        return StepCosts({})
    try:
        return read(StepCosts, path)
    except InputError as error:
        raise InputError(f"{error}\n{path}: delete it and measure again with: m2pt plan --measure") from None
