"""Report the cost of a plan, as text and as JSON."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from m2pt import catalog
from m2pt.ops.estimate import Estimate
from m2pt.ops.schedule import Job, Path, critical_path, makespan
from m2pt.ops.step_costs import COUNTED, MEASURED, REHEARSED, RESULTS
from m2pt.ops.storage import format_bytes

_BASES = {
    RESULTS: "finished trainings on {device}",
    MEASURED: "measured on {device}",
    REHEARSED: "rehearsed on {device}",
    COUNTED: "counted, at {device}",
    None: "UNKNOWN",
}
"""Texts of the column "step cost from"."""

_LEFT_OUT = "evaluating, merging and importing (a few passes over a validation split, no optimizer step)"


@dataclass(frozen=True)
class Machine:
    """A machine with `gpus` devices; each training uses `per_job` of them."""

    gpus: int
    per_job: int

    @property
    def slots(self) -> int:
        """Number of concurrent trainings."""
        return self.gpus // self.per_job


@dataclass(frozen=True)
class Report:
    """Everything that `m2pt plan` prints.

    `imported` are the bytes of encoders that are imported rather than trained, by name; `missing` are
    sentences on cells that are left empty or not drawn.
    """

    source: str
    names: Sequence[str]
    estimates: Sequence[Estimate]
    imported: dict[str, int]
    machine: Machine
    remaining_only: bool
    missing: Sequence[str] = ()

    @property
    def hours(self) -> float:
        """Total device-hours of the trainings with known hours."""
        return sum(each.hours or 0.0 for each in self.estimates)

    @property
    def unknown(self) -> list[Estimate]:
        """Trainings with unknown hours."""
        return [each for each in self.estimates if each.hours is None]

    @property
    def on_cpu(self) -> bool:
        """Whether all known hours are of a CPU."""
        devices = {each.cost.device for each in self.estimates if each.cost and each.hours is not None}
        return devices == {"cpu"}

    def schedule(self) -> tuple[Path, float]:
        """Return the critical path, and the hours until everything has finished on the machine.

        Trainings of unknown hours count as taking none; several devices are assumed to scale perfectly.
        """
        ids = {each.training.id for each in self.estimates}
        jobs = [
            Job(
                each.training.id,
                (each.hours or 0.0) / self.machine.per_job,
                tuple(need for need in each.training.needs if need in ids),
            )
            for each in self.estimates
        ]
        return critical_path(jobs), makespan(jobs, self.machine.slots)

    def text(self) -> str:
        """Return the human-readable report."""
        parts = [self._stages(), self._missing(), self._assumptions(), self._storage(), self._time()]
        return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))

    def _stages(self) -> Iterator[str]:
        what = "unfinished " if self.remaining_only else ""
        seeds = len({each.training.seed for each in self.estimates if each.training.run is not None})
        names = ", ".join(self.names) if len(self.names) < 4 else f"{len(self.names)} tables and figures"
        yield (
            f"{self.source}: {len(self.estimates)} {what}trainings for {names} "
            f"({seeds} seed{'' if seeds == 1 else 's'})"
        )
        heading = "CPU-hours" if self.on_cpu else "GPU-hours"
        rows = [("stage", "", "trainings", "done", "steps", "s/step", heading, "step cost from")]
        for (kind, stage, basis), group in self._groups().items():
            hours = [each.hours for each in group]
            total = "?" if None in hours else _hours(sum(hour or 0.0 for hour in hours))
            steps = _range((each.steps for each in group), ",d")
            cost = _range((each.cost.seconds if each.cost else None for each in group), ",.3g")
            done = str(sum(each.done for each in group))
            rows.append((kind, stage, str(len(group)), done, steps, cost, total, basis))
        done = str(sum(each.done for each in self.estimates))
        rows.append(("total", "", str(len(self.estimates)), done, "", "", _hours(self.hours), ""))
        yield from _aligned(rows)

    def _groups(self) -> dict[tuple[str, str, str], list[Estimate]]:
        groups: dict[tuple[str, str, str], list[Estimate]] = {}
        order = ["pretrain", *catalog.KINDS]
        for each in sorted(self.estimates, key=lambda each: order.index(each.training.kind)):
            groups.setdefault((each.training.kind, each.training.stage, _basis(each)), []).append(each)
        return groups

    def _missing(self) -> Iterator[str]:
        sizes = sorted({each.training.spec.dataset.key for each in self.unknown if each.steps is None})
        if self.unknown:
            yield f"NOT IN THE TOTAL: {len(self.unknown)} trainings of unknown length"
        for name in sizes:
            yield f"  {name}: size unknown, neither on disk nor published; pass --items {name}=N"
        if self.missing:
            yield "NOT PLANNED"
            yield from (f"  {sentence}" for sentence in self.missing)

    def _assumptions(self) -> Iterator[str]:
        bases = list(dict.fromkeys(_basis(each) for each in self.estimates if each.cost))
        yield "assumptions"
        hours = "CPU-hours" if self.on_cpu else "GPU-hours"
        yield f"  {hours} = optimizer steps x seconds per step of one device; a step is one effective batch"
        if len(bases) > 1:
            yield f"  the total mixes hours from different sources: {'; '.join(bases)}"
        if any(each.cost and each.cost.basis == COUNTED for each in self.estimates):
            yield (
                "  counted: FLOPs of matrix products, convolutions and attention, forward and backward, "
                "divided by an assumed throughput"
            )
        if any(each.cost and each.cost.basis != RESULTS for each in self.estimates):
            yield "  data loading keeps up with the device: only steps of finished trainings include it"
        if any(each.cost and each.cost.basis == REHEARSED for each in self.estimates):
            yield "  rehearsed: extrapolated from a few samples, which keep a device less busy"
        yield f"  left out: {_LEFT_OUT}"
        yield from self._sizes()

    def _sizes(self) -> Iterator[str]:
        """Yield the sizes of the training splits, all subsets of a dataset on one line."""
        sizes: dict[tuple[str, str], dict[str, int]] = {}
        for each in self.estimates:
            if each.items is not None and each.training.settings.epochs is not None:
                key = each.training.spec.dataset.key
                sizes.setdefault((key.partition("/")[0], each.items.origin), {})[key] = each.items.count
        for (name, origin), counts in sizes.items():
            subsets = f" in each of {len(counts)} subsets" if len(counts) > 1 else ""
            yield f"  {name}: {_range(counts.values(), ',d')} training items{subsets} ({origin})"

    def _storage(self) -> Iterator[str]:
        kept, running = self.storage()
        yield "storage (datasets, logs and metrics excluded)"
        for name, size in kept.items():
            yield f"  {name:<22}{format_bytes(size):>12}"
        yield f"  {'total':<22}{format_bytes(sum(kept.values())):>12}"
        if running:
            most = max(self.estimates, key=lambda each: each.footprint.running)
            yield (
                f"  resume checkpoints of running trainings: at most {format_bytes(running[0])} each "
                f"({most.training.id}), {format_bytes(sum(running))} for {len(running)} at a time"
            )

    def storage(self) -> tuple[dict[str, int], list[int]]:
        """Return the bytes of weight files, by kind, and of the largest checkpoints that exist at once."""
        kept = {"encoders, imported": sum(self.imported.values())} if self.imported else {}
        for each in self.estimates:
            for name, size in each.footprint.kept.items():
                run = each.training.run
                key = f"{'encoders' if run is None else run.kind.label}, {name}"
                kept[key] = kept.get(key, 0) + size
        running = sorted((each.footprint.running for each in self.estimates), reverse=True)
        return kept, running[: self.machine.slots]

    def _time(self) -> Iterator[str]:
        path, hours = self.schedule()
        machine = self.machine
        devices = "CPUs like the one timed" if self.on_cpu else "GPUs"
        yield f"time on {machine.gpus} {devices}, {machine.per_job} per training"
        at_a_time = f"{machine.slots} training{'' if machine.slots == 1 else 's'} at a time"
        yield (
            f"  {at_a_time}  {_duration(hours)} "
            "(list scheduling: the longest training that can start goes first)"
        )
        yield f"  {'unlimited':<{len(at_a_time)}}  {_duration(path.hours)}, the critical path:"
        yield from (f"    {id}" for id in path.chain)
        if machine.per_job > 1:
            yield (
                f"  assumed: {machine.per_job} GPUs share a training's effective batch and are "
                f"{machine.per_job} times as fast as one"
            )
        if self.unknown:
            yield f"  the {len(self.unknown)} trainings of unknown length count as taking no time"

    def document(self) -> dict[str, Any]:
        """Return the report as JSON: sizes in bytes, times in hours unless the key says otherwise."""
        path, hours = self.schedule()
        kept, running = self.storage()
        return {
            "config": self.source,
            "results": list(self.names),
            "trainings": [
                {
                    "id": each.training.id,
                    "kind": each.training.kind,
                    "stage": each.training.stage,
                    "name": each.training.name,
                    "seed": each.training.seed,
                    "needs": list(each.training.needs),
                    "done": each.done,
                    "items": each.items.count if each.items else None,
                    "items_from": each.items.origin if each.items else None,
                    "steps": each.steps,
                    "seconds_per_step": each.cost.seconds if each.cost else None,
                    "device": each.cost.device if each.cost else None,
                    "step_cost_from": each.cost.basis if each.cost else None,
                    "gpu_hours": each.hours,
                    "bytes": dict(each.footprint.kept),
                    "bytes_while_running": each.footprint.running,
                }
                for each in self.estimates
            ],
            "gpu_hours": self.hours,
            "not_counted": [each.training.id for each in self.unknown],
            "not_planned": list(self.missing),
            "bytes": kept,
            "bytes_while_running": sum(running),
            "gpus": self.machine.gpus,
            "gpus_per_job": self.machine.per_job,
            "hours": hours,
            "critical_path": {"hours": path.hours, "trainings": list(path.chain)},
        }


def _basis(each: Estimate) -> str:
    known = each.cost if each.hours is not None else None
    return _BASES[known.basis if known else None].format(device=known.device if known else "")


def _range(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "?"
    least, most = format(min(known), form), format(max(known), form)
    return least if least == most else f"{least} to {most}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows with aligned columns, those of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if 2 <= number <= 6 else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _hours(number: float) -> str:
    """Return hours with two significant digits, from ten on with one decimal."""
    return f"{number:,.1f}" if number >= 10 else f"{number:.2g}"


def _duration(hours: float) -> str:
    """Return hours in minutes, hours or days."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
