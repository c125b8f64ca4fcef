"""Models put together as a spec says: pretrainings, targets, their start, their pathways."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from m2pt.commands.trained import load_input
from m2pt.errors import InputError, RunError
from m2pt.models.bodies import build_body, build_body_classifier
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.transformer import Encoder, build_encoder
from m2pt.pathway import PathwayError, attach
from m2pt.schema.experiments import PathwaySpec
from m2pt.schema.plan import Plan, Run, Spec
from m2pt.tasks.target import TargetTask

ROUNDING = 1e-4
"""Largest relative difference that float32 rounding explains: none with the same kernels."""

Blocks = Iterable[nn.Module]
Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]


def pretraining(spec: Spec) -> tuple[nn.Module, Loss]:
    """Return the model of a pretraining, at random weights, and its loss.

    Raises:
        InputError: settings of the recipe and of the architecture that do not fit each other.
    """
    recipe, architecture = spec["recipe"], spec["architecture"]
    if spec["task"] == "supervised":
        from m2pt.tasks.supervised_pretraining import supervised_loss

        num_classes = spec["dataset"]["num_classes"]
        model = build_body_classifier(architecture, num_classes=num_classes, **recipe["model"])
        return model, supervised_loss(architecture["modality"], num_classes, recipe.get("mix"))
    from m2pt.tasks.masked_autoencoding import reconstruction_loss

    settings = {key: recipe[key] for key in ("mask_ratio", "drop_path")}
    if architecture["modality"] == "text":
        from m2pt.models.masked_language_model import build_masked_language_model

        return build_masked_language_model(**architecture, **settings), reconstruction_loss
    from m2pt.models.masked_autoencoder import build_masked_autoencoder

    return build_masked_autoencoder(
        **architecture, **settings, decoder=recipe["decoder"]
    ), reconstruction_loss


def encoder_state(spec: Spec, model: Any) -> dict[str, Tensor]:
    """Return what remains of a pretraining's model: the encoder, in the form in which files carry it."""
    if spec["task"] == "supervised":
        from m2pt.tasks import supervised_pretraining

        return supervised_pretraining.encoder_state(model)
    return to_exchange(model.encoder.state_dict())


def target_model(spec: Spec, *, merged: bool = False) -> Any:
    """Return the plain model of a finetuned run, at random weights.

    `merged`: as `m2pt merge` writes it, with a linear head where a batch norm was folded into it.
    """
    task, num_classes = spec["experiment"]["task"], spec["dataset"]["num_classes"]
    settings = dict(spec["recipe"]["model"])
    if task in ("part_segmentation", "point_segmentation"):
        from m2pt.datasets.shapenetpart import NUM_CATEGORIES
        from m2pt.models.part_segmentation import build_part_segmenter

        categories = NUM_CATEGORIES if task == "part_segmentation" else 0
        return build_part_segmenter(
            **spec["architecture"], **settings, num_classes=num_classes, num_categories=categories
        )
    if merged and settings["head"] == "batchnorm_linear":
        settings["head"] = "linear"
    return build_body_classifier(spec["architecture"], num_classes=num_classes, **settings)


def target_task(spec: Spec) -> TargetTask:
    """Return loss and metric of a run."""
    task, num_classes = spec["experiment"]["task"], spec["dataset"]["num_classes"]
    match task, spec["architecture"]["modality"]:
        case "classification", "video":
            from m2pt.tasks.video_classification import VideoClassification

            return VideoClassification(num_classes, **spec["recipe"]["mix"])
        case "classification", _:
            from m2pt.tasks.classification import Classification

            return Classification(num_classes, **spec["recipe"]["mix"])
        case "multilabel_classification", _:
            from m2pt.tasks.multilabel_classification import MultilabelClassification

            return MultilabelClassification(num_classes)
        case "part_segmentation", _:
            from m2pt.tasks.part_segmentation import PartSegmentation

            return PartSegmentation()
        case "point_segmentation", _:
            from m2pt.tasks.point_segmentation import PointSegmentation

            return PointSegmentation()
        case "detection", _:
            from m2pt.tasks.detection import Detection

            return Detection()
    from m2pt.tasks.semantic_segmentation import SemanticSegmentation

    return SemanticSegmentation()


