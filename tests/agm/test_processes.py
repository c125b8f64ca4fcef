"""Sums and means, over two processes and in one."""

import torch
from torch import Tensor

from m2pt.agm.processes import mean_over_processes, processes, sum_over_processes


def test_sums_and_means_of_two_processes(two_processes: list[dict[str, dict[str, Tensor]]]) -> None:
    for rank, states in enumerate(two_processes):
        found = states["rank"]
        assert found["sum"].tolist() == [3.0, 30.0]
        assert found["mean"].tolist() == [1.5, 15.0]
        assert found["own"].tolist() == [rank + 1, 10 * (rank + 1)]


def test_a_process_alone() -> None:
    value = torch.tensor([2.0])
    assert processes() == 1
    assert torch.equal(sum_over_processes(value), value) and torch.equal(mean_over_processes(value), value)
