"""Commands in two processes, forked from one interpreter; run by `tests/commands/test_launch.py`.

Finetunes a run in two processes, merges it, evaluates it in two and in one, and transfers another run in two.
Prints the exit codes and the two evaluations.
"""

import json
import sys
from pathlib import Path

import torch
from training_processes import exit_code, forked, together

from m2pt.commands import main


def command(*words: str) -> None:
    sys.exit(main([*words]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    log, run, name, transferred, *options = sys.argv[1:]
    run, log = Path(run), Path(log)
    evaluation = run / "evaluation.json"
    codes = together(2, log, lambda rank: command("finetune", name, *options))
    merge = [str(run / "attached.safetensors"), str(run / "merged.safetensors")]
    codes.append(exit_code(forked(lambda: command("merge", *merge), log)))
    codes += together(2, log, lambda rank: command("evaluate", name, *options))
    by_two = json.loads(evaluation.read_text())
    codes.append(exit_code(forked(lambda: command("evaluate", name, *options), log)))
    by_one = json.loads(evaluation.read_text())
    for words in (["data", "build", "shapenet55"], ["data", "build", "ade20k"]):
        codes.append(exit_code(forked(lambda words=words: command(*words, *options), log)))
    for encoder in ("image", "pointcloud"):
        codes += together(2, log, lambda rank, encoder=encoder: command("pretrain", encoder, *options))
    codes += together(2, log, lambda rank: command("transfer", transferred, *options))
    print(json.dumps({"codes": codes, "by two": by_two, "by one": by_one}))
