"""Cost of training steps of whole ViTs with pathways, as ratios to the plain model in the same run.

    python benchmarks/pathway_step.py [--cases small base small-32 base-32 auxiliaries compile fsdp]
    python benchmarks/pathway_step.py --model test_vit --images 2 --rounds 1  # shows that all cases run

A step is forward, backward and fused AdamW. Forms: `attached` is `m2pt.pathway`, with two to four auxiliaries
in `auxiliaries`; `official` is the sum W + s*A left to autograd in each linear layer, as the released code
computes it; `updates` is the plain model, with an optimizer that also updates A: no form of training A takes
less; `merged` is the attached model after `merge`; `shard first` is attached after `fully_shard`, `attached`
before it. Every round times all forms, and ratios are medians over the rounds, so that a busy machine
disturbs all alike; on a CPU the time is processor time, under FSDP2 the mean of two processes. A ratio has
its limit beside it, if there is one, and `over` if it is larger.

Memory, but for `compile` and `fsdp`, is the peak of a process of its own that takes two steps: resident on a
CPU, allocated on a GPU. Its limit is that of the plain model, A, its gradient, the two moments of AdamW, and
one weight.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from pathway import median_ratio
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from m2pt.pathway import attach, is_pathway, is_scale, merge

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SMALL, BASE = "vit_small_patch16_224", "vit_base_patch16_224"

Rounds = list[dict[str, float]]
"""Seconds of a step of each form, in each round."""


class OfficialLinear(nn.Module):
    """A linear layer with the sum left to autograd."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self.auxiliary = nn.Parameter(torch.randn_like(plain.weight))
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return F.linear(x, self.weight + self.scale * self.auxiliary, self.bias)


def plain(name: str) -> nn.Module:
    """Return the model without pathways."""
    return timm.create_model(name)


def attached(name: str, auxiliaries: int = 1) -> nn.Module:
    """Return the model with pathways."""
    model = plain(name)
    for number in range(auxiliaries):
        attach(model, {f"other{number}": model})
    return model


def official(name: str) -> nn.Module:
    """Return the model with the released code's linear layers."""
    model = plain(name)
    for block in model.blocks:
        for path in LAYERS:
            parent, _, attribute = path.rpartition(".")
            setattr(block.get_submodule(parent), attribute, OfficialLinear(block.get_submodule(path)))
    return model


def sharded(model: nn.Module) -> nn.Module:
    """Shard each block and the rest, and return the model."""
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


FORMS: dict[str, Callable[[str], nn.Module]] = {
    "plain": plain,
    "attached": attached,
    "2 auxiliaries": lambda name: attached(name, 2),
    "3 auxiliaries": lambda name: attached(name, 3),
    "4 auxiliaries": lambda name: attached(name, 4),
    "official": official,
    "updates": plain,
    "merged": lambda name: merge(attached(name)),
}
SHARDED_FORMS: dict[str, Callable[[str], nn.Module]] = {
    "plain": lambda name: sharded(plain(name)),
    "attached": lambda name: sharded(attached(name)),
    "shard first": lambda name: attach(sharded(plain(name)), plain(name)),
}


@dataclass(frozen=True)
class Case:
    """What one table compares: a model and the images of a step in each process.

    `limits` are the largest ratios to the plain model's time that are wanted.
    """

    model: str
    images: int
    forms: Sequence[str] = ("plain", "attached", "official", "updates", "merged")
    limits: Mapping[str, float] = field(default_factory=dict)
    compiled: bool = False
    processes: int = 1
    device: str = "cpu"


CASES = {
    "small": Case(SMALL, 4, limits={"attached": 1.03}),
    "base": Case(BASE, 4, limits={"attached": 1.03}),
    "small-32": Case(SMALL, 32, limits={"attached": 1.02}),
    "base-32": Case(BASE, 32, limits={"attached": 1.02}),
    "auxiliaries": Case(SMALL, 4, ("plain", "attached", "2 auxiliaries", "3 auxiliaries", "4 auxiliaries")),
    "compile": Case(SMALL, 4, compiled=True),
    "fsdp": Case(SMALL, 2, tuple(SHARDED_FORMS), processes=2),
}


class Training:
    """A model in training with its optimizer and one batch."""

    def __init__(self, case: Case, form: str) -> None:
        torch.manual_seed(0)
        self.device = case.device
        model = (SHARDED_FORMS if case.processes > 1 else FORMS)[form](case.model).to(case.device)
        matrices = [block.get_submodule(path).weight for block in model.blocks for path in LAYERS]
        self.updated = {
            nn.Parameter(torch.randn_like(each)): torch.randn_like(each)
            for each in (matrices if form == "updates" else ())
        }
        self.optimizer = torch.optim.AdamW([*model.parameters(), *self.updated], lr=1e-4, fused=True)
        self.model = torch.compile(model) if case.compiled else model
        self.x = torch.randn(case.images, *model.default_cfg["input_size"], device=case.device)
        self.target = torch.zeros(case.images, dtype=torch.long, device=case.device)

    def step(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.target).backward()
        for parameter, gradient in self.updated.items():
            parameter.grad = gradient
        self.optimizer.step()

    def seconds(self) -> float:
        """Return the seconds of one step."""
        clock = time.perf_counter if self.device == "cuda" else time.process_time
        start = clock()
        self.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return clock() - start


