"""The command line: one module per command; what a command needs is imported only when it runs."""

import argparse
import errno
import importlib
import sys

from m2pt.caches import provide_cache
from m2pt.errors import InputError, RunError

COMMANDS = {
    "data": "build a miniature dataset, or check any dataset in an official layout",
    "check": "build every model of the config once, without data, to find what does not fit",
    "plan": "print trainings, GPU-hours, storage and critical path of a config, without running anything",
    "clean": "list and remove runs and encoders that no table of the given configs asks for",
    "pretrain": "pretrain an encoder by masked modelling or with labels",
    "import": "take an encoder that came by DVC, from a file or a kept epoch, or initialise it at random",
    "finetune": "attach the auxiliaries to a target and finetune it",
    "merge": "merge the pathways: plain weights, no inference cost",
    "evaluate": "evaluate the merged model and check that it equals the unmerged one",
    "transfer": "train a detector or segmenter on a merged backbone and evaluate it",
    "launch": "run pretrain, finetune, transfer or evaluate in several processes, on one node or more",
    "tabulate": "write a table from the result files",
    "plot": "draw a figure from the result files",
    "summarize": "list the paper's claims with our verdicts",
    "export": "gather final encoders, models or tables in a folder that DVC moves",
    "show": "print what is behind a cell of a table",
    "track": "mirror all runs to MLflow",
}
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give write permission"),
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter path",
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP), "choose a path that no other file takes up"
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 done, 1 the run failed, 2 the input is wrong; a training that was interrupted and has saved its state
    exits with 75 by itself.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="m2pt", description="Multimodal Pathway (arXiv 2401.14405).")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        if name in arguments[:1]:
            module = importlib.import_module(f"m2pt.commands.{'import_' if name == 'import' else name}")
            module.add_arguments(subparser)
    parsed = parser.parse_args(arguments)
    provide_cache()
    try:
        return int(module.run(parsed) or 0)
    except InputError as error:
        print(f"m2pt {parsed.command}: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"m2pt {parsed.command}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = error.filename or "results"
        print(
            f"m2pt {parsed.command}: error: {where}: {error.strerror}; {remedy} "
            "and run the same command again, nothing already computed is lost.",
            file=sys.stderr,
        )
        return 2
