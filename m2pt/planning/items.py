"""How many items a training split has: of a dataset on disk, of a miniature to be built, or as published."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from m2pt.errors import InputError, short
from m2pt.results import Manifest, read
from m2pt.schema.plan import Plan, Spec


class Published(NamedTuple):
    """The official training split of a dataset: a name of config/paper.yaml, its layout and classes."""

    layout: str
    num_classes: int
    items: int
    source: str


_PARTNET = "PartNet (Mo et al. 2019), semantic segmentation, training split"

PUBLISHED = {
    "imagenet": Published("imagenet", 1000, 1_281_167, "ImageNet-1k, training set"),
    "coco": Published("coco", 80, 118_287, "COCO train2017, images"),
    "ade20k": Published("ade20k", 150, 20_210, "ADE20K, SceneParsing benchmark, training set"),
    "kinetics": Published("kinetics", 400, 240_436, "Kinetics-400 as mmaction2 has it"),
    "kinetics700": Published("kinetics", 700, 542_357, "Kinetics-700 as mmaction2 has it"),
    "audioset": Published("audioset", 527, 22_176, "AudioSet's download page, balanced train"),
    "audioset2m": Published(
        "audioset", 527, 2_042_985 + 22_176, "AudioSet's download page, unbalanced and balanced train"
    ),
    "shapenet55": Published("shapenet55", 55, 41_952, "ShapeNet-55 (Point-BERT), train.txt"),
    "shapenetpart": Published("shapenetpart", 50, 12_137 + 1_870, "ShapeNetPart, train and val lists"),
    "partnet/Bed-3": Published("partnet", 15, 133, _PARTNET),
    "partnet/Bottle-3": Published("partnet", 9, 315, _PARTNET),
    "partnet/Chair-3": Published("partnet", 39, 4_489, _PARTNET),
    "partnet/Clock-3": Published("partnet", 11, 406, _PARTNET),
    "partnet/Dishwasher-3": Published("partnet", 7, 111, _PARTNET),
    "partnet/Display-3": Published("partnet", 4, 633, _PARTNET),
    "partnet/Door-3": Published("partnet", 5, 149, _PARTNET),
    "partnet/Earphone-3": Published("partnet", 10, 147, _PARTNET),
    "partnet/Faucet-3": Published("partnet", 12, 435, _PARTNET),
    "partnet/Knife-3": Published("partnet", 10, 221, _PARTNET),
    "partnet/Lamp-3": Published("partnet", 41, 1_554, _PARTNET),
    "partnet/Microwave-3": Published("partnet", 6, 133, _PARTNET),
    "partnet/Refrigerator-3": Published("partnet", 7, 136, _PARTNET),
    "partnet/StorageFurniture-3": Published("partnet", 24, 1_588, _PARTNET),
    "partnet/Table-3": Published("partnet", 51, 5_707, _PARTNET),
    "partnet/TrashCan-3": Published("partnet", 11, 221, _PARTNET),
    "partnet/Vase-3": Published("partnet", 6, 741, _PARTNET),
}
"""Official training splits. Many of AudioSet's and Kinetics' videos are gone since: yours will be smaller."""

_READER_ALONE_KNOWS = ("coco", "partnet")
"""Layouts whose manifest counts what is not trained on: images without an instance, all subsets together."""


@dataclass(frozen=True)
class Items:
    """The size of a training split, and where that number is from."""

    count: int
    origin: str


def training_items(plan: Plan, spec: Spec, given: Mapping[str, int]) -> Items | None:
    """The number of items that the training of this spec has in an epoch; None where nobody knows.

    Args:
        plan: where datasets and manifests lie.
        spec: of a training.
        given: sizes by dataset, or by dataset/subset; they win over everything else.

    Raises:
        InputError: the dataset lies there, but cannot be read.
    """
    key = dataset_key(spec)
    name, layout = spec["dataset"]["name"], spec["dataset"]["layout"]
    if key in given:
        return Items(given[key], "--items")
    manifest = plan.manifest(name)
    if layout not in _READER_ALONE_KNOWS and manifest.exists():
        count = read(Manifest, manifest).items.get("train")
        if count is None:
            raise InputError(f"{manifest}: has no number of training items; delete it and check the dataset.")
        return Items(_windows(spec, count), str(manifest))
    if plan.root(name).is_dir():
        return Items(_read(plan.root(name), spec, key), str(plan.root(name)))
    if plan.config.datasets[name].miniature is not None:
        return Items(_windows(spec, _miniature_size(plan, name, layout)), "the miniature to be built")
    published = PUBLISHED.get(key)
    if published and (published.layout, published.num_classes) == (layout, spec["dataset"]["num_classes"]):
        return Items(published.items, published.source)
    return None


def dataset_key(spec: Spec) -> str:
    """The name of a spec's dataset for `--items`: with its subset, if it has one."""
    subset = spec["dataset"].get("subset")
    return f"{spec['dataset']['name']}/{subset}" if subset else str(spec["dataset"]["name"])


def parse_items(pairs: list[str]) -> dict[str, int]:
    """Turn `DATASET=N` arguments into a mapping.

    Raises:
        InputError: an argument has another form.
    """
    given = {}
    for pair in pairs:
        name, _, count = pair.partition("=")
        if not (count.isascii() and count.isdecimal()) or len(count) > 18 or not int(count):
            raise InputError(f"--items {short(pair, 60)}: give DATASET=N, such as --items text=1000000.")
        given[name] = int(count)
    return given


def _windows(spec: Spec, count: int) -> int:
    """A split of text is counted in bytes, and trained on in windows."""
    is_text = spec["dataset"]["layout"] == "text"
    return count // int(spec["architecture"]["input"]["length"]) if is_text else count


def _miniature_size(plan: Plan, name: str, layout: str) -> int:
    from m2pt.datasets.layouts import miniature_module

    chosen = plan.config.datasets[name].miniature
    default = inspect.signature(miniature_module(layout).build).parameters["train"].default
    return int((chosen.sizes if chosen else {}).get("train", default))


def _read(root: Path, spec: Spec, key: str) -> int:
    from m2pt.datasets.layouts import reader

    settings = dict(spec["architecture"]["input"])
    if "subset" in spec["dataset"]:
        settings["subset"] = spec["dataset"]["subset"]
    try:
        split = reader(spec["dataset"]["layout"])(
            root, "train", num_classes=spec["dataset"]["num_classes"], **settings
        )
    except InputError as error:
        raise InputError(f"{error} (to plan without this dataset give --items {key}=N)") from None
    return len(split)