def say(text: str) -> None:
    """Print progress, beside the tables."""
    print(text, file=sys.stderr, flush=True)


def timings(case: Case, rounds: int, report: Callable[[str], None] = say) -> Rounds:
    """Return the times of all forms, which take turns."""
    trainings = {}
    for form in case.forms:
        report(f"  builds {form} and takes a first step")
        trainings[form] = Training(case, form)
        trainings[form].step()
    found: Rounds = []
    for number in range(rounds):
        report(f"  round {number + 1} of {rounds}")
        found.append({form: training.seconds() for form, training in trainings.items()})
    return found


def one_process(rank: int, folder: str, case: Case, rounds: int) -> None:
    """Take the times in one of several processes on gloo, and write them to a file."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=case.processes
    )
    found = timings(case, rounds, (lambda _: None) if rank else say)
    Path(f"{folder}/{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def timings_in_processes(case: Case, rounds: int) -> Rounds:
    """Return the means of the processes' times."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(one_process, (folder, case, rounds), nprocs=case.processes)
        files = [Path(f"{folder}/{rank}.json") for rank in range(case.processes)]
        found: list[Rounds] = [json.loads(file.read_text()) for file in files]
    return [
        {form: statistics.mean(times[form] for times in ranks) for form in case.forms}
        for ranks in zip(*found, strict=True)
    ]


def peak_mebibytes(case: Case, form: str) -> float:
    """Return the peak memory of two steps in a new process."""
    words = [sys.executable, __file__, "--peak", json.dumps({**dataclasses.asdict(case), "forms": [form]})]
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc keeps no freed tensors resident
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **exact})
    return float(json.loads(done.stdout))


def print_peak(case: Case) -> None:
    """Take two steps of the case's one form, and print the peak memory in MiB and nothing else."""
    training = Training(case, case.forms[0])
    training.step()
    training.step()
    if case.device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    # on Linux; getrusage includes the parent before exec
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 2**10)


def memory_limit(case: Case) -> float:
    """Return the MiB that one auxiliary may add: A, its gradient, its two moments, and one weight."""
    with torch.device("meta"):
        named = attached(case.model).named_parameters()
        matrices = [value.numel() for name, value in named if is_pathway(name) and not is_scale(name)]
    return 4 * (4 * sum(matrices) + max(matrices)) / 2**20


def measure(case: Case, rounds: int) -> None:
    """Measure a case and print a line for each form."""
    peaks = {}
    if case.processes == 1 and not case.compiled:  # which adds that of the compiler
        for form in case.forms:  # first, as long as this process takes little
            say(f"  measures the memory of {form}")
            peaks[form] = peak_mebibytes(case, form)
    found = timings_in_processes(case, rounds) if case.processes > 1 else timings(case, rounds)
    times = {form: [each[form] for each in found] for form in case.forms}
    print(f"{'form':<16} {'step':>9} {'ratio':>7} {'limit':>6} {'peak memory':>12}")
    for form in case.forms:
        ratio, limit = median_ratio(times[form], times["plain"]), case.limits.get(form)
        cells = f"{form:<16} {1e3 * statistics.median(times[form]):6.0f} ms {ratio:7.3f} {limit or '':>6}"
        memory = f" {peaks[form]:8.0f} MiB" if peaks else ""
        print(cells + memory + (" over" if limit and ratio > limit else ""))
    if "official" in case.forms:
        ratio = median_ratio(times["attached"], times["official"])
        print(f"attached / official: {ratio:.3f}, limit 1" + (" over" if ratio > 1 else ""))
    if "updates" in case.forms:
        print(f"attached / updates: {median_ratio(times['attached'], times['updates']):.3f}")
    if peaks:
        added, limit = peaks["attached"] - peaks["plain"], memory_limit(case)
        print(
            f"memory that attaching adds: {added:.0f} MiB, limit {limit:.0f}"
            + (" over" if added > limit else "")
        )


def main() -> None:
    """Measure the cases, one after the other."""
    parser = argparse.ArgumentParser(description="Cost of training steps with pathways")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="all by default")
    parser.add_argument("--model", help="another model of timm, with blocks of a ViT")
    parser.add_argument("--images", type=int, help="another batch size, of each process")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"), help="`fsdp` runs on a CPU")
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(Case(**arguments.peak))
        return
    print("torch", torch.__version__, "threads", torch.get_num_threads(), "rounds", arguments.rounds)
    for name in arguments.cases:
        case = CASES[name]
        case = dataclasses.replace(
            case,
            model=arguments.model or case.model,
            images=arguments.images or case.images,
            device="cpu" if case.processes > 1 else arguments.device,
        )
        print(
            f"\n{name}: {case.model}, {case.images} images on {case.device} in {case.processes} process(es)"
        )
        say(name)
        measure(case, arguments.rounds)


if __name__ == "__main__":
    main()
