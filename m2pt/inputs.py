"""The inputs of a training or an evaluation: a checked dataset, and weights made with the expected spec."""

from pathlib import Path
from typing import Any

from m2pt.config.recipes import default_augmentation
from m2pt.errors import InputError
from m2pt.formats.documents import parse_json
from m2pt.plan.plan import Plan
from m2pt.plan.specs import DatasetSpec, PretrainingSpec, RunSpec, Stored
from m2pt.results import Manifest, read, spec_differences


def open_dataset(
    plan: Plan,
    spec: RunSpec | PretrainingSpec,
    split: str,
    *,
    seed: int,
    training: bool,
    dataset: DatasetSpec | None = None,
    checked: bool = False,
) -> Any:
    """Return a reader of a dataset of a spec, after the quick check.

    `training` selects the recipe's augmentation instead of the evaluation view. Both are settings of the
    evaluated dataset's layout; datasets of another layout are read with the defaults of theirs. Only a reader
    for training skips corrupt samples, if the config says so.

    Args:
        plan: the plan.
        spec: spec of a training.
        split: name of the split.
        seed: seed of random views.
        training: whether to read views for training.
        dataset: one of the spec's datasets, by default the evaluated one.
        checked: leave the check out: this process has opened another split of the dataset.

    Raises:
        InputError: the dataset is missing or invalid; all problems are listed.
    """
    from m2pt.datasets.corrupt import separate
    from m2pt.datasets.layouts import check, reader

    dataset = dataset or spec.dataset
    root, same = plan.root(dataset.name), dataset.layout == spec.dataset.layout
    classes = dataset.settings.classes
    problems = [] if checked else check(dataset.layout, root, num_classes=classes, full=False)
    if dataset.settings.skips_corrupt:
        problems, _ = separate(problems)
    if problems:
        raise InputError(f"dataset {dataset.name} at {root} is not valid:\n  " + "\n  ".join(problems))
    settings = spec.reader_input(dataset)
    if dataset.subset is not None:
        settings["subset"] = dataset.subset
    if not training and same and spec.recipe.views is not None:
        settings["views"] = spec.recipe.views
    augmentation = spec.recipe.augmentation if same else default_augmentation(dataset.layout)
    opened = reader(dataset.layout)(
        root,
        split,
        num_classes=dataset.num_classes,
        seed=seed,
        augmentation=augmentation if training else None,
        **settings,
    )
    if training and dataset.settings.skips_corrupt:
        opened.skip_corrupt = True
    return opened


def manifest_digest(plan: Plan, dataset: str) -> str:
    """Return the hash in a dataset's manifest: of a miniature's contents, of your dataset's file list.

    `full_check` does not change it: a dataset that is read to its end is the same dataset.

    Raises:
        InputError: the dataset has not been checked yet.
    """
    path = plan.manifest(dataset)
    if not path.exists():
        raise InputError(f"{path}: missing; make it with: {plan.command(path)}")
    manifest = read(Manifest, path)
    built = plan.config.datasets[dataset].miniature is not None
    stored = manifest.content_sha256 if built else manifest.listing_sha256
    if stored is None:
        raise InputError(f"{path}: has no digest; make it again with: {plan.command(path, again=True)}")
    return stored


def load_input(plan: Plan, path: Path, expected: Stored, *, made_with: Path | None = None) -> dict[str, Any]:
    """Return the weights of an input, after checking that they were made with the spec that is `expected`.

    `made_with` is the target to give Snakemake, if it is not `path` itself.

    Raises:
        InputError: the file is missing or damaged, or was made with another spec.
    """
    from m2pt.formats.weights import load_weights

    state, metadata = load_weights(path)
    stored = parse_json(metadata["spec"], f"{path}: its spec") if "spec" in metadata else None
    differences = list(spec_differences(stored, expected))
    if differences:
        raise InputError(
            f"{path}: made with a spec other than the config's ({'; '.join(differences[:3])}); "
            f"make it again with: {plan.command(made_with or path, again=True)}"
        )
    return state
