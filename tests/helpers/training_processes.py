"""Trainings that are killed, stopped or run by several processes; `test_processes.py` runs this file once.

One interpreter imports torch and timm and forks a child per training, so that a dozen of them take seconds. A
child kills itself with SIGKILL at the moment that a scenario names, so that each moment is exact.
"""

import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.models.vision_transformer import Block
from torch import nn

from m2pt.datasets.base import SeededDataset
from m2pt.pathway import attach
from m2pt.training import checkpoint
from m2pt.training.averaging import MergedAverage
from m2pt.training.launch import leave
from m2pt.training.loop import fit
from m2pt.training.settings import TrainingSettings
from m2pt.training.signals import another_process_failed, report_failure

CLASSES = 4


class Tokens(SeededDataset):
    """60 noisy views of four patterns, drawn from the global generator as an augmentation does."""

    def __len__(self):
        return 60

    def load(self, index):
        pattern = torch.linspace(-1, 1, 3 * 8 * 8).mul(index % CLASSES + 1).sin().view(3, 8, 8)
        return pattern + 0.3 * torch.randn(3, 8, 8), index % CLASSES


class Model(nn.Module):
    """A timm Block, with dropout and drop path if `noisy`, followed by one norm."""

    def __init__(self, *, noisy, norm):
        super().__init__()
        torch.manual_seed(0)
        rate = 0.1 if noisy else 0.0
        self.embed = nn.Linear(3 * 8, 16)
        self.blocks = nn.ModuleList([Block(16, 2, proj_drop=rate, drop_path=rate)])
        self.norm = norm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images):
        tokens = self.blocks[0](self.embed(images.transpose(1, 2).flatten(2)))
        # tanh: the gradient of a constant before a batch norm is pure rounding, which Adam would amplify
        return self.head(self.norm(tokens.tanh().mean(1)))


class Loss:
    """Cross-entropy with mixup; calls `at_forward(number of the call, from 1)` first."""

    def __init__(self, *, mix, at_forward=lambda call, model: None):
        self.mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=CLASSES) if mix else None
        self.at_forward, self.calls = at_forward, 0

    def __call__(self, model, batch):
        self.calls += 1
        self.at_forward(self.calls, model)
        images, labels = batch
        if self.mixup is None:
            return nn.functional.cross_entropy(model(images), labels), {}
        images, targets = self.mixup(images, labels)
        return SoftTargetCrossEntropy()(model(images), targets), {"brightness": images.mean()}


class Modulation(nn.Module):
    """Scales a gradient by a running mean and adds noise; logs a digest of weights and gradients."""

    def __init__(self, log=None):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))
        self.log = log

    def before_step(self, model, step):
        gradient = model.head.weight.grad
        if self.log:
            tensors = [t.detach().flatten() for p in model.parameters() for t in (p, p.grad)]
            digest = hashlib.sha256(torch.cat(tensors).numpy().tobytes()).hexdigest()
            with self.log.with_name(f"{self.log.name}.{os.environ['RANK']}").open("a") as file:
                file.write(f"{step.number} {digest}\n")
        self.mean.lerp_(gradient.norm(), 0.1)
        factor = 1 + self.mean.tanh()
        gradient.mul_(factor).add_(torch.randn_like(gradient), alpha=1e-3)
        return {"factor": factor}

    def after_epoch(self, model, epoch):
        return {"mean": self.mean.item(), "draw": torch.rand(()).item()}


def train(
    directory: Path,
    *,
    noisy=True,
    norm=nn.BatchNorm1d,
    batch_size=4,
    accumulation=2,
    workers=2,
    method=None,
    ema=None,
    attached=False,
    shard=False,
    at_forward=lambda call, model: None,
):
    """Train for 28 steps, 4 epochs of 7 with 8 samples per step; the tests rely on these numbers."""
    settings = TrainingSettings(
        epochs=4,
        batch_size=batch_size,
        accumulation=accumulation,
        lr=3e-3,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        warmup_epochs=1,
        clip_grad=1.0,
        num_workers=workers,
        log_every=3,
        checkpoint_every=5,
        ema=ema,
        shard=shard,
    )
    model = Model(noisy=noisy, norm=norm)
    if attached:
        attach(model, {"other": nn.ModuleList([Block(16, 2)])}, scale_init=0.1)
    average = MergedAverage(model, ema) if ema else None
    fit(
        model,
        Loss(mix=noisy, at_forward=at_forward),
        Tokens(seed=5),
        settings=settings,
        directory=directory,
        identity="feed",
        seed=5,
        method=method() if method else None,
        average=average,
        describe=lambda model: {"head": model.head.weight.std().item()},
    )
    if average:
        torch.save(average.merged(), directory.with_name(f"{directory.name}.{os.environ['RANK']}.pt"))


