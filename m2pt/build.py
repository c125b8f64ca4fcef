"""Models built from specs: pretrainings, targets, the weights that they start from, their pathways."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from m2pt import catalog
from m2pt.config.architecture import Backbone, ConvNeXt
from m2pt.config.experiment import PathwaySpec
from m2pt.datasets.base import seed_generators
from m2pt.errors import InputError
from m2pt.inputs import load_input
from m2pt.models.bodies import build_body, build_body_classifier
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.transformer import Encoder, build_encoder
from m2pt.pathway import PathwayError, attach, is_scale
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.plan.specs import PretrainingSpec, RunSpec
from m2pt.tasks.pretraining import classifier_encoder, initial_losses, reconstruction_loss
from m2pt.tasks.target import StatesInitialLosses, TargetTask

_NOT_OF_THE_MODEL = ("training", "keep_epochs", "augmentation")
"""Keys of a masked pretraining's recipe; the others are settings of its model."""

Blocks = Iterable[nn.Module]
AttachTo = Callable[[Any], None]
Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]


def pretraining(spec: PretrainingSpec) -> tuple[nn.Module, Loss]:
    """Return the model of a pretraining, at random weights, and its loss.

    Raises:
        InputError: the settings of the recipe and of the architecture are inconsistent.
    """
    recipe, architecture = spec.recipe.model_dump(mode="json"), spec.architecture.stored
    if spec.objective == "supervised":
        num_classes = spec.dataset.num_classes
        model = build_body_classifier(architecture, num_classes=num_classes, **recipe["model"])
        return model, _task(_task_name(spec), num_classes, recipe).loss

    modality = str(spec.architecture.modality)
    build_model = catalog.load(catalog.modality(modality).masked.model, f"modality {modality}: masked.model")
    settings = {key: value for key, value in recipe.items() if key not in _NOT_OF_THE_MODEL}
    return build_model(**architecture, **settings), reconstruction_loss


def encoder_state(spec: PretrainingSpec, model: Any) -> dict[str, Tensor]:
    """Return what a file stores of a pretraining's model: the encoder, in the exchange format."""
    if spec.objective == "supervised":
        return classifier_encoder(model)
    return to_exchange(model.encoder.state_dict())


def target_task(spec: RunSpec) -> TargetTask:
    """Return the task of a run: loss, metrics and model."""
    return _task(spec.experiment.task, spec.dataset.num_classes, spec.recipe.model_dump(mode="json"))


def _task(name: str, num_classes: int, recipe: Mapping[str, Any]) -> Any:
    task = catalog.load(catalog.task(name).task, f"task {name}: task")
    if not hasattr(task, "from_recipe"):
        raise InputError(f"task {name}: task: {task.__name__} lacks from_recipe")
    with torch.device("cpu"):  # also while a model is built on the meta device
        return task.from_recipe(num_classes, recipe)


def expected_losses(spec: PretrainingSpec | RunSpec, model: nn.Module, batch: Any) -> Mapping[str, float]:
    """Return the losses that a training starts at, by name, as far as its task says so; `model` is its own.

    See `m2pt.tasks.target.StatesInitialLosses`.
    """
    if isinstance(spec, PretrainingSpec) and spec.objective == "masked":
        return initial_losses(model)
    num_classes, recipe = spec.dataset.num_classes, spec.recipe.model_dump(mode="json")
    task = _task(_task_name(spec), num_classes, recipe)
    return task.initial_losses(num_classes, recipe, batch) if isinstance(task, StatesInitialLosses) else {}


def _task_name(spec: PretrainingSpec | RunSpec) -> str:
    """Return the name of the task of a run or of a supervised pretraining."""
    if isinstance(spec, RunSpec):
        return spec.experiment.task
    return str(catalog.pretraining_task(catalog.layout(spec.dataset.layout).labels))


def target_model(spec: RunSpec, *, merged: bool = False) -> Any:
    """Return the plain model of a finetuned run, at random weights.

    Args:
        spec: the run's spec.
        merged: return the model for the weights that `m2pt merge` writes, with batch norms folded.
    """
    settings = spec.recipe.model_dump(mode="json")["model"]
    if merged and settings.get("head") == "batchnorm_linear":
        settings["head"] = "linear"
    task: Any = target_task(spec)
    return task.build_model(spec.architecture.stored, num_classes=spec.dataset.num_classes, **settings)


def dense_model(spec: RunSpec, body: Encoder) -> Any:
    """Return the model of a transfer around its backbone."""
    task: Any = target_task(spec)
    return task.build_model(
        body,
        num_classes=spec.dataset.num_classes,
        input=spec.architecture.input,
        freeze_backbone=spec.experiment.mode == "fix",
        **spec.recipe.model_dump(mode="json")["model"],
    )


def dense_backbone(spec: RunSpec) -> Encoder:
    """Return the backbone of a transfer, randomly initialized."""
    return build_encoder(**spec.architecture.stored, drop_path=getattr(spec.recipe, "drop_path", 0.0))


