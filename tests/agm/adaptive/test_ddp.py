"""Two gloo processes with half a batch each equal one process with the whole batch."""

import torch
from balancing_processes import train_modulated
from torch import Tensor


def test_two_processes_equal_one(two_processes: list[dict[str, dict[str, Tensor]]]) -> None:
    results = [states["modulated"] for states in two_processes]
    expected = train_modulated()
    assert not torch.allclose(expected["coefficients"][1], torch.ones(3).double(), rtol=0.01)
    assert torch.equal(expected["coefficients"][2], torch.ones(3).double())
    assert results[0].keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(results[0][key], results[1][key]), key
        torch.testing.assert_close(results[0][key], value, rtol=1e-9, atol=1e-12, msg=key)
    assert expected["modulation.batches"].item() == 2
