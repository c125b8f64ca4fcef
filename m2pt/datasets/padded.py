"""Batches of samples with several modalities, in which sequences may differ in length."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m2pt.errors import InputError


def sequence(values: Tensor) -> dict[str, Tensor]:
    """Return a sequence (T, D) in the form that `collate` pads: values and length.

    Raises:
        InputError: the sequence has no steps.
    """
    if not len(values):
        raise InputError("a sequence of length 0 cannot be an input: leave the sample out.")
    return {"values": values, "lengths": torch.tensor(len(values))}


def collate(samples: Sequence[tuple[Mapping[str, Any], int]]) -> tuple[dict[str, Any], Tensor]:
    """Stack samples `({modality: input}, label)`.

    Tensors of a modality are stacked to (B, ...). Sequences `{"values": (T, D), "lengths": ()}` become
    `{"values": (B, longest T, D), "lengths": (B,)}`, padded with zeros at the end.

    Returns:
        Inputs by modality, in the order of the first sample, and labels (B,).

    Raises:
        InputError: a sample lacks a modality of the first one or has another one.
    """
    modalities = list(samples[0][0])
    for number, (inputs, _) in enumerate(samples):
        if set(inputs) != set(modalities):
            raise InputError(
                f"sample {number} of a batch has the modalities {', '.join(sorted(inputs))}, but "
                f"sample 0 has {', '.join(sorted(modalities))}."
            )
    batch = {modality: _stacked([inputs[modality] for inputs, _ in samples]) for modality in modalities}
    return batch, torch.tensor([label for _, label in samples])


def _stacked(inputs: Sequence[Any]) -> Any:
    if isinstance(inputs[0], Tensor):
        return torch.stack(list(inputs))
    return {
        "values": pad_sequence([each["values"] for each in inputs], batch_first=True),
        "lengths": torch.stack([each["lengths"] for each in inputs]),
    }
