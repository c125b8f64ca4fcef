"""Cost of pathways and use of the device on one GPU: every figure in one JSON.

    python benchmarks/gpu.py [--output gpu.json] [--rounds 10] [--batches 64 256]

It needs torch, timm, pydantic, PyYAML and this package, a GPU with bf16, and less than five minutes; on a
CPU, with a small `--model`, it only shows that it runs. Forms of one comparison take turns in every round,
and ratios are medians over the rounds. A step is forward and backward under autocast to bf16 and fused AdamW.

`finetuning` compares the model with pathways to the plain one, as it is and compiled; `inference` compares
the merged model to the plain one; `pretraining` is MAE with this project's model. `share` is the rate of
floating-point operations (matrix products, convolutions and attention) over that of one large matrix product
measured in the same run. `resume` says whether two steps after a checkpoint have the losses of an
uninterrupted training, bit by bit. `agm` is the step with adaptive gradient modulation over a joint one.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from agm import CLASSES, Case, resnets, transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from m2pt.agm import AdaptiveGradientModulation, Joint
from m2pt.models.masked_autoencoder import build_masked_autoencoder
from m2pt.pathway import attach, merge

Step = Callable[[], Any]


class Device:
    """A device with its clock and its memory."""

    def __init__(self, kind: str, rounds: int) -> None:
        self.kind, self.rounds = kind, rounds
        self.name = torch.cuda.get_device_name() if kind == "cuda" else "CPU"

    def seconds(self, step: Step) -> float:
        """Return the time that a step takes."""
        self._wait()
        start = time.perf_counter()
        step()
        self._wait()
        return time.perf_counter() - start

    def medians(self, steps: Mapping[str, Step]) -> dict[str, float]:
        """Return the median time of each step; they take turns, after two that do not count."""
        for step in steps.values():
            step()
            step()
        rounds = [{name: self.seconds(step) for name, step in steps.items()} for _ in range(self.rounds)]
        return {name: statistics.median(each[name] for each in rounds) for name in steps}

    @contextmanager
    def peak(self, into: dict[str, float | None], key: str) -> Iterator[None]:
        """Store the peak of allocated memory in MiB; None on a CPU, which does not tell."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield
        into[key] = torch.cuda.max_memory_allocated() / 2**20 if self.kind == "cuda" else None

    def _wait(self) -> None:
        if self.kind == "cuda":
            torch.cuda.synchronize()


class Training:
    """A classifier, its optimizer and one batch."""

    def __init__(self, arguments: argparse.Namespace, batch: int, *, pathways: bool, compiled: bool = False):
        torch.manual_seed(0)
        self.device = arguments.device
        model = classifier(arguments)
        if pathways:
            attach(model, classifier(arguments), scale_init=0.01)
        self.plain = model.to(self.device)
        self.model = torch.compile(self.plain) if compiled else self.plain
        self.optimizer = torch.optim.AdamW(self.plain.parameters(), lr=1e-4, fused=True)
        self.images, self.target = (
            images(arguments, batch),
            torch.zeros(batch, dtype=torch.long).to(self.device),
        )

    def step(self) -> Tensor:
        """Take one step and return its loss."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16):
            loss = F.cross_entropy(self.model(self.images), self.target)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"model": self.plain.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.plain.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def classifier(arguments: argparse.Namespace) -> nn.Module:
    """Return the plain model."""
    return timm.create_model(arguments.model, img_size=arguments.image_size)


def images(arguments: argparse.Namespace, batch: int) -> Tensor:
    """Return a batch of random images."""
    return torch.randn(batch, 3, arguments.image_size, arguments.image_size, device=arguments.device)


def flops(step: Step) -> int:
    """Return the floating-point operations of a step; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def matrix_rate(device: Device) -> float:
    """Return the operations per second of a large matrix product in bf16."""
    size = 8192 if device.kind == "cuda" else 512
    one, other = (torch.randn(size, size, device=device.kind, dtype=torch.bfloat16) for _ in range(2))
    seconds = device.medians({"product": lambda: [one @ other for _ in range(10)]})["product"] / 10
    return 2 * size**3 / seconds


def finetuning(arguments: argparse.Namespace, device: Device, batch: int, rate: float) -> dict[str, Any]:
    """Measure a training step with pathways and without."""
    memory: dict[str, float | None] = {}
    for name in ("plain", "attached"):
        with device.peak(memory, name):
            training = Training(arguments, batch, pathways=name == "attached")
            training.step()
            training.step()
        del training
    result: dict[str, Any] = {"batch": batch, "peak_mebibytes": memory}
    for compiled in (False, True):
        plain, attached = (
            Training(arguments, batch, pathways=pathways, compiled=compiled) for pathways in (False, True)
        )
        times = device.medians({"plain": plain.step, "attached": attached.step})
        result["compiled" if compiled else "eager"] = {
            "plain_seconds": times["plain"],
            "attached_over_plain": times["attached"] / times["plain"],
        }
        if not compiled:
            work = flops(plain.step)
        found = result["compiled" if compiled else "eager"]
        found["share"] = work / times["plain"] / rate
        found["share_attached"] = work / times["attached"] / rate
        torch.compiler.reset()
    return result


