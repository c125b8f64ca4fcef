"""`m2pt check`: build everything that the config asks for once, without training."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m2pt.commands.planned import add_plan_arguments, load_plan
from m2pt.errors import InputError, listed, short
from m2pt.schema.experiments import digest
from m2pt.schema.plan import Plan, Run, Spec

PARTS = ("architecture", "recipe", "dataset")
"""What of a spec decides whether its model, optimizer and views can be built."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="NAME", help="also the quick check of these datasets"
    )
    parser.add_argument(
        "--encoders",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also check the files that these encoders are taken from",
    )
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Build every model, optimizer, loss and augmentation of the plan; the weights take no memory.

    Raises:
        InputError: some of it does not fit together, or a dataset or a file has a fault; all are named.
    """
    plan = load_plan(arguments)
    _check_names(plan, arguments.datasets, arguments.encoders)
    subjects = list(_subjects(plan))
    given = [(f"dataset {name}", _check_dataset, (plan, name)) for name in arguments.datasets]
    given += [(f"encoder {name}", _check_file, (plan, name)) for name in arguments.encoders]
    faults = []
    for name, check, subject in (*subjects, *given):
        try:
            check(subject)
        except (InputError, ValueError) as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise InputError(f"{plan.source} asks for what cannot be done:\n  " + "\n  ".join(faults))
    print(f"{plan.source}: {len(subjects)} different trainings can be built; data: m2pt data check NAME.")


def _check_names(plan: Plan, datasets: list[str], encoders: list[str]) -> None:
    given = [name for name, each in plan.config.encoders.items() if each.file or each.source == "dvc"]
    for option, names, known, what in (
        ("--datasets", datasets, plan.config.datasets, "datasets"),
        ("--encoders", encoders, given, "encoders with file or source: dvc"),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"{option} {short(name)}: the {what} of {plan.source} are {listed(known)}.")


def _subjects(plan: Plan) -> Iterator[tuple[str, Any, Any]]:
    """A name, a check and what to check: once for all trainings that are built alike."""
    seen: set[str] = set()
    for name in plan.used_encoders:
        planned = plan.encoder(name)
        if "recipe" in planned.spec and "epoch" not in planned.spec and _is_new(seen, planned.spec):
            yield f"encoder {name}", _check_pretraining, planned.spec | {"execution": planned.execution}
    for run in plan.runs.values():
        pathway = run.spec["experiment"]["pathway"]
        auxiliaries = [run.spec["inputs"][name]["architecture"] for name in run.experiment.auxiliaries]
        if _is_new(seen, run.spec, pathway and {**pathway, "auxiliaries": auxiliaries}, run.experiment.mode):
            yield f"run {run.name}", _check_run, run


def _check_dataset(subject: tuple[Plan, str]) -> None:
    from m2pt.datasets.layouts import check

    plan, name = subject
    dataset = plan.config.datasets[name]
    faults = check(dataset.layout, plan.root(name), num_classes=dataset.classes, full=False)
    if faults:
        raise InputError("\n    ".join([f"{plan.root(name)} is not sound:", *faults]))


def _check_file(subject: tuple[Plan, str]) -> None:
    from m2pt.commands.pulled import check_checkpoint
    from m2pt.formats.weights import load_weights
    from m2pt.models.bodies import build_body
    from m2pt.models.exchange import load_exchange

    plan, name = subject
    if plan.config.encoders[name].source == "dvc":
        for seed in plan.used_pretrain_seeds:
            check_checkpoint(plan, name, seed)
        return
    spec = plan.encoders[name]
    state, _ = load_weights(Path(spec["file"]))
    load_exchange(build_body(spec["architecture"]), state, parts=spec["parts"], source=spec["file"])


def _is_new(seen: set[str], spec: Spec, *others: Any) -> bool:
    key = digest([[spec[part] for part in PARTS], *others])
    if key in seen:
        return False
    seen.add(key)
    return True


def _check_pretraining(spec: Spec) -> None:
    import torch

    from m2pt.commands import assembled

    with torch.device("meta"):
        model, _ = assembled.pretraining(spec)
    if spec["task"] == "masked_modelling":
        model.get_submodule("encoder.tokenizer").draw_mask(
            1, spec["recipe"]["mask_ratio"], torch.device("cpu")
        )  # type: ignore[operator]
    _check_training(model, spec, spec["execution"])


def _check_run(run: Run) -> None:
    import torch

    from m2pt.commands import assembled
    from m2pt.commands.finetune import freeze_all_but_head_and_scales

    assembled.target_task(run.spec)
    with torch.device("meta"):
        if run.experiment.is_transfer:
            body = assembled.dense_backbone(run.spec)
            assembled.attached_like(body, run)
            model = assembled.dense_model(run.spec, body)
        else:
            model = assembled.target_model(run.spec)
            assembled.attached_like(model, run)
            if run.experiment.mode == "fix":
                freeze_all_but_head_and_scales(model)
    _check_training(model, run.spec, run.execution)


def _check_training(model: Any, spec: Spec, execution: Spec) -> None:
    from m2pt.training.optimizer import create_optimizer
    from m2pt.training.settings import TrainingSettings

    settings = TrainingSettings(**spec["recipe"]["training"], **execution)
    create_optimizer(model, settings)
    mix = spec["recipe"].get("mix") or {}
    samples = spec["recipe"]["augmentation"].get("samples") or 1
    if (mix.get("mixup") or mix.get("cutmix")) and settings.batch_size * samples % 2:
        raise InputError(f"training.batch_size = {settings.batch_size}: mixup and cutmix need an even number")
    _check_augmentation(
        spec["dataset"]["layout"], spec["architecture"]["input"], spec["recipe"]["augmentation"]
    )


def _check_augmentation(layout: str, input: Spec, augmentation: Spec) -> None:
    """Check what depends on the input's size or on timm's words; the rest was checked where it was read."""
    from m2pt.datasets import audio_augmentation, imagenet, video_views

    if layout == "audioset":
        audio_augmentation.Augmentation(**augmentation).check_fit(input["frames"], input["mel_bins"])
    try:
        if layout == "imagenet":
            imagenet.training_view(input["image_size"], imagenet.Augmentation(**augmentation))
        elif layout == "kinetics":
            sizes = (input["frames"], input["stride"], input["image_size"])
            video_views.make_view(*sizes, augmentation=augmentation)
    except (AssertionError, ValueError, KeyError) as error:
        words = augmentation.get("auto_augment")
        raise InputError(f"augmentation.auto_augment = {words!r}: timm does not know it ({error})") from None
