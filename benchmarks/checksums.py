"""Cost of checksums when saving and reading states and weights, at the size of ViT-B with AdamW.

    python benchmarks/checksums.py [FOLDER]

Saves and reads resume.pt and encoder.safetensors with checksums and with the plain libraries, in alternating
order. Prints the best round of each, the least disturbed by other processes, and the ratio. FOLDER, on the
disk to be measured, needs 3 GiB; the default is the system's folder for temporary files. The libraries map
files into memory and read nothing until a tensor is used, so that the benchmark sums every tensor.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from m2pt.atomic import replacing
from m2pt.formats.weights import load_weights, save_weights
from m2pt.training import checkpoint

ROUNDS = 10


def resume_state() -> dict[str, object]:
    """Return 86 million parameters with AdamW's two moments of each."""
    model = VisionTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"identity": "0", "step": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def save_plain_state(path: Path, state: dict[str, object]) -> None:
    """Save like `checkpoint.save`, without a checksum."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def save_plain_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Save like `save_weights`, without a checksum."""
    with replacing(path) as temporary:
        save_file(state, temporary)


def read_all(tensors: dict[str, torch.Tensor]) -> float:
    """Read every number once, as loading into a model does."""
    return sum(tensor.sum().item() for tensor in tensors.values())


def seconds(body: Callable[[], object]) -> float:
    """Return the wall time of a call that starts with empty write buffers."""
    os.sync()
    began = time.perf_counter()
    body()
    return time.perf_counter() - began


def time_pair(pair: tuple[Callable[[], object], ...], *, reverse: bool) -> list[float]:
    """Return the seconds of each call of a pair. The first also pays for what the call before it left."""
    times = [seconds(body) for body in (reversed(pair) if reverse else pair)]
    return times[::-1] if reverse else times


def main(folder: Path) -> None:
    """Measure everything and print it."""
    torch.set_num_threads(1)
    state = resume_state()
    weights: dict[str, torch.Tensor] = state["model"]  # type: ignore[assignment]
    resume, encoder = folder / "resume.pt", folder / "encoder.safetensors"
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "save resume.pt": (
            lambda: checkpoint.save(resume, state),
            lambda: save_plain_state(folder / "plain.pt", state),
        ),
        "read resume.pt": (
            lambda: read_all(checkpoint.load(resume)["model"]),
            lambda: read_all(torch.load(folder / "plain.pt", weights_only=True)["model"]),
        ),
        "save encoder.safetensors": (
            lambda: save_weights(encoder, weights, {}),
            lambda: save_plain_weights(folder / "plain.safetensors", weights),
        ),
        "read encoder.safetensors": (
            lambda: read_all(load_weights(encoder)[0]),
            lambda: read_all(load_file(folder / "plain.safetensors")),
        ),
    }
    rounds = [
        {name: time_pair(pair, reverse=number % 2 == 1) for name, pair in pairs.items()}
        for number in range(ROUNDS)
    ]
    print(
        f"resume.pt {resume.stat().st_size / 2**20:.0f} MiB, encoder {encoder.stat().st_size / 2**20:.0f} MiB"
    )
    best = {
        name: tuple(min(times) for times in zip(*(each[name] for each in rounds), strict=True))
        for name in pairs
    }
    saving = [value for name, value in best.items() if name.startswith("save")]
    best["save both"] = tuple(sum(times) for times in zip(*saving, strict=True))
    for name, (ours, plain) in best.items():
        print(f"{name:25} {ours:.3f} s with checksum, {plain:.3f} s without: ratio {ours / plain:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary_folder:
        main(Path(temporary_folder))
