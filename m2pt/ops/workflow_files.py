"""What the workflow's files must have for a kind of run: a rule for each command, resources on a cluster."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from m2pt import catalog
from m2pt.catalog import FollowUp, Kind
from m2pt.formats.documents import read_text, read_yaml

SNAKEFILE = Path("Snakefile")
RULES = Path("workflow/rules")
PROFILES = Path("profiles")
SLURM_PROFILE = PROFILES / "slurm/config.yaml"


def workflow_faults(kinds: Iterable[str], folder: Path) -> Iterator[str]:
    """Yield a sentence for each rule, and each entry of a Slurm profile, that kinds of run lack.

    A rule counts if it is in the Snakefile or in a file of `workflow/rules` that the Snakefile names. An
    entry counts if it is in any profile: yours may replace the shipped one. Nothing is checked in a folder
    without a Snakefile, and no resources in one without the Slurm profile.

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
            if command.launchable and resources is not None and name not in resources:
                yield (
                    f"kind {kind}: {SLURM_PROFILE} gives the rule {name} no resources, so its jobs get the "
                    f"default ones, without a GPU; under set-resources, add: '{name}: *training'"
                )


def _rules(folder: Path) -> set[str]:
    snakefile = read_text(folder / SNAKEFILE)
    included = [read_text(path) for path in (folder / RULES).glob("*.smk") if path.name in snakefile]
    declared = re.compile(r"^\s*(?:rule|checkpoint|use rule \w+(?: from \w+)? as) +(\w+)", re.MULTILINE)
    return set(declared.findall("\n".join([snakefile, *included])))


def _resources(folder: Path) -> set[str] | None:
    """Return the rules with resources in some profile, None without the Slurm profile."""
    if not (folder / SLURM_PROFILE).is_file():
        return None
    profiles = [read_yaml(path) for path in (folder / PROFILES).glob("*/config*.yaml")]
    # a mapping of rules, or a list of words such as RULE:gpus=1
    return {str(entry).partition(":")[0] for each in profiles for entry in each.get("set-resources") or ()}
