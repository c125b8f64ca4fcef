"""Paths that would reach a job as something else: Snakemake, submitit and Slurm have no way to write them."""

from collections.abc import Iterable

from snakemake_interface_common.exceptions import WorkflowError


def check_folder(folder: str) -> None:
    """Make sure that submitit and Slurm take the folder of the jobs' files as it is.

    Raises:
        WorkflowError: it has a `%`, which stands for a job's number or name there.
    """
    if "%" in folder:
        raise WorkflowError(
            f"{folder}: submitit and Slurm take % in a path for a pattern; work in a folder without one"
        )


def check_quotable(paths: Iterable[str]) -> None:
    """Make sure that a shell reads these paths as Snakemake quotes them in a job's command, by `repr`.

    Raises:
        WorkflowError: a backslash would be doubled, or a `$` or backquote beside a single quote expanded.
    """
    for path in paths:
        quoted = repr(path)
        if "\\" in quoted or (quoted[0] == '"' and not {"$", "`", "!"}.isdisjoint(quoted)):
            raise WorkflowError(
                f"{path}: Snakemake cannot hand this path to a job; move it to one without quotes, "
                "backslashes and $"
            )
