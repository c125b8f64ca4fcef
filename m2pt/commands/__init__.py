"""The command line: one module per command, imported only when the command runs."""

import argparse
import errno
import gc
import importlib
import sys

from m2pt import catalog
from m2pt.caches import provide_cache
from m2pt.errors import InputError, RunError

DESCRIPTION = (
    "Multimodal Pathway (arXiv 2401.14405) and Adaptive Gradient Modulation (arXiv 2308.07686), "
    "from raw data to printed table."
)
BEFORE_RUNS = {
    "data": "build a miniature dataset, prepare official downloads, check a dataset in an official layout",
    "check": "build every model of the config once, without data, to find inconsistent settings",
    "plan": "print trainings, GPU-hours, storage and critical path of a config, without running anything",
    "rehearse": "take two steps of each kind of training of a config, on a small batch of synthetic inputs",
    "clean": "list and remove runs and encoders that no table of the given configs needs",
    "pretrain": "pretrain an encoder by masked modeling or with labels",
    "import": "load an encoder from DVC, a file or a saved epoch, or initialize it randomly",
}
AFTER_RUNS = {
    "launch": "run a training or an evaluation in several processes, on one node or more",
    "tabulate": "write a table from the result files",
    "plot": "draw a figure from the result files",
    "summarize": "list the papers' claims with our verdicts",
    "export": "copy final encoders, models or tables to a folder tracked by DVC",
    "show": "print the results, runs and commands of a table cell",
    "track": "mirror all runs to MLflow",
}

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free disk space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give write permission"),
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter path",
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP), "choose a path that no other file blocks"
    ),
}


def commands() -> dict[str, str]:
    """Return what each command does, by name; the catalog has those that make the files of runs.

    Raises:
        InputError: the name of one in the catalog is that of another command, or see `catalog.commands`.
    """
    of_runs = {name: entry.help for name, entry in catalog.commands().items()}
    for name in of_runs:
        if name in BEFORE_RUNS or name in AFTER_RUNS:
            raise InputError(f"the catalog names a command {name!r}, but m2pt {name} exists; rename it")
    return {**BEFORE_RUNS, **of_runs, **AFTER_RUNS}


def command_module(name: str) -> str:
    """Return the path of a command's module."""
    if name in catalog.commands():
        return catalog.command_module(name)
    return f"m2pt.commands.{'import_' if name == 'import' else name}"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code.

    0: success; 1: the run failed; 2: the input is wrong; 130: interrupted by Ctrl-C. A training that was
    interrupted after saving its state exits with 75 (`m2pt.training.signals`).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        summaries = commands()
    except InputError as error:
        print(f"m2pt: error: {error}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="m2pt", description=DESCRIPTION)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in summaries.items():
        description = summary[0].upper() + summary[1:] + "."
        subparser = subparsers.add_parser(name, help=summary.replace("%", "%%"), description=description)
        if name in arguments[:1]:
            module = importlib.import_module(command_module(name))
            module.add_arguments(subparser)
    parsed = parser.parse_args(arguments)
    command = f"m2pt {parsed.command}"
    if parsed.command == "data":
        command = f"{command} {parsed.action}"
    provide_cache()
    try:
        if parsed.command in ("pretrain", *catalog.KINDS):
            import_libraries()
        return int(module.run(parsed) or 0)
    except InputError as error:
        print(f"{command}: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # a training saves its state and exits by itself
        print(f"m2pt {parsed.command}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = error.filename or "results"
        print(
            f"{command}: error: {where}: {error.strerror}; {remedy} "
            "and run the same command again; nothing already computed is lost.",
            file=sys.stderr,
        )
        return 2


def import_libraries() -> None:
    """Import what runs need, with a million objects that stay, and keep those out of searches for garbage.

    The searches would take a fifth of the import's seconds.
    """
    if "m2pt.build" in sys.modules:
        return
    gc.disable()
    try:
        importlib.import_module("m2pt.build")
        gc.freeze()
    finally:
        gc.enable()