def dense_model(spec: Spec, body: Encoder) -> Any:
    """Return the detector or segmenter of a transfer around its backbone."""
    settings = {
        **spec["recipe"]["model"],
        "num_classes": spec["dataset"]["num_classes"],
        "image_size": spec["architecture"]["input"]["image_size"],
        "freeze_backbone": spec["experiment"]["mode"] == "fix",
    }
    if spec["experiment"]["task"] == "detection":
        from m2pt.models.mask_rcnn import build_mask_rcnn

        return build_mask_rcnn(body, **settings)
    from m2pt.models.upernet import build_upernet

    return build_upernet(body, **settings)


def dense_backbone(spec: Spec) -> Encoder:
    """Return the encoder that a transfer's model stands on, at random weights."""
    return build_encoder(**spec["architecture"], drop_path=spec["recipe"]["drop_path"])


def start_from_inputs(model: Any, plan: Plan, run: Run, seed: int) -> None:
    """Load what the target starts from, if anything, and attach the auxiliaries.

    Raises:
        InputError: a file is missing, damaged, stale, or does not fit the model.
    """
    weights = plan.input_weights(run.name, seed)
    for role in ("target_init", "transfer_from"):
        if role in weights:
            spec = run.spec["inputs"][role]
            if run.experiment.transfer_from is not None:
                spec = plan.seeded_spec(plan.run(run.experiment.transfer_from.name), seed)
            state = load_input(plan, weights[role], spec)
            load_exchange(model, state, parts=model.pretrained_parts, source=str(weights[role]))
    auxiliaries = {}
    for name in run.experiment.auxiliaries:
        path = weights[f"auxiliary.{name}"]
        auxiliary = build_body(run.spec["inputs"][name]["architecture"])
        state = load_input(plan, path, run.spec["inputs"][name])
        load_exchange(auxiliary, state, parts=("blocks",), source=str(path))
        auxiliaries[name] = auxiliary.blocks
    attach_auxiliaries(model, run, auxiliaries)


def attached_like(model: Any, run: Run) -> None:
    """Attach blocks of the right shapes, for weights that are loaded afterwards, or to see whether they fit.

    Raises:
        InputError: the blocks do not fit.
    """
    architectures = {name: run.spec["inputs"][name]["architecture"] for name in run.experiment.auxiliaries}
    blocks = {name: build_body(architecture).blocks for name, architecture in architectures.items()}
    attach_auxiliaries(model, run, blocks)


def attach_auxiliaries(model: Any, run: Run, auxiliaries: Mapping[str, Blocks]) -> None:
    """Attach as the run's pathway says; nothing if it has none.

    Raises:
        InputError: the blocks do not fit.
    """
    pathway = run.experiment.pathway
    if pathway is None:
        return
    chosen = chosen_blocks(pathway, len(model.blocks))
    settings = pathway.model_dump(exclude={"auxiliaries", "depth"})
    try:
        attach(
            [model.blocks[index] for index in chosen],
            {name: [list(blocks)[index] for index in chosen] for name, blocks in auxiliaries.items()},
            **settings,
        )
    except PathwayError as error:
        raise InputError(f"run {run.name}: {error}") from None


def chosen_blocks(pathway: PathwaySpec, depth: int) -> range:
    """Numbers of the blocks that get pathways: all, or the first, middle or last third."""
    bounds = [0, round(depth / 3), round(2 * depth / 3), depth]
    third = {"first_third": 0, "middle_third": 1, "last_third": 2}.get(pathway.depth)
    return range(depth) if third is None else range(bounds[third], bounds[third + 1])


def check_difference(difference: float, what: str) -> None:
    """Make sure that a merged model is the same function as the unmerged one.

    Raises:
        RunError: they differ beyond float32 rounding, or the difference is not a number.
    """
    if not difference <= ROUNDING:
        raise RunError(
            f"{what}: merging changed the predictions by {difference:.2g} of the largest, "
            f"more than float32 rounding ({ROUNDING})"
        )
