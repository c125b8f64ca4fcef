"""Cost of an attached layer: forward and backward at ViT-B sizes, as ratios to the plain layer.

    python benchmarks/pathway.py [--device cuda] [--precision bf16] [--images 8] [--rounds 15]

Forms: `attached` is `m2pt.pathway`, `W + s*A` the same sum left to autograd, `two branches` the formula as
printed in the paper. Every round times all forms, and ratios are medians over the rounds, so that a busy
machine disturbs all alike; on a CPU the time is processor time. Memory is the peak between the start of the
forward and the end of the backward pass, with gradients but without parameters and input.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

# Silences the profiler, which reads this when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import profile

from m2pt.pathway import attach

TOKENS = 197
SHAPES = {"attn.qkv": (768, 2304), "attn.proj": (768, 768), "mlp.fc1": (768, 3072), "mlp.fc2": (3072, 768)}


class Explicit(nn.Module):
    """A target matrix, an auxiliary matrix and a scale, for the two forms that leave the work to autograd."""

    def __init__(self, inputs: int, outputs: int, *, two_branches: bool) -> None:
        super().__init__()
        self.target = nn.Linear(inputs, outputs)
        self.auxiliary = nn.Linear(inputs, outputs, bias=False)
        self.scale = nn.Parameter(torch.full((1,), 0.1))
        self.two_branches = two_branches

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if self.two_branches:
            return self.target(x) + self.scale * self.auxiliary(x)
        return F.linear(x, self.target.weight + self.scale * self.auxiliary.weight, self.target.bias)


def attached(inputs: int, outputs: int) -> nn.Module:
    """Return a plain layer after `attach`."""
    block, auxiliary = (nn.Sequential(nn.Linear(inputs, outputs)) for _ in range(2))
    attach([block], [auxiliary], layers=("0",), scale_init=0.1)
    return block


FORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": nn.Linear,
    "attached": attached,
    "W + s*A": partial(Explicit, two_branches=False),
    "two branches": partial(Explicit, two_branches=True),
}


class Case:
    """One layer with its input, ready for a forward and a backward pass."""

    def __init__(self, layer: nn.Module, inputs: int, images: int, device: str, precision: str) -> None:
        self.layer = layer.to(device)
        self.x = torch.randn(images, TOKENS, inputs, device=device, requires_grad=True)
        self.device = device
        self.autocast = partial(torch.autocast, device, torch.bfloat16, enabled=precision == "bf16")
        with torch.no_grad(), self.autocast():
            self.upstream = torch.ones_like(self.layer(self.x))

    def clear(self) -> None:
        """Reset the gradients."""
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None

    def run(self) -> None:
        """Run one forward and one backward pass."""
        with self.autocast():
            output = self.layer(self.x)
        output.backward(self.upstream)

    def seconds(self) -> float:
        """Return the seconds of one run."""
        self.clear()
        clock = time.perf_counter if self.device == "cuda" else time.process_time
        start = clock()
        self.run()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    def peak_bytes(self) -> int:
        """Return the peak memory of one run, above what was allocated before it."""
        self.clear()
        with profile(profile_memory=True) as profiler:
            self.run()
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(trace))
            events = json.loads(trace.read_text())["traceEvents"]
        kind = 1 if self.device == "cuda" else 0
        changes = [event for event in events if event["name"] == "[memory]"]
        held = peak = 0
        for change in sorted(changes, key=lambda event: event["ts"]):
            if change["args"]["Device Type"] == kind:
                held += change["args"]["Bytes"]
                peak = max(peak, held)
        return peak


def median_ratio(times: Sequence[float], plain: Sequence[float]) -> float:
    """Return the median over the rounds of time / time of the plain layer in the same round."""
    return statistics.median(a / b for a, b in zip(times, plain, strict=True))


def main() -> None:
    """Measure every form of every layer and print one line each."""
    parser = argparse.ArgumentParser(description="Cost of an attached layer at ViT-B sizes")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--images", type=int, default=8, help=f"batch size, of {TOKENS} tokens each")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in vars(arguments).items()), "torch", torch.__version__)
    print(f"{'layer':<10} {'form':<13} {'time':>9} {'ratio':>6} {'peak memory':>12} {'ratio':>6}")
    for name, (inputs, outputs) in SHAPES.items():
        cases = {
            form: Case(make(inputs, outputs), inputs, arguments.images, arguments.device, arguments.precision)
            for form, make in FORMS.items()
        }
        for case in cases.values():
            case.run()  # warm up
        rounds = [{form: case.seconds() for form, case in cases.items()} for _ in range(arguments.rounds)]
        peaks = {form: case.peak_bytes() for form, case in cases.items()}
        for form in FORMS:
            times, plain = ([timings[f] for timings in rounds] for f in (form, "plain"))
            time_cells = f"{1e3 * statistics.median(times):6.1f} ms {median_ratio(times, plain):6.2f}"
            memory_cells = f"{peaks[form] / 2**20:8.1f} MiB {peaks[form] / peaks['plain']:6.2f}"
            print(f"{name:<10} {form:<13} {time_cells} {memory_cells}")


if __name__ == "__main__":
    main()
