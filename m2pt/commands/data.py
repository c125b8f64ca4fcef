"""Datasets: build a miniature, check any dataset, prepare official downloads, pack them into shards.

`m2pt data build DATASET`, `m2pt data check DATASET [ROOT]`, `m2pt data prepare LAYOUT DOWNLOADS ROOT`,
`m2pt data convert LAYOUT ROOT`, `m2pt data pack LAYOUT ROOT TARGET`, and `m2pt data frames VIDEOS FRAMES`.
"""

import argparse
from pathlib import Path

from m2pt import catalog, job_log
from m2pt.command_line import add_plan_arguments, expect, load_plan
from m2pt.config.dataset import Dataset
from m2pt.datasets.layouts import Classes
from m2pt.errors import InputError, count
from m2pt.plan.plan import Plan
from m2pt.plan.sources import check_made
from m2pt.results import Manifest, read

MAX_CLASSES = 1_000_000
"""Upper bound on the number of classes, since a check iterates over all of them."""

OPTIONS = ("annotations", "check", "unbalanced", "statistics")
"""Options of `prepare` that only some layouts have."""

SAMPLES_PER_SHARD = 5000
"""About 550 MB of ImageNet."""

LOWEST_FPS, HIGHEST_FPS = 0.001, 1000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(
        dest="action", metavar="build|check|prepare|convert|pack|frames", required=True
    )
    building = actions.add_parser("build", help="write the miniature of a dataset of the config")
    building.add_argument("dataset", help="name of a dataset of the config")
    add_plan_arguments(building)
    checking = actions.add_parser("check", help="list every problem of a dataset on disk")
    checking.add_argument("dataset", help="name of a dataset of the config; with ROOT, name of a layout")
    checking.add_argument(
        "root", type=Path, nargs="?", help="folder of the dataset; default: from the config"
    )
    checking.add_argument("--full", action="store_true", help="also read every file to its end")
    checking.add_argument(
        "--num-classes", type=int, metavar="N", help="default: from the config, or the official number"
    )
    checking.add_argument(
        "--manifest", type=Path, metavar="FILE", help="write a manifest if the dataset is valid"
    )
    add_plan_arguments(checking)
    preparing = actions.add_parser("prepare", help="make a layout of the official downloads, and check it")
    preparing.add_argument("layout", help="name of the layout, such as imagenet")
    preparing.add_argument(
        "downloads", type=Path, help="folder of the downloaded files, which stay as they are"
    )
    preparing.add_argument("root", type=Path, help="folder of the dataset; it may be DOWNLOADS")
    preparing.add_argument(
        "--num-classes", type=int, metavar="N", help="for the check; default: the official number"
    )
    preparing.add_argument(
        "--annotations",
        type=Path,
        metavar="FOLDER",
        help="audioset, kinetics: official lists; default: DOWNLOADS",
    )
    preparing.add_argument(
        "--check",
        action="store_true",
        default=None,
        help="audioset, kinetics: read every file, and leave out those that cannot be read",
    )
    preparing.add_argument(
        "--unbalanced",
        action="store_true",
        default=None,
        help="audioset: train on the unbalanced segments too (AS-2M)",
    )
    preparing.add_argument(
        "--statistics",
        type=int,
        metavar="N",
        help="audioset: clips for mean and standard deviation, 0 for none; default: 20000",
    )
    converting = actions.add_parser("convert", help="make the files that a layout's reader reads")
    converting.add_argument("layout", help="name of a layout whose files are converted, such as urfunny")
    converting.add_argument("root", type=Path, help="folder of the dataset as it was downloaded")
    packing = actions.add_parser("pack", help="pack the files of a dataset into a few tar files")
    packing.add_argument("layout", help="name of a layout that can be read from tar files, such as imagenet")
    packing.add_argument("root", type=Path, help="folder of the dataset")
    packing.add_argument("target", type=Path, help="output folder")
    packing.add_argument(
        "--samples-per-shard", type=int, metavar="N", default=SAMPLES_PER_SHARD, help="default: %(default)s"
    )
    extracting = actions.add_parser("frames", help="extract the frames of all videos in a folder")
    extracting.add_argument("videos", type=Path, help="folder of the videos")
    extracting.add_argument("frames", type=Path, help="output folder; each video gets a subfolder of JPEGs")
    extracting.add_argument(
        "--fps", type=float, default=1.0, help="frames per second; default: 1, as CREMA-D"
    )
    extracting.add_argument("--threads", type=int, help="videos to read at once; default: one per core")


def run(arguments: argparse.Namespace) -> None:
    """Build, check, prepare, convert or pack a dataset, or extract frames.

    Raises:
        InputError: there is no such dataset or layout, or the dataset is invalid; all problems are listed.
    """
    actions = {
        "build": _build,
        "check": _check,
        "prepare": _prepare,
        "convert": _convert,
        "pack": _pack,
        "frames": _extract_frames,
    }
    actions[arguments.action](arguments)


def _build(arguments: argparse.Namespace) -> None:
    from m2pt.ops.datasets import build_miniature, check_dataset

    plan, dataset, root = _from_config(arguments)
    if dataset.miniature is None:
        raise InputError(
            f"dataset {arguments.dataset} of {arguments.config} is at {root}, not built; check it with: "
            f"m2pt data check {arguments.dataset}"
        )
    miniature, manifest = dataset.miniature, plan.manifest(arguments.dataset)
    rows = {"layout": dataset.layout, "seed": miniature.seed, "dataset": root, "results": manifest}
    job_log.begin(f"data build {arguments.dataset}", rows)
    build_miniature(dataset.layout, root, seed=miniature.seed, sizes=miniature.sizes, manifest_path=manifest)
    check_dataset(dataset.layout, root, num_classes=dataset.classes)
    job_log.end(root, manifest, note=_sizes(manifest))


