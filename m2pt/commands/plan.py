"""`m2pt plan [TABLE ...]`: trainings, GPU-hours, storage and critical path, without running anything."""

import argparse
import json
import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_plan_arguments, load_plan
from m2pt.commands.printing import print_all
from m2pt.errors import InputError
from m2pt.planning.counted import TFLOPS, TFLOPS_FLOAT32

if TYPE_CHECKING:
    from m2pt.planning.costs import StepCost
    from m2pt.planning.estimate import Work
    from m2pt.planning.jobs import Training
    from m2pt.schema.plan import Plan, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("result", nargs="*", help="a table, a figure or summary; default: all of the config")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--gpus-per-job", type=int, default=1, metavar="G", help="of each training; default: %(default)s"
    )
    parser.add_argument(
        "--remaining", action="store_true", help="leave out the trainings that have finished already"
    )
    parser.add_argument(
        "--items",
        action="append",
        default=[],
        metavar="DATASET=N",
        help="size of a training split (of a subset: DATASET/SUBSET=N)",
    )
    costs = parser.add_argument_group("what a step costs")
    costs.add_argument(
        "--measure",
        action="store_true",
        help="time a few steps of each kind of training here, with synthetic inputs, and keep the times",
    )
    costs.add_argument("--device", help="use the times of this device only, such as 'NVIDIA A100-SXM4-80GB'")
    costs.add_argument("--counted", action="store_true", help="use no times at all, but counted operations")
    costs.add_argument(
        "--tflops",
        type=float,
        default=TFLOPS,
        help="throughput to divide counted operations by; default: %(default)s, 40 %% of an A100's in bf16",
    )
    costs.add_argument(
        "--tflops-float32",
        type=float,
        default=TFLOPS_FLOAT32,
        help="the same for recipes in float32; default: %(default)s, 40 %% of an A100's",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        InputError: there is no such table or figure, or an argument makes no sense.
    """
    from m2pt.commands.rehearsed import body_bytes
    from m2pt.planning.estimate import estimate
    from m2pt.planning.items import parse_items
    from m2pt.planning.jobs import imported_encoders, trainings
    from m2pt.planning.report import Machine, Report

    _check(arguments)
    plan, given = load_plan(arguments), parse_items(arguments.items)
    names = list(dict.fromkeys(arguments.result)) or [*plan.tables, *plan.figures]
    runs = _runs(plan, names)
    every = trainings(plan, runs)
    work = _work(plan, every, arguments)
    estimates = estimate(plan, every, work, given)
    if arguments.remaining:
        estimates = [each for each in estimates if not each.done]
    imported = {
        name: seeds * body_bytes(plan.encoders[name]["architecture"])
        for name, seeds in imported_encoders(plan, runs).items()
    }
    machine = Machine(arguments.gpus, arguments.gpus_per_job)
    report = Report(plan.source, names, estimates, imported, machine, arguments.remaining)
    print_all(json.dumps(report.document(), indent=2) if arguments.json else report.text())


def _check(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.gpus_per_job <= arguments.gpus:
        raise InputError(
            f"--gpus {arguments.gpus} --gpus-per-job {arguments.gpus_per_job}: a training takes at least one "
            "GPU and at most all of them."
        )
    if not all(1e-6 <= value <= 1e9 for value in (arguments.tflops, arguments.tflops_float32)):
        raise InputError("--tflops and --tflops-float32 are throughputs: give numbers from 1e-6 to 1e9.")
    if arguments.counted and (arguments.measure or arguments.device):
        raise InputError("--counted uses no times: leave out --measure and --device, or leave it out.")


def _runs(plan: "Plan", names: list[str]) -> list["Run"]:
    """The runs behind the named results, each once.

    Raises:
        InputError: there is no such table or figure.
    """
    from m2pt.schema.behind import SUMMARY, runs_behind

    known = [*plan.tables, *plan.figures, *([SUMMARY] if plan.config.claims else [])]
    for name in names:
        if name not in known:
            raise InputError(f"{plan.source} has no table or figure {name!r}; it has {', '.join(known)}.")
    return list({run.name: run for name in names for run in runs_behind(plan, name)}.values())


def _work(plan: "Plan", every: list["Training"], arguments: argparse.Namespace) -> dict[str, "Work"]:
    """Cost and footprint of each kind of training, by `cost_key`."""
    import torch

    from m2pt.commands.rehearsed import operations, rehearse
    from m2pt.planning import costs
    from m2pt.planning.counted import Counter
    from m2pt.planning.estimate import Work
    from m2pt.planning.storage import footprint

    examples = {costs.cost_key(training.spec): training for training in reversed(every)}
    if arguments.measure:
        _measure(plan, examples)
    known: dict[str, list[StepCost]] = {}
    for source in () if arguments.counted else (costs.finished_costs, costs.measured_costs):
        for key, found in source(plan.results).items():
            known.setdefault(key, []).extend(found)
    counter = Counter(arguments.tflops, arguments.tflops_float32)
    work = {}
    for key, training in examples.items():
        rehearsal = rehearse(training, torch.device("meta"))
        optimizer = training.spec["recipe"]["training"]["optimizer"]
        copies = 1 + len(training.spec["recipe"].get("keep_epochs", ()))
        left = footprint(rehearsal.model, rehearsal.saved, optimizer, copies)
        cost = costs.best(known.get(key, ()), arguments.device)
        if cost is None:
            cost = counter.cost(training.spec, partial(operations, rehearsal))
        work[key] = Work(cost, left)
    return work


def _measure(plan: "Plan", examples: dict[str, "Training"]) -> None:
    """Time each kind of training that has not been timed on this device yet, and keep what comes out."""
    import torch

    from m2pt.commands.rehearsed import rehearse
    from m2pt.commands.trained import device_name, set_threads
    from m2pt.planning import costs
    from m2pt.planning.measure import step_seconds
    from m2pt.training.launch import resolve

    set_threads(plan)
    name, device = device_name(plan), torch.device(resolve(device=plan.config.device)[0])
    known = costs.measured_costs(plan.results)
    new = [key for key in examples if not any(cost.device == name for cost in known.get(key, ()))]
    for number, key in enumerate(new, start=1):
        training = examples[key]
        print(f"measuring on {name}, {number} of {len(new)}: {training.id}", file=sys.stderr, flush=True)
        try:
            made = rehearse(training, device)
            seconds = step_seconds(made.model, made.loss, made.batch, training.settings, plan.config.device)
        except torch.OutOfMemoryError:
            print(f"  not measured: it does not fit into the memory of {name}", file=sys.stderr)
            continue
        entry = {
            "seconds": seconds,
            "training": training.id,
            "torch": torch.__version__,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        costs.keep_measurement(plan.results, key, name, entry)
