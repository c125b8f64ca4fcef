"""A joint model of padded sequences: {"values": (B, T, D), "lengths": (B,)} for each modality."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CLASSES = 3


class SequenceEncoder(nn.Module):
    """Attention over the valid positions, and their mean; lengths may matter to the output or not."""

    def __init__(self, dropout: float, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        self.project = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)

    def forward(self, sequence: Mapping[str, Tensor]) -> Tensor:
        values, lengths = sequence["values"], sequence["lengths"]
        padding = torch.arange(values.shape[1]) >= lengths.unsqueeze(1)
        hidden = self.layer(self.project(values), src_key_padding_mask=padding)
        mean = (hidden * ~padding.unsqueeze(2)).sum(1) / lengths.unsqueeze(1)
        return mean * lengths.unsqueeze(1) if self.counts else mean


class SequenceJoint(nn.Module):
    """Late fusion of two or more sequences."""

    def __init__(self, modalities: tuple[str, ...], *, dropout: float = 0.0, counts: bool = False) -> None:
        super().__init__()
        self.modalities = modalities
        self.encoders = nn.ModuleDict({name: SequenceEncoder(dropout, counts) for name in modalities})
        self.fusion = nn.Linear(8 * len(modalities), CLASSES)
        self.rows = 0

    def encode(self, modality: str, value: Mapping[str, Tensor]) -> Tensor:
        self.rows += len(value["values"])
        return self.encoders[modality](value)

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.fusion(torch.cat([features[name] for name in self.modalities], 1))

    def forward(self, inputs: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        return self.fuse({name: self.encode(name, inputs[name]) for name in self.modalities})


def sequences(modalities: tuple[str, ...], size: int = 5, steps: int = 6):
    """Return random sequences in float64 of different lengths, zero beyond them, and labels."""
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for name in modalities:
        lengths = torch.randint(1, steps + 1, (size,), generator=generator)
        values = torch.randn(size, steps, 4, generator=generator, dtype=torch.float64)
        valid = torch.arange(steps) < lengths.unsqueeze(1)
        inputs[name] = {"values": values * valid.unsqueeze(2), "lengths": lengths}
    return inputs, torch.randint(CLASSES, (size,), generator=generator)
