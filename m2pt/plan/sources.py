"""How a dataset of yours is made before it is checked: of its downloads, in shards, with frames of videos."""

import shlex
from pathlib import Path
from typing import NamedTuple

from m2pt import catalog
from m2pt.errors import InputError
from m2pt.plan.plan import Plan
from m2pt.run_files import DATA, FRAMES, PACKED, PREPARED


class Step(NamedTuple):
    """One rule of the workflow.

    Attributes:
        rule: its name.
        key: key of the dataset that names the folder which is read.
        reads: that folder.
        words: the `m2pt` command.
        makes: empty file that is there once it has ended.
    """

    rule: str
    key: str
    reads: Path
    words: tuple[str, ...]
    makes: Path

    @property
    def command(self) -> str:
        """The words after `m2pt` as a shell line."""
        return shlex.join(self.words)


def steps(plan: Plan, name: str) -> list[Step]:
    """Return the steps that make a dataset, in order; none if it is used as it is, or a miniature."""
    dataset, root, markers = plan.config.datasets[name], plan.root(name), plan.results / DATA
    files, found = dataset.packed_from, []
    if (given := dataset.prepare) is not None:
        words = ["prepare", dataset.layout, given.downloads, str(files or root)]
        for key, value in {**given.options, "num_classes": dataset.num_classes}.items():
            words += _option(key, value)
        found.append(("prepare_dataset", "prepare.downloads", given.downloads, words, PREPARED))
    if files is not None:
        words = ["pack", dataset.layout, files, str(root)]
        found.append(("pack_dataset", "packed_from", files, words, PACKED))
    if dataset.videos is not None:
        words = ["frames", dataset.videos, str(root / str(catalog.layout(dataset.layout).frames))]
        found.append(("extract_frames", "videos", dataset.videos, words, FRAMES))
    return [
        Step(rule, key, Path(reads), ("data", *words), markers / f"{name}.{suffix}")
        for rule, key, reads, words, suffix in found
    ]


def check_made(plan: Plan, name: str) -> None:
    """Check that a dataset that is made by steps, or built, is there.

    Raises:
        InputError: it is not; the message has the commands.
    """
    root = plan.root(name)
    if root.exists():
        return
    if plan.config.datasets[name].miniature is not None:
        raise InputError(
            f"{root} does not exist yet; build it with: {plan.shell_command('data', 'build', name)}"
        )
    if found := steps(plan, name):
        commands = " && ".join(f"m2pt {step.command}" for step in found)
        raise InputError(f"{root} does not exist yet; the workflow makes it, or: {commands}")


def _option(key: str, value: object) -> list[str]:
    """Return the words of an option; none if it is false or not given."""
    name = f"--{key.replace('_', '-')}"
    if value is None or value is False:
        return []
    return [name] if value is True else [name, str(value)]
