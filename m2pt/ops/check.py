"""Build everything that a config asks for once, without training, to find what does not fit."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from m2pt import catalog
from m2pt.catalog.loading import place_of
from m2pt.command_line import CommandModule
from m2pt.config.config import settings_class
from m2pt.config.experiment import digest
from m2pt.errors import InputError, joined, listed, short
from m2pt.ops.dataset_sizes import windows
from m2pt.ops.datasets import check_sizes
from m2pt.ops.step_costs import kind_key
from m2pt.ops.workflow_files import workflow_faults
from m2pt.plan.jobs import used_encoders
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.plan.sources import check_made
from m2pt.plan.specs import DatasetSpec, EncoderSpec, PretrainingSpec, RunSpec
from m2pt.run_files import EVALUATION

PARTS = ("architecture", "architectures", "recipe", "dataset")
"""Parts of a spec that decide whether its model, optimizer and views can be built."""

_READS_VALUES = re.compile(r"\bmeta\b|data-independent", re.IGNORECASE)
"""In torch's errors where a model or a loss reads values, which tensors on the meta device do not have."""

_ONE_VALUE = "Expected more than 1 value per channel"
"""Begins torch's error where a batch norm has a single value of each channel."""

Check = Callable[[], object]
Encoders = Mapping[str, EncoderSpec]


def check_plan(plan: Plan, datasets: Sequence[str] = (), encoders: Sequence[str] = ()) -> int:
    """Build every model, optimizer and augmentation of a plan, and pass a batch through each kind of model.

    The weights take no memory, and the passes compute nothing but shapes.

    Args:
        plan: plan of a config.
        datasets: names of datasets that are also checked on disk, quickly.
        encoders: names of encoders whose files or DVC checkpoints are also checked.

    Returns:
        The number of different trainings.

    Raises:
        InputError: settings are inconsistent, an entry of the catalog is incomplete, the workflow in the
            current folder lacks a rule or resources, or a dataset or a file has faults; all are named.
    """
    _check_names(plan, datasets, encoders)
    faults = list(workflow_faults(_kinds(plan), Path.cwd()))
    used = {name: plan.encoders[name] for name in used_encoders(plan)}
    if of_entries := list(_entry_faults(plan, used)):
        raise InputError("\n".join([*of_entries, *faults]))
    trainings = list(_trainings(plan, used))
    given: list[tuple[str, Check]] = [
        (f"dataset {name}", partial(_check_dataset, plan, name)) for name in datasets
    ]
    given += [(f"encoder {name}", partial(_check_file, plan, name)) for name in encoders]
    others = [name for name in used if name not in encoders]
    given += [(f"encoder {name}", partial(_check_imported, plan, name)) for name in others]
    for name, check in (*trainings, *_miniatures(plan, used), *given):
        try:
            check()
        except (InputError, ValueError) as error:
            faults.append(f"{name}: {error}")
        except Exception as error:  # of a module that does not keep to its interface
            faults.append(f"{name}: {place_of(error)}")
    if faults:
        raise InputError(f"{plan.source} cannot be run:\n  " + "\n  ".join(faults))
    return len(trainings)


def _check_names(plan: Plan, datasets: Sequence[str], encoders: Sequence[str]) -> None:
    faults = []
    given = [name for name, each in plan.config.encoders.items() if each.file or each.source == "dvc"]
    for option, names, known, what in (
        ("--datasets", datasets, plan.config.datasets, "datasets"),
        ("--encoders", encoders, given, "encoders with file or source: dvc"),
    ):
        for name in names:
            if name not in known:
                faults.append(f"{option} {short(name)}: the {what} of {plan.source} are {listed(known)}.")
    if faults:
        raise joined(map(InputError, faults))


def _kinds(plan: Plan) -> list[str]:
    return sorted({run.command for run in plan.runs.values()})


def _used_datasets(plan: Plan, encoders: Encoders) -> list[DatasetSpec]:
    datasets = [spec.dataset for spec in encoders.values() if isinstance(spec, PretrainingSpec)]
    return datasets + [each for run in plan.runs.values() for each in run.spec.datasets]