def _check(arguments: argparse.Namespace) -> None:
    from m2pt.ops.datasets import check_dataset, write_manifest

    num_classes, full = _num_classes(arguments), arguments.full
    layout, root, skip_corrupt = arguments.dataset, arguments.root, False
    if root is None:
        plan, dataset, root = _from_config(arguments)
        check_made(plan, arguments.dataset)
        layout, full = dataset.layout, full or dataset.full_check
        num_classes, skip_corrupt = num_classes or dataset.classes, dataset.skips_corrupt
    job_log.begin(
        f"data check {arguments.dataset}",
        {"layout": layout, "dataset": root, "results": arguments.manifest or "(no manifest)"},
    )
    check_dataset(layout, root, num_classes=num_classes, full=full, skip_corrupt=skip_corrupt)
    if arguments.manifest is not None:
        write_manifest(layout, root, manifest_path=arguments.manifest, full=full)
        job_log.end(arguments.manifest, note=_sizes(arguments.manifest))


def _prepare(arguments: argparse.Namespace) -> None:
    from m2pt.ops.datasets import check_dataset
    from m2pt.ops.preparation import prepare

    layout, downloads, root = arguments.layout, arguments.downloads, arguments.root
    num_classes = _num_classes(arguments)
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    if (arguments.statistics or 0) < 0:
        raise InputError(f"--statistics {arguments.statistics}: must be an integer >= 0.")
    job_log.begin(f"data prepare {layout}", {"downloads": downloads, "dataset": root})
    for line in prepare(layout, downloads, root, options, num_classes=num_classes):
        print(line)
    skippable = catalog.layout(layout).skippable  # the config decides whether trainings may skip samples
    check_dataset(layout, root, num_classes=num_classes, skip_corrupt=skippable)
    job_log.end(root)


def _convert(arguments: argparse.Namespace) -> None:
    from m2pt.datasets.layouts import layout_module

    layout, root = arguments.layout, arguments.root
    module = layout_module(layout)
    if not hasattr(module, "convert"):
        raise InputError(f"layout {layout} is read as it is distributed: there is nothing to convert.")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the {layout} dataset.")
    job_log.begin(f"data convert {layout}", {"dataset": root})
    module.convert(root)
    job_log.end(root)


def _pack(arguments: argparse.Namespace) -> None:
    from m2pt.datasets.layouts import layout_module

    layout, root, target = arguments.layout, arguments.root, arguments.target
    number, module = arguments.samples_per_shard, layout_module(layout)
    if not hasattr(module, "pack"):
        raise InputError(f"layout {layout} is not read from tar files; imagenet is.")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the {layout} dataset.")
    if number < 1:
        raise InputError(f"--samples-per-shard {number}: must be an integer >= 1.")
    job_log.begin(f"data pack {layout}", {"dataset": root, "results": target})
    corrupt = module.pack(root, target, samples_per_shard=number)
    if corrupt:
        found = count(len(corrupt), "corrupt training image", "corrupt training images")
        print(
            f"warning: {found} packed as found, for trainings with corrupt_samples: skip:", *corrupt, sep="\n"
        )
    job_log.end(target)


def _extract_frames(arguments: argparse.Namespace) -> None:
    from m2pt.datasets.frames import extract_all

    videos, frames, fps = arguments.videos, arguments.frames, arguments.fps
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:  # also false for NaN
        raise InputError(f"--fps {fps:g}: must be a number from {LOWEST_FPS:g} to {HIGHEST_FPS:g}.")
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError(f"--threads {arguments.threads}: must be an integer >= 1.")
    job_log.begin("data frames", {"videos": videos, "frames": frames})
    extracted = extract_all(videos, frames, fps=fps, threads=arguments.threads)
    job_log.end(frames, note=count(extracted, "video", "videos"))


def _num_classes(arguments: argparse.Namespace) -> Classes | None:
    """Return the number of classes that is given.

    Raises:
        InputError: it is out of range.
    """
    number: int | None = arguments.num_classes
    if number is not None and not 1 <= number <= MAX_CLASSES:
        raise InputError(f"--num-classes {number}: must be an integer from 1 to {MAX_CLASSES}.")
    return number


def _sizes(manifest: Path) -> str:
    """Return how many items a manifest counts in each split."""
    return ", ".join(f"{count:,} {split}" for split, count in read(Manifest, manifest).items.items())


def _from_config(arguments: argparse.Namespace) -> tuple[Plan, Dataset, Path]:
    """Return the plan, and the dataset's section and folder.

    Raises:
        InputError: the config has no such dataset, or its digest differs from --expect.
    """
    plan = load_plan(arguments)
    dataset = plan.config.datasets.get(arguments.dataset)
    if dataset is None:
        known = ", ".join(plan.config.datasets)
        raise InputError(f"no dataset {arguments.dataset!r} in {arguments.config}; it has {known}.")
    expect(arguments, plan.dataset_digest(arguments.dataset))
    return plan, dataset, plan.root(arguments.dataset)
