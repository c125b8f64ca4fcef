"""The catalog: modalities, dataset layouts, kinds of run, methods, tasks. There is no other list of them.

A new one is a module and an entry here. An entry holds plain values and import paths, which `load` imports
when they are needed: this module imports no torch, and neither do the settings classes that entries name, so
that reading a config stays cheap. `m2pt check` names what a module or an entry lacks.

Configs, tables and specs use the names of entries: renaming one changes the digests of its runs.
"""

from collections.abc import Mapping
from typing import TypeVar

from m2pt.catalog.entries import (
    MASKED_LANGUAGE_MODELING,
    Balancing,
    FollowUp,
    Kind,
    Layout,
    Modality,
    Plane,
    Published,
    Task,
)
from m2pt.catalog.layouts import LAYOUTS
from m2pt.catalog.loading import check_name, load, load_class, naming, unknown
from m2pt.errors import InputError
from m2pt.run_files import ATTACHED, EVALUATION, MERGED, MODEL

__all__ = [
    "EVALUATE",
    "KINDS",
    "LAYOUTS",
    "MERGE",
    "METHODS",
    "MODALITIES",
    "TASKS",
    "Balancing",
    "FollowUp",
    "Kind",
    "Layout",
    "Modality",
    "Plane",
    "Published",
    "Task",
    "augmentation",
    "command_module",
    "commands",
    "kind",
    "layout",
    "load",
    "load_class",
    "method",
    "modality",
    "naming",
    "pretraining_task",
    "task",
    "unknown",
]

Entry = TypeVar("Entry", Kind, Modality, Layout, Task, Balancing)

MODALITIES: dict[str, Modality] = {
    "image": Modality(
        settings="m2pt.config.architecture:Image",
        tokenizer="m2pt.modalities.image:ImageTokenizer",
        plane=Plane(channels=3, sides=("image_size",)),
        color="#0072B2",
    ),
    "video": Modality(
        settings="m2pt.config.architecture:Video",
        tokenizer="m2pt.modalities.video:VideoTokenizer",
        color="#D55E00",
    ),
    "audio": Modality(
        settings="m2pt.config.architecture:Audio",
        tokenizer="m2pt.modalities.audio:AudioTokenizer",
        plane=Plane(channels=1, sides=("frames", "mel_bins")),
        color="#CC79A7",
    ),
    "pointcloud": Modality(
        settings="m2pt.config.architecture:Pointcloud",
        tokenizer="m2pt.modalities.pointcloud:PointCloudTokenizer",
        mixup=False,
        color="#009E73",
    ),
    "text": Modality(
        settings="m2pt.config.architecture:Text",
        tokenizer="m2pt.modalities.text:TextTokenizer",
        masked=MASKED_LANGUAGE_MODELING,
        mixup=False,
        color="#E69F00",
    ),
}

MERGE = FollowUp(
    command="merge",
    help="merge the pathways into plain weights",
    output=MERGED,
    input=ATTACHED,
    launchable=False,
)
EVALUATE = FollowUp(
    command="evaluate",
    help="evaluate the merged model and check that it equals the unmerged one",
    output=EVALUATION,
)

KINDS: dict[str, Kind] = {
    "finetune": Kind(  # a target with its pathways
        label="finetuned",
        help="attach the auxiliaries to a target and finetune it",
        outputs=(ATTACHED,),
        followed_by=(MERGE, EVALUATE),
        column=("mode",),
        experiments="m2pt.plan.experiments:finetune_experiments",
        recipe="m2pt.plan.experiments:finetune_recipe",
        model="m2pt.build:finetune_model",
        interface="m2pt.tasks.target:FinetuneTask",
    ),
    "transfer": Kind(  # a dense task on an encoder that was pretrained, or finetuned on another dataset
        label="transferred",
        help="train a detector or segmenter on a merged backbone and evaluate it",
        outputs=(MERGED, EVALUATION),
        column=("transfer_from",),
        experiments="m2pt.plan.experiments:transfer_experiments",
        recipe="m2pt.plan.experiments:transfer_recipe",
        model="m2pt.build:transfer_model",
        interface="m2pt.tasks.target:TransferTask",
    ),
    "multimodal": Kind(  # one classifier on all modalities of a dataset, trained with one of METHODS
        label="jointly trained",
        help="train a classifier on several modalities with a balancing method and evaluate it",
        outputs=(MODEL, EVALUATION),
        several_modalities=True,
        column=("fusion",),
        settings="m2pt.config.multimodal:Fusions",
        experiments="m2pt.plan.experiments:multimodal_experiments",
        recipe="m2pt.plan.experiments:multimodal_recipe",
        model="m2pt.multimodal:multimodal_model",
        interface="m2pt.tasks.multimodal_classification:JointTask",
    ),
}

METHODS: dict[str, Balancing] = {
    "joint": Balancing(settings="m2pt.config.multimodal:Joint", build="m2pt.multimodal:joint"),
    "ogm": Balancing(settings="m2pt.config.multimodal:OGM", build="m2pt.multimodal:ogm", has_alpha=True),
    "ogm_ge": Balancing(
        settings="m2pt.config.multimodal:OGM", build="m2pt.multimodal:ogm_ge", has_alpha=True
    ),
    "mslr": Balancing(settings="m2pt.config.multimodal:MSLR", build="m2pt.multimodal:mslr"),
    "mses": Balancing(settings="m2pt.config.multimodal:MSES", build="m2pt.multimodal:mses"),
    "gradient_blending": Balancing(
        settings="m2pt.config.multimodal:GradientBlending", build="m2pt.multimodal:gradient_blending"
    ),
    "agm": Balancing(settings="m2pt.config.multimodal:AGM", build="m2pt.multimodal:agm", has_alpha=True),
}