def _miniatures(plan: Plan, encoders: Encoders) -> Iterator[tuple[str, Check]]:
    """Yield a check for each miniature."""
    for name, each in {each.name: each for each in _used_datasets(plan, encoders)}.items():
        if each.settings.miniature is not None:
            yield f"dataset {name}", partial(check_sizes, each.layout, each.settings.miniature.sizes)


def _trainings(plan: Plan, encoders: Encoders) -> Iterator[tuple[str, Check]]:
    """Yield a check once for all trainings that are built alike; one of each kind also passes a batch."""
    seen: set[str] = set()
    for name, spec in encoders.items():
        if isinstance(spec, PretrainingSpec) and spec.epoch is None and _is_new(seen, spec):
            yield f"encoder {name}", partial(_check_pretraining, spec, passes=_is_first(seen, spec))
    for run in plan.runs.values():
        auxiliaries = [run.spec.inputs[name].architecture.stored for name in run.experiment.auxiliaries]
        pathway = run.experiment.pathway and run.experiment.pathway.model_dump(mode="json")
        pathway = pathway and {**pathway, "auxiliaries": auxiliaries}
        if _is_new(seen, run.spec, pathway, run.experiment.task, run.experiment.mode):
            yield f"run {run.name}", partial(_check_run, run, passes=_is_first(seen, run.spec))


def _check_dataset(plan: Plan, name: str) -> None:
    from m2pt.datasets.corrupt import separate
    from m2pt.datasets.layouts import check

    check_made(plan, name)
    dataset = plan.config.datasets[name]
    faults = check(dataset.layout, plan.root(name), num_classes=dataset.classes, full=False)
    if dataset.skips_corrupt:
        faults, _ = separate(faults)
    if faults:
        raise InputError("\n    ".join([f"{plan.root(name)} is not sound:", *faults]))


def _check_file(plan: Plan, name: str) -> None:
    from m2pt.ops.import_encoder import read_encoder_file
    from m2pt.plan.dvc import check_checkpoint

    if plan.config.encoders[name].source == "dvc":
        for seed in plan.used_pretrain_seeds:
            check_checkpoint(plan, name, seed)
        return
    _, report = read_encoder_file(plan, name)
    if "norm_eps" in report:
        print(f"encoder {name}: norm_eps {report['norm_eps']}")


def _check_imported(plan: Plan, name: str) -> None:
    from m2pt.ops.import_encoder import check_imported

    check_imported(plan, name)


def _is_new(seen: set[str], spec: RunSpec | PretrainingSpec, *others: Any) -> bool:
    return _add(seen, digest([[spec.stored.get(part) for part in PARTS], *others]))


def _is_first(seen: set[str], spec: RunSpec | PretrainingSpec) -> bool:
    """Return whether no training of this kind was seen; pathways, which are merged, do not count."""
    experiment = spec.stored.get("experiment") or {}
    return _add(seen, kind_key({**spec.stored, "experiment": {**experiment, "pathway": None}}))


def _add(seen: set[str], key: str) -> bool:
    is_new = key not in seen
    seen.add(key)
    return is_new


def _check_pretraining(spec: PretrainingSpec, *, passes: bool) -> None:
    import torch

    from m2pt import build

    with torch.device("meta"):
        model, loss = build.pretraining(spec)
    if spec.objective == "masked":
        recipe: Any = spec.recipe
        tokenizer: Any = model.get_submodule("encoder.tokenizer")
        tokenizer.draw_mask(1, recipe.mask_ratio, torch.device("cpu"))
    _check_training(model, spec)
    if passes:
        _check_pass(model, loss, spec)


def _check_run(run: Run, *, passes: bool) -> None:
    import torch

    from m2pt import build

    loss = build.target_task(run.spec).loss
    with torch.device("meta"):
        model = build.run_model(run, partial(_start_from_placeholders, run=run))
    _check_training(model, run.spec)
    if passes:
        _check_pass(model, loss, run.spec)


