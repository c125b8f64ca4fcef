"""Tests of tensors that are kept in memory."""

import pytest
import torch

from m2pt.datasets.kept import KeptTensors


class Files:
    """Tensors by key, and the keys that were read."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def read(self, key: str) -> torch.Tensor:
        self.reads.append(key)
        if key == "broken":
            raise OSError(key)
        return torch.arange(40, dtype=torch.uint8).view(2, 20)[:, : int(key)]


def test_a_tensor_is_read_once():
    files = Files()
    tensors = KeptTensors(files.read)
    first, second = tensors("3"), tensors("3")
    assert files.reads == ["3"]
    assert torch.equal(first, torch.tensor([[0, 1, 2], [20, 21, 22]], dtype=torch.uint8))
    assert torch.equal(first, second)


def test_a_caller_s_change_in_place_is_the_caller_s_alone():
    tensors = KeptTensors(Files().read)
    for _ in range(3):
        tensor = tensors("2")
        assert tensor.tolist() == [[0, 1], [20, 21]]
        tensor.zero_()


def test_the_limit_counts_bytes_and_a_smaller_tensor_may_still_fit():
    files = Files()
    tensors = KeptTensors(files.read, limit_bytes=10)
    for _ in range(2):
        for key in ("4", "2", "1"):  # 8, 4 and 2 bytes
            assert tensors(key).shape == (2, int(key))
    assert files.reads == ["4", "2", "1", "2"]


def test_a_tensor_that_cannot_be_read_is_tried_again():
    files = Files()
    tensors = KeptTensors(files.read)
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            tensors("broken")
    assert files.reads == ["broken", "broken"]