def forked(body: Callable[[], None], output: Path) -> int:
    """Start `body` in a child with its own process group and its stderr in `output`; return its id."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    code = 1
    try:
        with output.open("a") as file:
            os.dup2(file.fileno(), 2)
        body()
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_forward(number: int) -> Callable[..., None]:
    """Return a training that kills itself in the `number`-th forward pass, while workers are busy."""

    def at_forward(call, model):
        if call == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda directory, **options: train(directory, at_forward=at_forward, **options)


def kill_while_writing(name: str, *, moment: str) -> Callable[..., None]:
    """Return a training that kills itself when `name` is half written, not yet renamed, or just renamed."""

    def body(directory, **options):
        save, fsync, replace = torch.save, os.fsync, Path.replace

        def dying_save(state, file):
            save(state, file)
            if moment == "half" and f".{name}." in file.name:
                file.flush()
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        def dying_fsync(descriptor):
            fsync(descriptor)
            if moment == "unnamed" and f".{name}." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                os.kill(os.getpid(), signal.SIGKILL)

        def dying_replace(path, target):
            result = replace(path, target)
            if moment == "renamed" and Path(target).name == name:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        torch.save, os.fsync, Path.replace = dying_save, dying_fsync, dying_replace
        train(directory, **options)

    return body


KILLS = {
    "in the first epoch, before any checkpoint": kill_at_forward(5),
    "while the first checkpoint is half written": kill_while_writing("resume.pt", moment="half"),
    "before the first checkpoint has its name": kill_while_writing("resume.pt", moment="unnamed"),
    "just after the first checkpoint": kill_while_writing("resume.pt", moment="renamed"),
    "in the middle of an epoch and of a step": kill_at_forward(2 * 7 + 2),
    "in a later epoch, past the next checkpoint": kill_at_forward(2 * 12 + 1),
    "in the last step": kill_at_forward(2 * (28 - 20)),
    "before the final weights have their name": kill_while_writing("final.pt", moment="unnamed"),
    "after the final weights, before the marker": kill_while_writing("final.pt", moment="renamed"),
    "after the marker": kill_while_writing("finished.json", moment="renamed"),
}


def killed(directory: Path, **options) -> dict:
    """Run one training, killed at each moment in turn; report exit codes and saved steps."""
    report, log = {}, directory.with_suffix(".log")
    for moment, body in KILLS.items():
        code = exit_code(forked(lambda body=body: body(directory, **options), log))
        resume = directory / "resume.pt"
        report[moment] = {"code": code, "step": checkpoint.load(resume)["step"] if resume.exists() else 0}
    report["restart"] = exit_code(forked(lambda: train(directory, **options), log))
    return report


def stopped(root: Path) -> list[dict]:
    """Signal the whole group, workers included, as a terminal and Slurm do."""
    report = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):

        def at_forward(call, model, number=number):
            if call == 7:
                os.killpg(0, number)

        child = forked(lambda f=at_forward: train(root / "stopped", at_forward=f), root / "stopped.log")
        code = exit_code(child)
        report.append(
            {"code": code, "marker": json.loads((root / "stopped" / "interrupted.json").read_text())}
        )
    report.append({"code": exit_code(forked(lambda: train(root / "stopped"), root / "stopped.log"))})
    return report


def together(processes: int, log: Path, body: Callable[[int], None]) -> list[int]:
    """Call `body(rank)` in several processes, in an environment like torchrun's; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def join(rank):
        number = str(processes)
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": number}
        os.environ |= shared | {"LOCAL_WORLD_SIZE": number, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        body(rank)

    return [exit_code(child) for child in [forked(lambda r=rank: join(r), log) for rank in range(processes)]]


def train_together(processes: int, directory: Path, **options) -> list[int]:
    def body(rank):
        train(directory, workers=0, **options)
        leave()

    return together(processes, directory.with_suffix(".log"), body)


STILL = {"noisy": False, "norm": nn.LayerNorm}
"""Nothing in a forward pass depends on which samples share it."""

SHARED = {
    "4x2": {},
    "2x4": {"batch_size": 2, "accumulation": 4},
    "still 8x1": STILL | {"batch_size": 8, "accumulation": 1},
    "still 4x2": STILL,
    "batch norm 8x1": {"noisy": False, "batch_size": 8, "accumulation": 1},
    "batch norm 4x2": {"noisy": False},
}
"""Options of trainings, named by batch size and accumulation; the first two draw masks and mixup."""


def several_processes(root: Path) -> dict:
    """Run each training of `SHARED` in 1, 2 and 4 processes, then what only several processes can do."""

    def note_syncs(call, model):
        if call <= 4:
            with (root / f"syncs{os.environ['RANK']}").open("a") as file:
                file.write(f"{model.require_backward_grad_sync} ")

    def one_is_stopped(call, model):
        if os.environ["RANK"] == "1" and call == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def one_is_gone(call, model):
        if call == 7:
            if os.environ["RANK"] == "1":
                os._exit(75)  # as `exit_on_stop_signal` does before the loop
            os.kill(os.getpid(), signal.SIGUSR1)

    def one_fails(call, model):
        if call == 7:
            if os.environ["RANK"] == "1":
                report_failure()  # as `m2pt launch` does
                raise OSError("item 7 cannot be read")
            while not another_process_failed():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)  # as torchrun and srun do then

    report = {
        name: {
            processes: train_together(processes, root / f"{name} by {processes}", **options)
            for processes in (1, 2, 4)
        }
        for name, options in SHARED.items()
    }
    for processes in (1, 2):
        folder = root / f"method by {processes}"
        method = partial(Modulation, folder.with_suffix(".digests"))
        report[f"method by {processes}"] = train_together(processes, folder, method=method, **STILL)
    for processes in (1, 2):
        averaged = {"noisy": False, "batch_size": 8, "accumulation": 1, "ema": 0.8}
        report[f"averaged by {processes}"] = train_together(
            processes, root / f"averaged by {processes}", **averaged
        )
    for name, norm in (("sharded", nn.LayerNorm), ("sharded batch norm", nn.BatchNorm1d)):
        options = {"noisy": False, "norm": norm, "attached": True}
        report[name] = [
            train_together(2, root / f"{name} {shard}", shard=shard, **options) for shard in (True, False)
        ]
    for shard in (True, False):
        folder, options = root / f"resumed {shard}", STILL | {"attached": True}
        report[f"resumed {shard}"] = [
            train_together(2, folder, shard=not shard, at_forward=one_is_stopped, **options),
            train_together(2, folder, shard=shard, **options),
        ]
    report["noted"] = train_together(2, root / "noted", batch_size=2, accumulation=4, at_forward=note_syncs)
    report["syncs"] = [(root / f"syncs{rank}").read_text().split() for rank in range(2)]
    for name, at_forward in (("one stopped", one_is_stopped), ("lost process", one_is_gone)):
        folder = root / name
        os.environ["REQUEUE_MARKER"] = str(folder / "marker")
        report[name] = {
            "codes": train_together(2, folder, at_forward=at_forward),
            "requeue": (folder / "marker").exists(),
            "marker": json.loads((folder / "interrupted.json").read_text()),
            "saved": checkpoint.load(folder / "resume.pt")["step"],
        }
        del os.environ["REQUEUE_MARKER"]
    os.environ["REQUEUE_MARKER"] = str(root / "one fails" / "marker")
    report["one fails"] = {
        "codes": train_together(2, root / "one fails", at_forward=one_fails),
        "left": sorted(path.name for path in (root / "one fails").iterdir()),
        "reason": json.loads((root / "one fails" / "failed.json").read_text())["reason"],
    }
    del os.environ["REQUEUE_MARKER"]
    report["resumed"] = {"codes": train_together(2, root / "one stopped")}
    report["by one"] = {"codes": train_together(1, root / "lost process")}
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    results = {
        "undisturbed": exit_code(forked(lambda: train(folder / "undisturbed"), folder / "undisturbed.log")),
        "killed": killed(folder / "killed"),
        "undisturbed method": exit_code(
            forked(lambda: train(folder / "undisturbed method", method=Modulation), folder / "method.log")
        ),
        "killed method": killed(folder / "killed method", method=Modulation),
        "stopped": stopped(folder),
        "several processes": several_processes(folder),
    }
    print(json.dumps(results))
