"""Snakemake executor plugin: each job is one submitit job, on Slurm or as a process of this machine.

`snakemake --executor submitit --submitit-cluster slurm --jobs 100`
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
    pass_envvar_declarations_to_cmd=False,  # sbatch passes the environment; on the command line ps shows it
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=2,
)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Options `--submitit-...` of Snakemake."""

    cluster: str = field(
        default="slurm",
        metadata={
            "help": "Where jobs run: slurm; local, as processes of this machine, limited to their runtime; "
            "debug, one after another inside Snakemake's own process.",
        },
    )
    signal_delay: int = field(
        default=90,
        metadata={
            "help": "Seconds before the time limit at which a job is warned, to save and be requeued; "
            "at most half of its runtime.",
            "type": int,
        },
    )
    warning_signal: str = field(
        default="SIGUSR1",
        metadata={"help": "Signal sent as a warning to those programs of a job that handle it."},
    )
    max_restarts: int = field(
        default=20,
        metadata={
            "help": "Number of restarts of a job, after time limits, preemptions and node failures, "
            "before it counts as failed.",
            "type": int,
        },
    )
    array_size: int = field(
        default=100,
        metadata={
            "help": "Largest number of jobs of one rule with equal resources that are submitted as one "
            "job array; 1 submits every job separately.",
            "type": int,
        },
    )
    unknown_checks: int = field(
        default=10,
        metadata={
            "help": "Number of status checks in a row in which the cluster does not know a job that left no "
            "result, before it counts as failed.",
            "type": int,
        },
    )