TASKS: dict[str, Task] = {
    "classification": Task(
        kind="finetune",
        labels="class",
        metrics=("top1", "top5"),
        task="m2pt.tasks.classification:Classification",
        recipe="m2pt.config.recipes:Classification",
        pretrains=True,
    ),
    "multilabel_classification": Task(
        kind="finetune",
        labels="classes",
        metrics=("map", "top1"),
        task="m2pt.tasks.multilabel_classification:MultilabelClassification",
        recipe="m2pt.config.recipes:MultilabelClassification",
        pretrains=True,
    ),
    "part_segmentation": Task(
        kind="finetune",
        labels="parts",
        metrics=("miou_class", "miou_instance", "point_accuracy"),
        task="m2pt.tasks.part_segmentation:PartSegmentation",
        recipe="m2pt.config.recipes:PartSegmentation",
    ),
    "point_segmentation": Task(
        kind="finetune",
        labels="points",
        metrics=("miou", "shape_miou", "point_accuracy"),
        task="m2pt.tasks.point_segmentation:PointSegmentation",
        recipe="m2pt.config.recipes:PointSegmentation",
    ),
    "detection": Task(
        kind="transfer",
        labels="instances",
        metrics=("ap_box", "ap50_box", "ap_mask", "ap50_mask"),
        task="m2pt.tasks.detection:Detection",
        recipe="m2pt.config.recipes:Detection",
    ),
    "semantic_segmentation": Task(
        kind="transfer",
        labels="pixels",
        metrics=("miou", "pixel_accuracy"),
        task="m2pt.tasks.semantic_segmentation:SemanticSegmentation",
        recipe="m2pt.config.recipes:SemanticSegmentation",
    ),
    "multimodal_classification": Task(
        kind="multimodal",
        labels="class",
        # of all modalities on the test split; the same of the selected epoch on the validation split; of the
        # mono-modal responses on the test split
        metrics=("top1", "val_top1", *(f"top1_{name}" for name in MODALITIES)),
        task="m2pt.tasks.multimodal_classification:MultimodalClassification",
        recipe="m2pt.config.multimodal:MultimodalClassification",
    ),
}


def modality(name: str) -> Modality:
    """Return the entry of a modality.

    Raises:
        InputError: there is none of this name.
    """
    return _entry("modality", MODALITIES, name)


def layout(name: str) -> Layout:
    """Return the entry of a dataset layout.

    Raises:
        InputError: there is none of this name.
    """
    return _entry("dataset layout", LAYOUTS, name)


def task(name: str) -> Task:
    """Return the entry of a task.

    Raises:
        InputError: there is none of this name.
    """
    return _entry("task", TASKS, name)


def method(name: str) -> Balancing:
    """Return the entry of a method of joint training.

    Raises:
        InputError: there is none of this name.
    """
    return _entry("method", METHODS, name)


def kind(name: str) -> Kind:
    """Return the entry of a kind of run.

    Raises:
        InputError: there is none of this name.
    """
    return _entry("kind of run", KINDS, name)


def _entry(kind: str, entries: Mapping[str, Entry], name: str) -> Entry:
    if name not in entries:
        raise InputError(unknown(kind, name, entries))
    check_name(kind, name)
    entry, form = entries[name], _FORMS[kind]
    if not isinstance(entry, form):
        raise InputError(f"{kind} {name}: the entry must be a {form.__name__}, got {type(entry).__name__}")
    return entry


_FORMS = {
    "modality": Modality,
    "dataset layout": Layout,
    "task": Task,
    "kind of run": Kind,
    "method": Balancing,
}


def commands() -> dict[str, Kind | FollowUp]:
    """Return the entries of all commands that make the files of runs, by the command's name.

    Raises:
        InputError: an entry or a name has another form, or two entries have a command of the same name.
    """
    found: dict[str, Kind | FollowUp] = {}
    for name in KINDS:
        entry = kind(name)
        commands: list[tuple[str, Kind | FollowUp]] = [(name, entry)]
        commands += [(each.command, each) for each in entry.followed_by]
        for command, each in commands:
            check_name(f"kind {name}: command", command)
            if found.setdefault(command, each) is not each:
                raise InputError(f"kind {name}: another entry has the command {command!r}; rename one")
    return found


def command_module(name: str) -> str:
    """Return the path of the module of a command that makes files of runs."""
    return commands()[name].module or f"m2pt.commands.{name}"


def augmentation(layout_name: str, *, pretraining: bool) -> str:
    """Return the path of the class of a recipe's `augmentation` for datasets of a layout."""
    entry = layout(layout_name)
    return (pretraining and entry.pretraining_augmentation) or entry.augmentation


def pretraining_task(labels: str | None) -> str | None:
    """Return the name of the task whose classifier may be pretrained on labels of this kind, if any."""
    return next((name for name, each in TASKS.items() if each.pretrains and each.labels == labels), None)
