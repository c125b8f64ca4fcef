"""What the workflow's files must have for a kind of run: a rule for each command, resources on a cluster."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m2pt import catalog
from m2pt.catalog import FollowUp, Kind
from m2pt.formats.documents import read_text, read_yaml

SNAKEFILE = Path("Snakefile")
RULES = Path("workflow/rules")
PROFILES = Path("profiles")
SLURM_PROFILE = PROFILES / "slurm/config.yaml"


def workflow_faults(kinds: Iterable[str], folder: Path) -> Iterator[str]:
    """Yield a sentence for each rule, and each entry of a Slurm profile, that kinds of run lack.

    A rule counts if it is in the Snakefile or in a file of `workflow/rules` that the Snakefile includes, and
    must be of the runs that its command makes. An entry counts if it has a resource, in any profile: yours
    may replace the shipped one. Nothing is checked in a folder without a Snakefile, and no resources in one
    without the Slurm profile.

    Raises:
        InputError: a file cannot be read.
    """
    if not (folder / SNAKEFILE).is_file():
        return
    rules, resources = _rules(folder), _resources(folder)
    for kind in kinds:
        entry = catalog.kind(kind)
        commands: dict[str, Kind | FollowUp] = {kind: entry}
        commands |= {each.command: each for each in entry.followed_by}
        for name, command in commands.items():
            if name not in rules:
                yield (
                    f"kind {kind}: no rule {name} in {SNAKEFILE} or the files that it includes; write it in "
                    f"{RULES / f'{kind}.smk'} and include that file in {SNAKEFILE}"
                )
            elif not re.search(rf"""RULES\.runs\(\s*["']{name}["']\s*\)""", rules[name]):
                yield (
                    f"kind {kind}: the rule {name} takes other runs than those of m2pt {name}; under its "
                    f'wildcard_constraints, write: run=RULES.runs("{name}")'
                )
            if command.launchable and resources is not None and name not in resources:
                yield (
                    f"kind {kind}: {SLURM_PROFILE} gives the rule {name} no resources, so its jobs get the "
                    f"default ones, without a GPU; under set-resources, add: '{name}: *training'"
                )


_INCLUDE = r"^\s*include:[^#\n]*\n?[^#\n]*(?<![\w-]){}\b"
_RULE = re.compile(r"^\s*(?:rule|checkpoint|use rule \w+(?: from \w+)? as) +(\w+)", re.MULTILINE)
_NO_CODE = re.compile(r'^\s*#.*$|"{3}[\s\S]*?"{3}|\'{3}[\s\S]*?\'{3}', re.MULTILINE)


def _rules(folder: Path) -> dict[str, str]:
    """Return the text of each rule by its name, without comments and docstrings."""
    snakefile = _code(folder / SNAKEFILE)
    texts = [snakefile]
    for path in (folder / RULES).glob("*.smk"):
        if re.search(_INCLUDE.format(re.escape(path.name)), snakefile, re.MULTILINE):
            texts.append(_code(path))
    # the text before the first rule, then names and texts in turn
    parts = [part for text in texts for part in _RULE.split(text)[1:]]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _code(path: Path) -> str:
    return _NO_CODE.sub("", read_text(path))


def _resources(folder: Path) -> set[str] | None:
    """Return the rules with resources in some profile, None without the Slurm profile."""
    if not (folder / SLURM_PROFILE).is_file():
        return None
    profiles = [read_yaml(path) for path in (folder / PROFILES).glob("*/config*.yaml")]
    return {rule for each in profiles for rule in _rules_with_resources(each.get("set-resources"))}


def _rules_with_resources(given: Any) -> Iterator[str]:
    """Yield the rules with a resource in a mapping of rules, or in a list of words such as RULE:gpus=1."""
    if isinstance(given, Mapping):
        yield from (
            str(rule) for rule, resources in given.items() if isinstance(resources, Mapping) and resources
        )
    elif isinstance(given, list):
        yield from (str(word).partition(":")[0] for word in given if "=" in str(word))
