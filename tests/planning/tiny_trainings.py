"""How a training of the tiny config is found, and the sizes of its image classifiers."""

from pathlib import Path

import torch

TINY = Path("tests/tiny/config.yaml")
META = torch.device("meta")
BATCH, TOKENS, DIM, DEPTH, HIDDEN, CLASSES = 16, 17, 16, 4, 32, 10
"""Of the tiny config's image classifiers: 16 patches of 8 x 8 pixels and a class token."""
LINEAR = {"qkv": 3 * DIM * DIM, "proj": DIM * DIM, "fc1": DIM * HIDDEN, "fc2": HIDDEN * DIM}


def find(tiny, beginning):
    return next(training for id, training in tiny.items() if id.startswith(beginning))
