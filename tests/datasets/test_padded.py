"""Batches of several modalities: stacked tensors, padded sequences, refused samples."""

import pytest
import torch

from m2pt.datasets.padded import collate, sequence
from m2pt.errors import InputError


def test_sequences_are_padded_with_zeros_and_tensors_stacked() -> None:
    samples = [
        ({"text": sequence(torch.ones(length, 2)), "image": torch.full((1, 3), float(length))}, label)
        for length, label in ((2, 1), (4, 0))
    ]
    inputs, labels = collate(samples)
    assert list(inputs) == ["text", "image"] and labels.tolist() == [1, 0] and labels.dtype == torch.int64
    assert torch.equal(inputs["image"], torch.tensor([[[2.0] * 3], [[4.0] * 3]]))
    assert inputs["text"]["lengths"].tolist() == [2, 4]
    values = inputs["text"]["values"]
    assert values.shape == (2, 4, 2) and values[0, :2].eq(1).all() and values[0, 2:].eq(0).all()
    assert values[1].eq(1).all()


def test_samples_with_other_modalities_are_refused() -> None:
    samples = [({"audio": torch.ones(1), "image": torch.ones(1)}, 0), ({"audio": torch.ones(1)}, 0)]
    with pytest.raises(InputError, match="sample 1 of a batch has the modalities audio, but sample 0 has"):
        collate(samples)


def test_a_sequence_without_steps_is_refused() -> None:
    with pytest.raises(InputError, match="length 0"):
        sequence(torch.ones(0, 4))
