"""What an optimizer step costs: of finished trainings, of measurements on some device, or counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2pt.atomic import write_json
from m2pt.errors import InputError
from m2pt.reporting.run_folder import find_runs
from m2pt.results import FINISHED, RUN, STEP_COSTS, Description, Finished, StepCosts, read
from m2pt.schema.experiments import digest
from m2pt.schema.plan import Spec

RESULTS, MEASURED, COUNTED = "results", "measured", "counted"

_SHAPING = (
    *("batch_size", "accumulation", "optimizer", "optimizer_args", "clip_grad"),
    *("repeat_step", "precision", "layer_decay"),
)
"""Settings of a training that its step's cost depends on; the others are numbers that change no work."""


@dataclass(frozen=True)
class StepCost:
    """Seconds of one device per optimizer step, which device that is and how it is known."""

    seconds: float
    device: str
    basis: str


Costs = Mapping[str, Iterable[StepCost]]
"""What is known, by `cost_key`."""


def cost_key(spec: Spec) -> str:
    """Digest of what decides the cost of a training's step: equal for trainings that do the same work.

    An auxiliary counts by the shapes of its blocks, not by its modality or weights, and a pathway by where it
    is, not by the order or the start of its scales.
    """
    experiment = spec.get("experiment") or {}
    pathway = experiment.get("pathway")
    recipe = {key: value for key, value in spec["recipe"].items() if key not in ("training", "keep_epochs")}
    work: dict[str, Any] = {
        "task": experiment.get("task", spec.get("task")),
        "mode": experiment.get("mode"),
        "layout": spec["dataset"]["layout"],
        "num_classes": spec["dataset"]["num_classes"],
        "architecture": spec["architecture"],
        "recipe": recipe,
        "training": {key: spec["recipe"]["training"].get(key) for key in _SHAPING},
        "threads": spec["threads"],
    }
    if pathway is not None:
        shapes = [spec["inputs"][name]["architecture"] for name in pathway["auxiliaries"]]
        work["pathway"] = [
            [shape.get("convnext") or shape["backbone"] for shape in shapes],
            *(pathway[key] for key in ("layers", "depth", "scale_trainable")),
        ]
    return digest(work)


def finished_costs(results: Path) -> dict[str, list[StepCost]]:
    """The mean cost of a step in the finished trainings below `results`, by key and device.

    Raises:
        InputError: what one of them has left is damaged.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for folder in find_runs(results):
        if not (folder.path / FINISHED).exists():
            continue
        finished, described = read(Finished, folder.path / FINISHED), folder.description()
        made = described.provenance
        if made.device is None:
            raise InputError(f"{folder.path / RUN}: does not say on which device; delete the folder.")
        total = sums.setdefault((_key_of(described, folder.path / RUN), made.device), [0.0, 0.0])
        # Several processes share the recipe's effective batch: a step takes each of them this long.
        total[0] += finished.seconds * made.processes
        total[1] += finished.step
    found: dict[str, list[StepCost]] = {}
    for (key, device), (seconds, steps) in sums.items():
        found.setdefault(key, []).append(StepCost(seconds / steps, device, RESULTS))
    return found


def measured_costs(results: Path) -> dict[str, list[StepCost]]:
    """What `m2pt plan --measure` has measured on this and other machines.

    Raises:
        InputError: the file that holds it is damaged.
    """
    return {
        key: [StepCost(entry.seconds, device, MEASURED) for device, entry in devices.items()]
        for key, devices in _read(results / STEP_COSTS).root.items()
    }


def keep_measurement(results: Path, key: str, device: str, entry: Mapping[str, Any]) -> None:
    """Add a measurement to the file; what stands there for other keys and devices stays."""
    path = results / STEP_COSTS
    known = _read(path).model_dump(exclude_unset=True)
    known.setdefault(key, {})[device] = dict(entry)
    write_json(path, known)


def best(known: Iterable[StepCost], device: str | None = None) -> StepCost | None:
    """The cost to plan with: of `device` if that is given, else of a GPU rather than of a CPU.

    Of several, that of a finished training rather than a measured one, which has no data loading in it.
    """
    fitting = [cost for cost in known if device in (None, cost.device)]
    return min(
        fitting, key=lambda cost: (cost.device == "cpu", cost.basis != RESULTS, cost.device), default=None
    )


def _key_of(described: Description, path: Path) -> str:
    try:
        return cost_key(described.spec)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{path}: its spec is not that of a training; delete the folder.") from None


def _read(path: Path) -> StepCosts:
    if not path.exists():
        return StepCosts({})
    try:
        return read(StepCosts, path)
    except InputError as error:
        raise InputError(f"{error}\n{path}: delete it and measure again with: m2pt plan --measure") from None
