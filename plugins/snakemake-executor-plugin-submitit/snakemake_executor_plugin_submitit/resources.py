"""The resources of a Snakemake job as a request to the cluster."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

DEFAULT_RUNTIME = 60
"""Time limit in minutes of a job without the resource `runtime`."""

_SAME_IN_SBATCH = {
    "slurm_partition": "partition",
    "slurm_account": "account",
    "qos": "qos",
    "constraint": "constraint",
}
_CORRECT_NAMES = {
    "partition": "slurm_partition",
    "account": "slurm_account",
    "time": "runtime",
    "gpu": "gpus",
}
_SET_BY_EXECUTOR = {
    "signal",
    "output",
    "error",
    "open-mode",
    "array",
    "job-name",
    "requeue",
    "no-requeue",
    "comment",
    "wrap",
    "ntasks",
    "ntasks-per-node",
}
_RESOURCE_OF_OPTION = {
    "time": "runtime",
    "nodes": "nodes",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_mb",
    "mem-per-cpu": "mem_mb_per_cpu",
    "gpus-per-node": "gpus",
    "gres": "gres",
    **{option: name for name, option in _SAME_IN_SBATCH.items()},
}


@dataclass(frozen=True)
class Request:
    """What a job requests. Jobs with equal requests can be submitted as one array.

    Args:
        nodes: number of nodes.
        gpus: GPUs per node, a number or `type:number`; "" for none.
        cpus: CPUs per node.
        memory_mb: memory per node in MB; None leaves it to the cluster.
        runtime: time limit in minutes.
        options: further options of sbatch, by their long names.
    """

    nodes: int
    gpus: str
    cpus: int
    memory_mb: int | None
    runtime: int
    options: tuple[tuple[str, str | bool], ...] = field(default=())

    def slurm_parameters(self) -> dict[str, Any]:
        """Return submitit's parameters for Slurm: a single task, on the first of the nodes."""
        options: dict[str, Any] = dict(self.options)
        if self.gpus:
            options["gpus-per-node"] = self.gpus
        if self.memory_mb is not None:
            options["mem"] = f"{self.memory_mb}M"
        return {
            "time": self.runtime,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "additional_parameters": options,
        }


def parse_resources(rule: str, resources: Mapping[str, Any], threads: int) -> Request:
    """Parse a job's resources.

    Args:
        rule: the rule's name, for messages.
        resources: values by resource name; unknown names are ignored.
        threads: CPUs, unless the resource `cpus_per_task` is set.

    Raises:
        WorkflowError: an invalid value; the message names rule, resource and fix.
    """

    def number(name: str, default: int | None, least: int = 1) -> int | None:
        value = resources.get(name, default)
        if value is None:
            return None
        if not str(value).isdigit() or int(value) < least:
            raise WorkflowError(
                f"rule {rule}: resource {name} must be an integer >= {least}, got {value!r}; "
                f"set it in the profile: set-resources: {{{rule}: {{{name}: {least}}}}}"
            )
        return int(value)

    for name, right in _CORRECT_NAMES.items():
        if resources.get(name):
            raise WorkflowError(f"rule {rule}: unknown resource {name}; did you mean {right}?")
    gpus = _gpus(rule, resources)
    options: dict[str, str | bool] = {
        option: str(resources[name]) for name, option in _SAME_IN_SBATCH.items() if resources.get(name)
    }
    if resources.get("gres"):
        options["gres"] = str(resources["gres"])
    if resources.get("mem_mb_per_cpu"):
        options["mem-per-cpu"] = f"{number('mem_mb_per_cpu', None)}M"
    options.update(_extra(rule, str(resources.get("slurm_extra", ""))))
    return Request(
        nodes=number("nodes", 1) or 1,
        gpus=gpus,
        cpus=number("cpus_per_task", max(1, threads)) or 1,
        memory_mb=None if "mem-per-cpu" in options else number("mem_mb", None, least=0),
        runtime=number("runtime", DEFAULT_RUNTIME) or DEFAULT_RUNTIME,
        options=tuple(sorted(options.items())),
    )


def _gpus(rule: str, resources: Mapping[str, Any]) -> str:
    value = str(resources.get("gpus") or "")
    if value and resources.get("gres"):
        raise WorkflowError(
            f"rule {rule}: resources gpus={value} and gres={resources['gres']} both request GPUs; "
            "set only one of them"
        )
    kind, _, count = value.rpartition(":")
    if value and (not count.isdigit() or (":" in value and not kind)):
        raise WorkflowError(
            f"rule {rule}: resource gpus must be a number or type:number, such as a100:4, got {value!r}"
        )
    return "" if count == "0" else value


def _extra(rule: str, text: str) -> dict[str, str | bool]:
    """Parse `slurm_extra`, such as "--exclusive --mail-type=END"."""
    options: dict[str, str | bool] = {}
    for word in shlex.split(text):
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise WorkflowError(
                f"rule {rule}: resource slurm_extra: options must have the form --option=value or --option, "
                f"got {word!r}"
            )
        if name in _RESOURCE_OF_OPTION:
            raise WorkflowError(
                f"rule {rule}: resource slurm_extra: set the resource {_RESOURCE_OF_OPTION[name]} "
                f"instead of --{name}"
            )
        if name in _SET_BY_EXECUTOR:
            raise WorkflowError(
                f"rule {rule}: resource slurm_extra: the executor sets --{name} itself; remove it"
            )
        options[name] = value if equals else True
    return options
