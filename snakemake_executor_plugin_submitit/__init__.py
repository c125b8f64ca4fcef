"""Snakemake executor plugin: each job is one submitit job, on Slurm, or as a process of this machine.

`snakemake --executor submitit --submitit-cluster slurm --jobs 100`; see README.md in this folder.
"""

from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_submitit.executor import Executor

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,  # sbatch passes the environment on; here ps would show it
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=2,
)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """The options --submitit-… of Snakemake."""

    cluster: str = field(
        default="slurm",
        metadata={
            "help": "Where jobs run: slurm; local, as processes of this machine with the time limit of their "
            "runtime; debug, one after another inside Snakemake's own process.",
        },
    )
    signal_delay: int = field(
        default=90,
        metadata={
            "help": "Seconds before the time limit at which a job is warned, to save and be requeued; "
            "at most half of a job's runtime is taken.",
            "type": int,
        },
    )
    warning_signal: str = field(
        default="SIGUSR1",
        metadata={"help": "Signal that a job's programs are warned with, if they have a handler for it."},
    )
    max_restarts: int = field(
        default=20,
        metadata={
            "help": "How often a job may begin anew after time limits, preemptions and failed nodes "
            "before it counts as failed.",
            "type": int,
        },
    )
    array_size: int = field(
        default=100,
        metadata={
            "help": "Largest number of jobs of a rule, with equal resources, that are submitted together "
            "as a job array; 1 submits each by itself.",
            "type": int,
        },
    )
    unknown_checks: int = field(
        default=10,
        metadata={
            "help": "Status checks in a row in which nobody knows a job, and it left no result, before it "
            "counts as failed.",
            "type": int,
        },
    )