def _start_from_placeholders(model: Any, run: Run) -> None:
    """Attach placeholders as `build.start_from_inputs` attaches weights, if the model has what that needs."""
    from m2pt import build

    starts = not {"target_init", "transfer_from"}.isdisjoint(run.spec.inputs)
    needed = {"pretrained_parts": starts, "blocks": run.experiment.pathway is not None}
    for name, is_needed in needed.items():
        if is_needed and not hasattr(model, name):
            raise InputError(f"{type(model).__name__}, which starts from an encoder, has no {name}")
    if "target_init" in run.spec.inputs:
        needs_norm, recipe = "norm" in model.pretrained_parts, run.spec.recipe
        if needs_norm != recipe.starts_with_norm:
            raise InputError(
                f"{type(recipe).__name__}.starts_with_norm is {recipe.starts_with_norm}, but norm is "
                f"{'' if needs_norm else 'not '}among the pretrained_parts of {type(model).__name__}"
            )
    build.attach_placeholders(model, run)


def _check_pass(model: Any, loss: Any, spec: RunSpec | PretrainingSpec) -> None:
    """Check that a model takes the inputs of its dataset, by a pass that computes nothing."""
    import torch
    from torchvision.models.detection import MaskRCNN

    from m2pt.ops import flops
    from m2pt.ops.synthetic_training import synthetic_batch

    batch = synthetic_batch(spec, torch.device("meta"))
    if any(each.device.type != "meta" for each in _tensors(batch)):
        raise InputError(
            f"layout {spec.dataset.layout}: reader: synthetic_batch must make tensors on `device`"
        )
    model = flops.without_pathways(model.to("meta").train())
    try:
        if isinstance(model, MaskRCNN):
            flops.count_detector(model, batch)
        else:
            _check_loss(loss(model, batch))
    except (RuntimeError, ValueError, TypeError) as error:
        if _READS_VALUES.search(str(error)):  # which does not show whether it fits
            return
        if type(error) not in (RuntimeError, ValueError):
            raise
        if str(error).startswith(_ONE_VALUE):
            raise InputError(
                f"training.batch_size = {spec.recipe.training.batch_size}: the model has batch norms, which "
                "cannot normalize a single sample; give 2 or more"
            ) from None
        raise InputError(
            f"the model does not take the inputs of {spec.dataset.name}: {place_of(error)}"
        ) from None


def _tensors(batch: Any) -> Iterator[Any]:
    """Yield the tensors in a batch of nested mappings, lists and tuples."""
    if hasattr(batch, "device"):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for each in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(each)


def _check_loss(returned: Any) -> None:
    import torch

    value, scalars = returned if isinstance(returned, tuple) and len(returned) == 2 else (None, None)
    is_loss = isinstance(value, torch.Tensor) and value.ndim == 0 and value.requires_grad
    if not (is_loss and isinstance(scalars, Mapping)):
        got = f"a tensor {tuple(returned.shape)}" if isinstance(returned, torch.Tensor) else repr(returned)
        raise InputError(
            f"loss must return a scalar with a gradient, and a dict of scalars; got {short(got)}"
        )


def _check_training(model: Any, spec: RunSpec | PretrainingSpec) -> None:
    from m2pt.datasets.layouts import layout_module
    from m2pt.training.launch import checkpointed_parts, convolutions
    from m2pt.training.optimizer import create_optimizer

    recipe = spec.recipe
    create_optimizer(model, recipe.training)
    if recipe.training.activation_checkpointing:
        checkpointed_parts(model)
    if recipe.training.channels_last:
        convolutions(model)
    windows(spec, 0)
    batch_size = recipe.training.batch_size
    if recipe.mixes_pairs and batch_size * recipe.samples_per_item % 2:
        raise InputError(f"training.batch_size = {batch_size}: mixup and cutmix need an even number")
    check = getattr(layout_module(spec.dataset.layout), "check_augmentation", None)
    if check is not None:
        check(recipe.augmentation, spec.reader_input())


