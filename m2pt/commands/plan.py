"""`m2pt plan [TABLE ...]`: trainings, GPU-hours, storage and critical path, without running anything."""

import argparse
import json

from m2pt.command_line import add_config_arguments, load_plan, print_all
from m2pt.errors import InputError
from m2pt.ops.step_costs import TFLOPS, TFLOPS_FLOAT32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("result", nargs="*", help="a table, a figure or summary; default: all of the config")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--gpus-per-job", type=int, default=1, metavar="G", help="per training; default: %(default)s"
    )
    parser.add_argument("--remaining", action="store_true", help="leave out finished trainings")
    parser.add_argument(
        "--items",
        action="append",
        default=[],
        metavar="DATASET=N",
        help="size of a training split (of a subset: DATASET/SUBSET=N)",
    )
    costs = parser.add_argument_group("cost of a step")
    costs.add_argument(
        "--measure",
        action="store_true",
        help="time a few steps of each kind of training here, with synthetic inputs, and save the times",
    )
    costs.add_argument("--device", help="use only times of this device, for example 'NVIDIA A100-SXM4-80GB'")
    costs.add_argument("--counted", action="store_true", help="use no times, only counted FLOPs")
    costs.add_argument(
        "--tflops",
        type=float,
        default=TFLOPS,
        help="assumed throughput; default: %(default)s, 40 %% of an A100's bf16 peak",
    )
    costs.add_argument(
        "--tflops-float32",
        type=float,
        default=TFLOPS_FLOAT32,
        help="the same for recipes in float32; default: %(default)s, 40 %% of an A100's peak",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        InputError: the config has no such table or figure, or an argument is out of range.
    """
    _check(arguments)
    from m2pt.ops.dataset_sizes import parse_items
    from m2pt.ops.estimate import estimate, imported_bytes, one_of_each_kind, runs_of_results
    from m2pt.ops.measure import measure_missing
    from m2pt.ops.plan_report import Machine, Report
    from m2pt.ops.step_costs import FlopEstimator
    from m2pt.plan.claims import missing_cells
    from m2pt.plan.jobs import trainings

    plan, sizes = load_plan(arguments), parse_items(arguments.items)
    names = list(dict.fromkeys(arguments.result)) or [*plan.tables, *plan.figures]
    runs = runs_of_results(plan, names)
    every = trainings(plan, runs)
    if arguments.measure:
        measure_missing(plan, one_of_each_kind(every))
    estimator = FlopEstimator(arguments.tflops, arguments.tflops_float32)
    estimates = estimate(plan, every, sizes, estimator, timed=not arguments.counted, device=arguments.device)
    if arguments.remaining:
        estimates = [each for each in estimates if not each.done]
    machine = Machine(arguments.gpus, arguments.gpus_per_job)
    imported = imported_bytes(plan, runs)
    missing = missing_cells(plan, arguments.result or None)
    report = Report(plan.source, names, estimates, imported, machine, arguments.remaining, missing)
    print_all(json.dumps(report.document(), indent=2) if arguments.json else report.text())


def _check(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.gpus_per_job <= arguments.gpus:
        raise InputError(
            f"--gpus {arguments.gpus} --gpus-per-job {arguments.gpus_per_job}: give each training at least "
            "one GPU and at most all of them."
        )
    if not all(1e-6 <= value <= 1e9 for value in (arguments.tflops, arguments.tflops_float32)):
        raise InputError("--tflops and --tflops-float32 must be numbers from 1e-6 to 1e9.")
    if arguments.counted and (arguments.measure or arguments.device):
        raise InputError("--counted ignores times: it cannot be combined with --measure or --device.")
