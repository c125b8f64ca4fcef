"""Cost of a training step of a whole ViT with pathways, as ratios to the plain model.

    python benchmarks/pathway_step.py [--model vit_base_patch16_224] [--images 32] [--rounds 7] [--compile]

Forms: `attached` is `m2pt.pathway`; `two auxiliaries` has two of them; `official` is the sum W + s*A left to
autograd in each linear layer, as the released code computes it; `merged` is the attached model after `merge`.
A step is forward, backward and fused AdamW. Every round times all forms, and ratios are medians over the
rounds, so that a busy machine disturbs all alike; on a CPU the time is processor time. Memory is the peak of
a process of its own that takes two steps: resident memory on a CPU, allocated memory on a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from pathway import median_ratio
from torch import Tensor, nn
from torch.nn import functional as F

from m2pt.pathway import attach, merge

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


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


FORMS: dict[str, Callable[[str], nn.Module]] = {
    "plain": plain,
    "attached": attached,
    "two auxiliaries": lambda name: attached(name, 2),
    "official": official,
    "merged": lambda name: merge(attached(name)),
}


class Training:
    """A model in training with its optimizer and one batch."""

    def __init__(self, form: str, name: str, images: int, device: str, compiled: bool) -> None:
        torch.manual_seed(0)
        self.device = device
        model = FORMS[form](name).to(device)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.model = torch.compile(model) if compiled else model
        self.x = torch.randn(images, 3, 224, 224, device=device)
        self.target = torch.zeros(images, dtype=torch.long, device=device)

    def step(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.target).backward()
        self.optimizer.step()

    def seconds(self) -> float:
        """Return the seconds of one step."""
        clock = time.perf_counter if self.device == "cuda" else time.process_time
        start = clock()
        self.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return clock() - start


def peak_mebibytes(form: str, arguments: argparse.Namespace) -> float:
    """Return the peak memory of two steps in a new process."""
    words = [
        f"--{name}={value}" for name, value in vars(arguments).items() if name not in ("compile", "form")
    ]
    words += ["--compile"] if arguments.compile else []
    done = subprocess.run(
        [sys.executable, __file__, *words, f"--form={form}"], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout))


def peak_resident() -> int:
    """Return the peak of resident memory in bytes, on Linux; getrusage includes the parent before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def main() -> None:
    """Measure every form and print one line each."""
    parser = argparse.ArgumentParser(description="Cost of a training step with pathways")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--form", choices=FORMS, help="print the peak memory of this form in MiB, and nothing else"
    )
    arguments = parser.parse_args()
    settings = (arguments.model, arguments.images, arguments.device, arguments.compile)
    if arguments.form:
        training = Training(arguments.form, *settings)
        training.step()
        training.step()
        peak = torch.cuda.max_memory_allocated() if arguments.device == "cuda" else peak_resident()
        print(json.dumps(peak / 2**20))
        return
    print(", ".join(f"{name} {value}" for name, value in vars(arguments).items()), "torch", torch.__version__)
    trainings = {form: Training(form, *settings) for form in FORMS}
    for training in trainings.values():
        training.step()  # warm up
    rounds = [
        {form: training.seconds() for form, training in trainings.items()} for _ in range(arguments.rounds)
    ]
    print(f"{'form':<16} {'step':>9} {'ratio':>6} {'peak memory':>12}")
    for form in FORMS:
        times, reference = ([timings[f] for timings in rounds] for f in (form, "plain"))
        memory = peak_mebibytes(form, arguments)
        step = f"{1e3 * statistics.median(times):6.0f} ms {median_ratio(times, reference):6.3f}"
        print(f"{form:<16} {step} {memory:8.0f} MiB")


if __name__ == "__main__":
    main()