def start_from_inputs(model: Any, plan: Plan, run: Run, seed: int) -> None:
    """Load what the target starts from, if anything, and attach the auxiliaries.

    Raises:
        InputError: a file is missing, damaged, stale, or does not fit the model.
    """
    weights = plan.input_weights(run.name, seed)
    for role in ("target_init", "transfer_from"):
        if role in weights:
            expected = run.spec.inputs[role].stored
            if run.experiment.transfer_from is not None:
                expected = plan.stored_spec(plan.run(run.experiment.transfer_from.name), seed)
            state = load_input(plan, weights[role], expected)
            load_exchange(model, state, parts=model.pretrained_parts, source=str(weights[role]))
    auxiliaries = {}
    for name in run.experiment.auxiliaries:
        path, spec = weights[f"auxiliary.{name}"], run.spec.inputs[name]
        auxiliary = build_body(spec.architecture.stored)
        state = load_input(plan, path, spec.stored)
        load_exchange(auxiliary, state, parts=("blocks",), source=str(path))
        auxiliaries[name] = auxiliary.blocks
    attach_auxiliaries(model, run, auxiliaries)


def attach_placeholders(model: Any, run: Run) -> None:
    """Attach blocks of the right shapes, for weights that are loaded afterwards, or to see whether they fit.

    Raises:
        InputError: the blocks do not fit.
    """
    specs = {name: run.spec.inputs[name] for name in run.experiment.auxiliaries}
    blocks = {name: build_body(spec.architecture.stored).blocks for name, spec in specs.items()}
    attach_auxiliaries(model, run, blocks)


def attach_auxiliaries(model: Any, run: Run, auxiliaries: Mapping[str, Blocks]) -> None:
    """Attach as the run's pathway says; nothing if it has none.

    Matrices of modalities with other numbers of heads (`num_heads`) are paired as they are, as M2PT does with
    the 6 heads of its point cloud model and the 12 of others.

    Raises:
        InputError: the blocks do not fit.
    """
    pathway = run.experiment.pathway
    if pathway is None:
        return
    chosen = chosen_blocks(pathway, len(model.blocks))
    settings = pathway.model_dump(exclude={"auxiliaries", "depth"})
    sources = [run.spec, *(run.spec.inputs[name] for name in auxiliaries)]
    if _differ_in_heads_alone([source.architecture.sizes for source in sources]):
        settings["unequal"] = "slice"  # of matrices of equal size, the whole
    try:
        attach(
            [model.blocks[index] for index in chosen],
            {name: [list(blocks)[index] for index in chosen] for name, blocks in auxiliaries.items()},
            **settings,
        )
    except PathwayError as error:
        raise InputError(f"run {run.name}: {error}") from None


def _differ_in_heads_alone(bodies: Sequence[Backbone | ConvNeXt]) -> bool:
    if not all(isinstance(body, Backbone) for body in bodies):
        return False
    sizes = [body.model_dump() for body in bodies]
    heads = {each.pop("num_heads") for each in sizes}
    return len(heads) > 1 and all(each == sizes[0] for each in sizes)


def chosen_blocks(pathway: PathwaySpec, depth: int) -> range:
    """Numbers of the blocks that get pathways: all, or the first, middle or last third."""
    bounds = [0, round(depth / 3), round(2 * depth / 3), depth]
    third = {"first_third": 0, "middle_third": 1, "last_third": 2}.get(pathway.depth)
    return range(depth) if third is None else range(bounds[third], bounds[third + 1])


def run_model(run: Run, attach_to: AttachTo, *, seed: int | None = None) -> nn.Module:
    """Return the model of a run as it is trained.

    Args:
        run: a run of any kind.
        attach_to: loads what the model starts from and attaches the auxiliaries: see `start_from_inputs` and
            `attach_placeholders`.
        seed: seeds the generators before the initial weights are drawn, and again after the auxiliaries have
            been attached: what is drawn afterwards, such as a dense task's heads, is the same without them.

    Raises:
        InputError: weights are missing or stale, or something does not fit.
    """
    reseed = (lambda: None) if seed is None else partial(seed_generators, seed)

    def attach_and_reseed(model: Any) -> None:
        attach_to(model)
        reseed()

    build_model = catalog.load(run.kind.model, f"kind {run.command}: model")
    reseed()
    return build_model(run, attach_and_reseed)


def finetune_model(run: Run, attach_to: AttachTo) -> nn.Module:
    """Return a target with its pathways; see `run_model`."""
    model = target_model(run.spec)
    attach_to(model)
    if run.experiment.mode == "fix":
        freeze_all_but_head_and_scales(model)
    return model


def transfer_model(run: Run, attach_to: AttachTo) -> nn.Module:
    """Return the model of a dense task around a backbone with its pathways; see `run_model`."""
    backbone = dense_backbone(run.spec)
    attach_to(backbone)
    scales = [value for name, value in backbone.named_parameters() if is_scale(name) and value.requires_grad]
    model = dense_model(run.spec, backbone)
    if run.experiment.mode == "fix":  # a frozen backbone is one whose matrices stay
        for scale in scales:
            scale.requires_grad_(True)
    return model


def freeze_all_but_head_and_scales(model: nn.Module) -> None:
    """Leave exactly the classifier and the cross-modal scales trainable (the paper's "fix" setting)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_((is_scale(name) and parameter.requires_grad) or name.startswith("head."))
