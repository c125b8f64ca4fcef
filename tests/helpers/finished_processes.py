"""Commands that are killed around the end of a training, and run again; `test_finished.py` runs this once.

One interpreter forks a child per command, as in `training_processes.py`. Prints, per command and moment, the
exit code, the output, the seconds, and the digests of the files that the command leaves.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from training_processes import exit_code, forked

from m2pt.commands import main
from m2pt.formats.weight_files import file_digest
from m2pt.plan.plan import Plan

OUTPUTS = {
    "pretrain": ("encoder.safetensors",),
    "finetune": ("attached.safetensors",),
    "transfer": ("merged.safetensors", "evaluation.json"),
}
"""Declared outputs of the rules, which Snakemake deletes before it runs a job."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_rename(ending: str) -> Callable[[], None]:
    def arm() -> None:
        fsync = os.fsync

        def dying(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if f"{path.parent.name}/{path.name}".startswith(ending.replace("/", "/.") + "."):
                die()

        os.fsync = dying

    return arm


def die_after_rename(ending: str) -> Callable[[], None]:
    def arm() -> None:
        replace = Path.replace

        def dying(path: Path, target: Path) -> Path:
            result = replace(path, target)
            if str(target).endswith(ending):
                die()
            return result

        Path.replace = dying

    return arm


def nothing() -> None:
    pass


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def command(words: list[str], folder: Path, log: Path, arm: Callable[[], None] = nothing) -> dict:
    """Run a command in a child, after `arm`, which may make the child kill itself later."""

    def body() -> None:
        sys.stdout = sys.stderr = log.open("a", buffering=1)
        arm()
        sys.exit(main(words))

    start, length = time.perf_counter(), len(log.read_text()) if log.exists() else 0
    code = exit_code(forked(body, log))
    return {
        "code": code,
        "seconds": time.perf_counter() - start,
        "output": log.read_text()[length:],
        "files": digests(folder),
    }


def reruns(kind: str, words: list[str], folder: Path, log: Path) -> dict:
    """Train; run again with outputs deleted, with outputs, killed while restoring them, and after that."""

    def delete() -> None:
        for name in OUTPUTS[kind]:
            (folder / name).unlink(missing_ok=True)

    report = {"first": command(words, folder, log)}
    delete()
    report["deleted"] = command(words, folder, log)
    report["whole"] = command(words, folder, log)
    name = OUTPUTS[kind][0]
    delete()
    report["killed while restoring"] = command(words, folder, log, die_after_rename(f"seed0/{name}"))
    report["restored"] = command(words, folder, log)
    return report


def kills(words: list[str], folder: Path, log: Path) -> dict:
    """Kill one finetuning at each moment after its last step, then let it finish."""
    shutil.rmtree(folder)
    moments = {
        "exported": die_after_rename("seed0/attached.safetensors"),
        "kept": die_after_rename("finished/attached.safetensors"),
        "before the state is renamed": die_before_rename("finished/state.json"),
        "after the state is renamed": die_after_rename("finished/state.json"),
        "undisturbed": nothing,
    }
    return {moment: command(words, folder, log, arm) for moment, arm in moments.items()}


def changes(words: list[str], folder: Path, log: Path) -> dict:
    """Damage the kept files in each way in turn, with the outputs deleted each time."""
    kept, output = folder / "finished/attached.safetensors", folder / "attached.safetensors"
    report = {}

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def no_links() -> None:
        def refuse(*names: object) -> None:
            raise PermissionError(1, "no hard links here")

        os.link = refuse

    for name, change in {
        "weights": lambda: flip(kept),
        "state": lambda: flip(folder / "finished/state.json"),
        "metrics": lambda: flip(folder / "metrics.jsonl"),
        "lost weights": kept.unlink,
    }.items():
        output.unlink()
        change()
        report[name] = command(words, folder, log)
    (folder / "run.json").write_text("{}")
    (folder / "finished.json").unlink()
    (folder / "metrics.jsonl").open("a").write("half a li")
    report["lost records"] = command(words, folder, log)
    shutil.rmtree(folder / "finished")
    report["without links"] = command(words, folder, log, no_links)
    output.unlink()
    report["restored without links"] = command(words, folder, log, no_links)
    return report


def lost_snapshots(words: list[str], folder: Path, log: Path) -> dict:
    """Damage, and then delete, the encoder of an earlier epoch while the last one is being written."""
    early = folder / "encoder-epoch1.safetensors"
    report = {}
    for name, change in {"damaged": lambda: early.write_bytes(b"x" * 99), "lost": early.unlink}.items():
        shutil.rmtree(folder)
        command(words, folder, log, die_after_rename("final.pt"))
        change()
        report[name] = command(words, folder, log)
        report[f"{name}, again"] = command(words, folder, log)
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    log, config = root / "log", "tests/tiny/config.yaml"
    options = ["--config", config, "--set", f"results={root / 'results'}"]
    plan = Plan.load(Path(config), {"results": str(root / "results")})
    for layout in ("imagenet", "shapenet55", "ade20k"):
        prepared = command(["data", "build", layout, *options], root / "none", log)
        assert prepared["code"] == 0, log.read_text()
    names = {
        "finetune": next(
            name for name in plan.runs if name.startswith("imagenet-tune-from-image-pointcloud")
        ),
        "transfer": next(name for name, run in plan.runs.items() if run.experiment.dataset == "ade20k"),
    }
    results = {}
    for encoder in ("pointcloud", "image"):
        folder = plan.encoder_directory(encoder, 0)
        results[f"pretrain {encoder}"] = reruns("pretrain", ["pretrain", encoder, *options], folder, log)
    results["lost snapshots"] = lost_snapshots(["pretrain", "image", *options], folder, log)
    for kind in ("finetune", "transfer"):
        words, folder = [kind, names[kind], *options], plan.run_directory(names[kind], 0)
        results[kind] = reruns(kind, words, folder, log)
    words, folder = ["finetune", names["finetune"], *options], plan.run_directory(names["finetune"], 0)
    results["kills"] = kills(words, folder, log)
    results["changes"] = changes(words, folder, log)
    words, folder = ["pretrain", "pointcloud", *options], plan.encoder_directory("pointcloud", 0)
    results["specs"] = {
        "another spec": command([*words, "--set", "threads=2"], folder, log),
        "the spec again": command(words, folder, log),
    }
    print(json.dumps(results))
