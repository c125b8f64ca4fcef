"""Overhead of `fit` over a bare loop with the same model, batches and optimizer.

    python benchmarks/training_overhead.py

Prints milliseconds per step of both, their ratio, and the time from the start to the first step.
"""

import time

STARTED = time.perf_counter()

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from timm.models.vision_transformer import Block  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from m2pt.datasets.base import SeededDataset  # noqa: E402
from m2pt.training.loop import fit  # noqa: E402
from m2pt.training.settings import TrainingSettings  # noqa: E402

STEPS, BATCH, ROUNDS = 200, 32, 3
SETTINGS = TrainingSettings(
    steps=STEPS, batch_size=BATCH, lr=1e-3, weight_decay=0.05, clip_grad=1.0, checkpoint_every=100
)


class Stored(SeededDataset):
    """Samples in memory: the work of a reader is not measured."""

    def __init__(self) -> None:
        super().__init__()
        self.images = torch.randn(1000, 16, 64)

    def __len__(self) -> int:
        """Return 1,000."""
        return len(self.images)

    def load(self, index: int) -> tuple[torch.Tensor, int]:
        """Return 16 tokens of 64 numbers, and a label."""
        return self.images[index], index % 10


class Model(nn.Module):
    """The miniature's body: 6 blocks of width 64."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[Block(64, 4) for _ in range(6)])
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (B, 16, 64) to (B, 10)."""
        return self.head(self.blocks(tokens).mean(1))


def bare(dataset: Stored) -> float:
    """Return the seconds of a loop as one would type it."""
    model = Model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    began = time.perf_counter()
    for _ in range(STEPS):
        images, labels = torch.utils.data.default_collate([dataset[i] for i in range(BATCH)])
        cross_entropy(model(images), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began


class Loss:
    """Cross-entropy that records when it is first called."""

    first: float | None = None

    def __call__(
        self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return what `fit` expects of a loss."""
        Loss.first = Loss.first or time.perf_counter()
        return cross_entropy(model(batch[0]), batch[1]), {}


def with_fit(dataset: Stored) -> float:
    """Return the seconds of `fit`, including checkpoints and logs."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(model, Loss(), dataset, settings=SETTINGS, directory=Path(folder), identity="0", seed=0)
        return time.perf_counter() - began


def main() -> None:
    """Alternate the two and print the best round of each: the least disturbed by other processes."""
    torch.set_num_threads(1)
    dataset = Stored()
    rounds = [(with_fit(dataset), bare(dataset)) for _ in range(ROUNDS)]
    ours, plain = (min(times) for times in zip(*rounds, strict=True))
    print(f"fit {ours / STEPS * 1e3:.2f} ms/step, bare loop {plain / STEPS * 1e3:.2f} ms/step: ", end="")
    print(f"ratio {ours / plain:.3f}")
    if Loss.first is not None:
        print(f"from start to first step {Loss.first - STARTED:.1f} s, imports included")


if __name__ == "__main__":
    main()