def _entry_faults(plan: Plan, encoders: Encoders) -> Iterator[str]:
    """Yield what is missing in the plan's entries of the catalog and in the modules that they name."""
    from m2pt import build
    from m2pt.datasets.layouts import LayoutModule, MiniatureModule, layout_module, miniature_module
    from m2pt.modalities.tokenizer import Tokenizer
    from m2pt.models.transformer import tokenizer_class

    tasks = {run.experiment.task: run.spec for run in plan.runs.values()}
    architectures = [spec.architecture for spec in encoders.values()]
    for run in plan.runs.values():
        architectures += run.spec.architectures.values()
    for name in sorted({str(each.modality) for each in architectures if each.has_tokenizer}):
        yield from _lacking(f"modality {name}: tokenizer", Tokenizer, partial(tokenizer_class, name))
        yield from _other_norms(name)
    datasets = _used_datasets(plan, encoders)
    for name in sorted({dataset.layout for dataset in datasets}):
        yield from _lacking(f"layout {name}: reader", LayoutModule, partial(layout_module, name))
    for name in sorted({dataset.layout for dataset in datasets if dataset.settings.miniature is not None}):
        yield from _lacking(f"layout {name}: miniature", MiniatureModule, partial(miniature_module, name))
    for name in _kinds(plan):
        yield from _kind_errors(name)
    for name, spec in tasks.items():
        kind = catalog.task(name).kind
        interface = catalog.load(catalog.kind(kind).interface, f"kind {kind}: interface")
        yield from _lacking(f"task {name}: task", interface, partial(build.target_task, spec))


def _other_norms(name: str) -> Iterator[str]:
    """Yield a sentence if the settings of a modality have another default than its tokenizer."""
    from m2pt.models.transformer import tokenizer_class

    field = settings_class(name).model_fields.get("norm_eps")
    with suppress(InputError):  # which is named already
        own = getattr(tokenizer_class(name), "norm_eps", None)  # if it lacks it, that is named already
        if field is not None and own is not None and field.default != own:
            yield (
                f"modality {name}: the default of norm_eps is {field.default} in "
                f"{catalog.modality(name).settings}, but {own} in its tokenizer; make them equal"
            )


def _kind_errors(name: str) -> Iterator[str]:
    """Yield what is missing in the entry of a kind of run and in the modules of its commands."""
    kind = catalog.kind(name)
    if kind.files[-1] != EVALUATION:
        yield f"kind {name}: the last file of outputs and followed_by must be {EVALUATION}"
    for command in (name, *(each.command for each in kind.followed_by)):
        entry = f"kind {name}: module of m2pt {command}"
        module = partial(catalog.load, catalog.command_module(command), entry)
        yield from _lacking(entry, CommandModule, module)


def _lacking(entry: str, interface: Any, load: Callable[[], Any]) -> Iterator[str]:
    """Yield a sentence if what an entry names cannot be loaded or lacks members of the interface."""
    try:
        found = load()
    except InputError as error:
        yield str(error)
        return
    except Exception as error:  # of a module that does not keep to its interface
        yield f"{entry}: {place_of(error)}"
        return
    if not isinstance(interface, type):
        yield f"{entry}: the interface of its kind must be a class, got {interface!r}"
        return
    ours = [base for base in interface.__mro__ if base.__module__.startswith("m2pt.")]
    required = {name: member for base in ours for name, member in vars(base).items() if name[0] != "_"}
    lacking = [name for name in sorted(required) if not _offers(found, name, required[name])]
    if lacking:
        yield f"{entry}: {getattr(found, '__name__', type(found).__name__)} lacks {listed(lacking)}"


def _offers(found: Any, name: str, required: Any) -> bool:
    """Return whether an object has a member, and can call it if the interface's is a function."""
    member = getattr(found, name, None)
    if getattr(member, "__isabstractmethod__", False):
        return False
    return callable(member) if inspect.isroutine(required) else hasattr(found, name)
