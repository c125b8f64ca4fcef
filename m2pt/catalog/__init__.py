"""The catalogue: modalities, dataset layouts, kinds of run and tasks. There is no other list of them.

A new one is a module and an entry here. An entry holds plain values and import paths, which `load` imports
when they are needed: this module imports no torch, and neither do the settings classes that entries name, so
that reading a config stays cheap. `m2pt check` names what a module or an entry lacks.

Configs, tables and specs use the names of entries: renaming one changes the digests of its runs.
"""

from collections.abc import Mapping
from typing import TypeVar

from m2pt.catalog.entries import (
    MASKED_LANGUAGE_MODELLING,
    FollowUp,
    Kind,
    Layout,
    Modality,
    Plane,
    Published,
    Task,
    load,
    unknown,
)
from m2pt.errors import InputError
from m2pt.run_files import ATTACHED, EVALUATION, MERGED

__all__ = [
    "EVALUATE",
    "KINDS",
    "LAYOUTS",
    "MERGE",
    "MODALITIES",
    "TASKS",
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
    "modality",
    "pretraining_task",
    "task",
    "unknown",
]

Entry = TypeVar("Entry", Kind, Modality, Layout, Task)

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
        masked=MASKED_LANGUAGE_MODELLING,
        mixup=False,
        color="#E69F00",
    ),
}

_PARTNET = {  # classes at the finest level, and shapes in the training split
    "Bed-3": (15, 133),
    "Bottle-3": (9, 315),
    "Chair-3": (39, 4_489),
    "Clock-3": (11, 406),
    "Dishwasher-3": (7, 111),
    "Display-3": (4, 633),
    "Door-3": (5, 149),
    "Earphone-3": (10, 147),
    "Faucet-3": (12, 435),
    "Knife-3": (10, 221),
    "Lamp-3": (41, 1_554),
    "Microwave-3": (6, 133),
    "Refrigerator-3": (7, 136),
    "StorageFurniture-3": (24, 1_588),
    "Table-3": (51, 5_707),
    "TrashCan-3": (11, 221),
    "Vase-3": (6, 741),
}

# Many of AudioSet's and Kinetics' videos have been deleted since their publication: yours will be smaller.
LAYOUTS: dict[str, Layout] = {
    "ade20k": Layout(
        modalities=("image",),
        labels="pixels",
        reader="m2pt.datasets.ade20k",
        miniature="m2pt.datasets.miniature.ade20k",
        augmentation="m2pt.datasets.augmentations:SegmentationAugmentation",
        num_classes=150,
        published={"ade20k": Published(20_210, "ADE20K, SceneParsing benchmark, training set")},
    ),
    "audioset": Layout(
        modalities=("audio",),
        labels="classes",
        reader="m2pt.datasets.audioset",
        miniature="m2pt.datasets.miniature.audioset",
        augmentation="m2pt.datasets.augmentations:SpectrogramAugmentation",
        pretraining_augmentation="m2pt.datasets.augmentations:WaveformAugmentation",
        num_classes=527,
        published={
            "audioset": Published(22_176, "AudioSet's download page, balanced train"),
            "audioset2m": Published(
                2_042_985 + 22_176, "AudioSet's download page, unbalanced and balanced train"
            ),
        },
    ),
    "coco": Layout(
        modalities=("image",),
        labels="instances",
        reader="m2pt.datasets.coco",
        miniature="m2pt.datasets.miniature.coco",
        augmentation="m2pt.datasets.augmentations:DetectionAugmentation",
        num_classes=80,
        published={"coco": Published(118_287, "COCO train2017, images")},
        manifest_has_counts=False,  # images without an instance are counted, but not trained on
    ),
    "imagenet": Layout(
        modalities=("image",),
        labels="class",
        reader="m2pt.datasets.imagenet",
        miniature="m2pt.datasets.miniature.imagenet",
        augmentation="m2pt.datasets.augmentations:ImageAugmentation",
        num_classes=1000,
        published={"imagenet": Published(1_281_167, "ImageNet-1k, training set")},
    ),
    "kinetics": Layout(
        modalities=("video",),
        labels="class",
        reader="m2pt.datasets.kinetics",
        miniature="m2pt.datasets.miniature.kinetics",
        augmentation="m2pt.datasets.augmentations:ClipAugmentation",
        pretraining_augmentation="m2pt.datasets.augmentations:ClipCropAugmentation",
        evaluation="m2pt.datasets.augmentations:MultiView",
        num_classes=400,
        published={
            "kinetics": Published(240_436, "Kinetics-400 as mmaction2 has it"),
            "kinetics700": Published(542_357, "Kinetics-700 as mmaction2 has it", num_classes=700),
        },
    ),
    "partnet": Layout(
        modalities=("pointcloud",),
        labels="points",
        reader="m2pt.datasets.partnet",
        miniature="m2pt.datasets.miniature.partnet",
        augmentation="m2pt.datasets.augmentations:ShapeAugmentation",
        num_classes={subset: classes for subset, (classes, _) in _PARTNET.items()},
        subsets=True,
        published={
            f"partnet/{subset}": Published(
                shapes, "PartNet (Mo et al. 2019), semantic segmentation, training split"
            )
            for subset, (_, shapes) in _PARTNET.items()
        },
        manifest_has_counts=False,  # the count is of all subsets together
    ),
    "shapenet55": Layout(
        modalities=("pointcloud",),
        labels="class",
        reader="m2pt.datasets.shapenet55",
        miniature="m2pt.datasets.miniature.shapenet55",
        augmentation="m2pt.datasets.augmentations:PointcloudAugmentation",
        num_classes=55,
        published={"shapenet55": Published(41_952, "ShapeNet-55 (Point-BERT), train.txt")},
    ),
    "shapenetpart": Layout(
        modalities=("pointcloud",),
        labels="parts",
        reader="m2pt.datasets.shapenetpart",
        miniature="m2pt.datasets.miniature.shapenetpart",
        augmentation="m2pt.datasets.augmentations:ShapeAugmentation",
        pretraining_augmentation="m2pt.datasets.augmentations:PointcloudAugmentation",
        num_classes=50,
        published={"shapenetpart": Published(12_137 + 1_870, "ShapeNetPart, train and val lists")},
    ),
    "text": Layout(
        modalities=("text",),
        labels=None,
        reader="m2pt.datasets.text",
        miniature="m2pt.datasets.miniature.text",
        augmentation="m2pt.datasets.augmentations:TextAugmentation",
        num_classes=256,
        window="length",  # bytes are counted
    ),
}

MERGE = FollowUp(
    command="merge",
    help="merge the pathways: plain weights, no inference cost",
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


def kind(name: str) -> Kind:
    """Return the entry of a kind of run.

    Raises:
        InputError: there is none of this name.
    """
    return _entry("kind of run", KINDS, name)


def _entry(kind: str, entries: Mapping[str, Entry], name: str) -> Entry:
    if name not in entries:
        raise InputError(unknown(kind, name, entries))
    entry, form = entries[name], _FORMS[kind]
    if not isinstance(entry, form):
        raise InputError(f"{kind} {name}: the entry must be a {form.__name__}, got {type(entry).__name__}")
    return entry


_FORMS = {"modality": Modality, "dataset layout": Layout, "task": Task, "kind of run": Kind}


def commands() -> dict[str, Kind | FollowUp]:
    """Return the entries of all commands that make the files of runs, by the command's name."""
    found: dict[str, Kind | FollowUp] = {}
    for name, each in KINDS.items():
        found |= {name: each, **{follow_up.command: follow_up for follow_up in each.followed_by}}
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
