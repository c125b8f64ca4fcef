"""`m2pt export`: copy finals to `checkpoints` for DVC, or write a merged model for another tool."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from m2pt.command_line import add_config_arguments, add_seed_argument, load_plan
from m2pt.errors import InputError, listed

if TYPE_CHECKING:
    from m2pt.plan.plan import Plan

FINALS = ("encoders", "models", "tables")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "what",
        metavar="encoders|models|tables|RUN",
        help="pretrained encoders; merged models and their evaluations; tables, figures and metrics.json: to "
        "checkpoints/, for DVC. Or, with --to, the name of a finetuned run",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove exported files that this config does not need"
    )
    model = parser.add_argument_group("to write the merged model of a run")
    model.add_argument(
        "--to",
        metavar="FORM",
        help="timm, transformers, onnx, or official: for the evaluation scripts of MAE, AudioMAE or VideoMAE",
    )
    model.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help="file to write; a folder for transformers"
    )
    add_seed_argument(parser)
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export everything that is not in `checkpoints` yet, which needs no torch, or one model.

    Raises:
        InputError: results are missing, damaged or stale; all of them are named, and nothing is exported. Or
            the model has no such form.
        RunError: what was written computes something else than the model.
    """
    plan, what = load_plan(arguments), arguments.what
    if arguments.to is not None:
        _export_model(plan, arguments)
        return
    if what not in FINALS:
        raise InputError(f"export {what}: give one of {listed(FINALS)}, or a run with --to and --output")
    if arguments.output is not None:
        raise InputError("--output belongs to a run with --to")
    from m2pt.ops.export import clean_exported, export

    folder = plan.checkpoints / what
    finals, written = export(plan, what)
    print(f"{folder}: {written} files written, {len(finals) - written} up to date")
    for path in clean_exported(folder, finals, prune=arguments.prune):
        print(f"{path}: removed")


def _export_model(plan: "Plan", arguments: argparse.Namespace) -> None:
    from m2pt import build, job_log
    from m2pt.checkpoints.exporting import FORMS, export_classifier
    from m2pt.inputs import load_input
    from m2pt.models.classifier import Classifier
    from m2pt.models.convnext import ConvNeXtClassifier
    from m2pt.models.exchange import load_exchange
    from m2pt.run_files import MERGED

    if arguments.to not in FORMS:
        raise InputError(f"--to {arguments.to}: give one of {listed(FORMS)}")
    if arguments.output is None or arguments.prune:
        raise InputError("export RUN --to FORM: give --output PATH, and no --prune")
    known = plan.runs.get(arguments.what)
    if known is not None and known.command != "finetune":
        raise InputError(f"run {arguments.what}, {known.experiment.task}: only classifiers have other forms")
    run = plan.run(arguments.what, "evaluate")
    source = plan.run_directory(run.name, arguments.seed) / MERGED
    if not source.exists():
        raise InputError(f"{source} does not exist yet; make it with: {plan.command(source)}")
    state = load_input(plan, source, plan.stored_spec(run, arguments.seed))
    model = build.target_model(run.spec, merged=True)
    if isinstance(model, ConvNeXtClassifier):
        raise InputError(f"run {run.name}: a ConvNeXt has no other form; {source} has timm's keys already")
    if not isinstance(model, Classifier):
        raise InputError(f"run {run.name}, {run.experiment.task}: only classifiers have other forms")
    load_exchange(model, state, source=str(source))
    job_log.begin(f"export {run.name}, seed {arguments.seed}", {"form": arguments.to, "weights": source})
    usage = export_classifier(model.eval(), arguments.to, arguments.output)
    print(f"load it with: {usage}")
    job_log.end(arguments.output)