def inference(arguments: argparse.Namespace, device: Device, batch: int) -> dict[str, float]:
    """Measure the merged model beside the plain one."""
    plain, merged = (Training(arguments, batch, pathways=pathways) for pathways in (False, True))
    merge(merged.plain)

    def forward(training: Training) -> Step:
        training.plain.eval()

        def step() -> None:
            with torch.inference_mode(), torch.autocast(training.device, torch.bfloat16):
                training.plain(training.images)

        return step

    times = device.medians({"plain": forward(plain), "merged": forward(merged)})
    return {
        "batch": batch,
        "plain_seconds": times["plain"],
        "merged_over_plain": times["merged"] / times["plain"],
    }


def pretraining(arguments: argparse.Namespace, device: Device, batch: int, rate: float) -> dict[str, float]:
    """Measure a step of MAE at the paper's sizes: width, depth and heads are the model's."""
    torch.manual_seed(0)
    like: Any = classifier(arguments)
    backbone = {
        "dim": like.embed_dim,
        "depth": len(like.blocks),
        "num_heads": like.blocks[0].attn.num_heads,
        "mlp_ratio": 4.0,
    }
    model = build_masked_autoencoder(
        "image",
        input={"image_size": arguments.image_size},
        tokenizer={"patch_size": like.patch_embed.patch_size[0]},
        backbone=backbone,
        decoder={"dim": 512, "depth": 8, "num_heads": 16},
        mask_ratio=0.75,
    ).to(arguments.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x = images(arguments, batch)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(arguments.device, torch.bfloat16):
            loss = model(x)
        loss.backward()
        optimizer.step()

    seconds = device.medians({"step": step})["step"]
    return {"batch": batch, "seconds": seconds, "share": flops(step) / seconds / rate}


def resume(arguments: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Compare the losses of two steps after a checkpoint with those of an uninterrupted training."""
    first = Training(arguments, batch, pathways=True)
    first.step()
    first.step()
    stored = io.BytesIO()
    torch.save(first.state(), stored)
    expected = [first.step().item() for _ in range(2)]
    stored.seek(0)
    again = Training(arguments, batch, pathways=True)
    again.load(torch.load(stored, weights_only=True))
    found = [again.step().item() for _ in range(2)]
    return {"equal": found == expected, "losses": expected}


def modulation(device: Device, batch: int) -> dict[str, float]:
    """Measure forward and backward of AGM beside those of joint training."""
    cases: dict[str, Callable[[int], Case]] = {
        "two ResNet-18": resnets,
        "three transformers, dropout 0.1": lambda size: transformers(size, 3, 0.1),
        "three transformers": lambda size: transformers(size, 3, 0.0),
    }
    found = {}
    for name, build in cases.items():
        torch.manual_seed(0)
        model, inputs = build(batch)
        model, inputs = model.to(device.kind), moved(inputs, device.kind)
        target = torch.randint(CLASSES, (batch,), device=device.kind)
        methods = {"joint": Joint(model), "agm": AdaptiveGradientModulation(model, alpha=0.5).to(device.kind)}
        losses = {key: partial(method.loss, inputs, target) for key, method in methods.items()}
        times = device.medians({key: partial(backward, loss) for key, loss in losses.items()})
        found[name] = times["agm"] / times["joint"]
    return found


def backward(loss: Callable[[], Tensor]) -> None:
    """Compute a loss and its gradients."""
    loss().backward()


def moved(value: Any, device: str) -> Any:
    """Return inputs on a device."""
    if isinstance(value, Mapping):
        return {name: moved(each, device) for name, each in value.items()}
    return value.to(device)


def main() -> None:
    """Measure everything and write the JSON."""
    parser = argparse.ArgumentParser(description="Cost of pathways and use of the device on one GPU")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--output", type=Path, help="file to write; else it is printed")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --model vit_tiny_patch16_224 shows that it runs")
    device = Device(arguments.device, arguments.rounds)
    rate = matrix_rate(device)
    result: dict[str, Any] = {
        "device": device.name,
        "torch": torch.__version__,
        "model": arguments.model,
        "image_size": arguments.image_size,
        "rounds": arguments.rounds,
        "matrix_product_teraflops": rate / 1e12,
        "finetuning": [finetuning(arguments, device, batch, rate) for batch in arguments.batches],
        "inference": [inference(arguments, device, batch) for batch in arguments.batches],
        "pretraining": [pretraining(arguments, device, batch, rate) for batch in arguments.batches],
        "resume": resume(arguments, arguments.batches[0]),
        "agm_over_joint": modulation(device, arguments.batches[0]),
    }
    text = json.dumps(result, indent=2)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
