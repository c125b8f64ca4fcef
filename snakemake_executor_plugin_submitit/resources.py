"""From a Snakemake job's resources to what submitit asks the cluster for."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

DEFAULT_RUNTIME = 60
"""Minutes of a job that asks for no `runtime`."""

_PASSED_ON = {
    "slurm_partition": "partition",
    "slurm_account": "account",
    "qos": "qos",
    "constraint": "constraint",
}
_MISNAMED = {"partition": "slurm_partition", "account": "slurm_account", "time": "runtime", "gpu": "gpus"}
_OWN = {
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
}
_OWN |= {"ntasks", "ntasks-per-node"}
_RESOURCES = {
    "time": "runtime",
    "nodes": "nodes",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_mb",
    "mem-per-cpu": "mem_mb_per_cpu",
    "gpus-per-node": "gpus",
    "gres": "gres",
    **{option: name for name, option in _PASSED_ON.items()},
}


@dataclass(frozen=True)
class Request:
    """What a job asks for. Jobs with equal requests may be submitted together.

    Args:
        nodes: number of nodes.
        gpus: per node, a number or `type:number`; "" for none.
        cpus: per node.
        memory_mb: per node; None leaves it to the cluster.
        runtime: time limit in minutes.
        options: further options of sbatch, by their long names.
    """

    nodes: int
    gpus: str
    cpus: int
    memory_mb: int | None
    runtime: int
    options: tuple[tuple[str, str | bool], ...] = field(default=())

    def slurm(self) -> dict[str, Any]:
        """Return submitit's parameters for Slurm: ONE task, on the first of the nodes."""
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


def request_of(rule: str, resources: Mapping[str, Any], threads: int) -> Request:
    """Read a job's resources.

    Raises:
        WorkflowError: a value that cannot be meant; it names the rule, the resource and the mend.
    """

    def number(name: str, default: int | None, least: int = 1) -> int | None:
        value = resources.get(name, default)
        if value is None:
            return None
        if not str(value).isdigit() or int(value) < least:
            raise WorkflowError(
                f"rule {rule}: resource {name}={value!r} is no whole number of at least {least}; "
                f"set it in the profile: set-resources: {{{rule}: {{{name}: {least}}}}}"
            )
        return int(value)

    for name, right in _MISNAMED.items():
        if resources.get(name):
            raise WorkflowError(f"rule {rule}: there is no resource {name}; it is called {right}")
    gpus = _gpus(rule, resources)
    options: dict[str, str | bool] = {
        option: str(resources[name]) for name, option in _PASSED_ON.items() if resources.get(name)
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
            f"rule {rule}: resources gpus={value} and gres={resources['gres']} both ask for GPUs; "
            "give one of them"
        )
    kind, _, count = value.rpartition(":")
    if value and (not count.isdigit() or (":" in value and not kind)):
        raise WorkflowError(
            f"rule {rule}: resource gpus={value!r}: give a number or type:number, such as a100:4"
        )
    return "" if count == "0" else value


def _extra(rule: str, text: str) -> dict[str, str | bool]:
    """Read `slurm_extra`, such as "--exclusive --mail-type=END"."""
    options: dict[str, str | bool] = {}
    for word in shlex.split(text):
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise WorkflowError(
                f"rule {rule}: resource slurm_extra: {word!r} is not of the form --option=value or --option"
            )
        if name in _RESOURCES:
            raise WorkflowError(
                f"rule {rule}: resource slurm_extra: instead of --{name} set the resource {_RESOURCES[name]}"
            )
        if name in _OWN:
            raise WorkflowError(
                f"rule {rule}: resource slurm_extra: --{name} is set by the executor; leave it out"
            )
        options[name] = value if equals else True
    return options
