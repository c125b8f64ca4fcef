"""Checks of a batch, at once and deferred."""

import copy
import pickle

import pytest
import torch

from m2pt.agm.checks import BalancingError, DeferredChecks, check_inputs, check_target

AUDIO, VISUAL = torch.zeros(3, 2), torch.zeros(3, 4, 4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([AUDIO, VISUAL], "inputs must be a dict by modality, got list"),
        ({"audio": AUDIO}, "the batch lacks modality 'visual'; it has 'audio'"),
        ({"audio": AUDIO, "visual": VISUAL, "text": AUDIO}, "has modality 'text', which is not among"),
        (
            {"audio": AUDIO, "visual": VISUAL[:2]},
            "differ in batch size: modality 'audio' 3, modality 'visual' 2",
        ),
        ({"audio": AUDIO, "visual": torch.tensor(1.0)}, "'visual' is a scalar"),
        ({"audio": AUDIO, "visual": VISUAL[:, :0]}, r"'visual' is empty: shape \(3, 0, 4\)"),
        ({"audio": AUDIO, "visual": None}, "'visual' must be a tensor or a dict of tensors, got NoneType"),
        ({"audio": AUDIO, "visual": {}}, "'visual' must be a tensor or a dict of tensors"),
        (
            {"audio": AUDIO, "visual": {"values": [1]}},
            "'values' of modality 'visual' must be a tensor, got list",
        ),
        (
            {"audio": AUDIO, "visual": {"values": VISUAL, "lengths": torch.tensor([4, 0, 1])}},
            "modality 'visual' has a sequence of length 0",
        ),
        (
            {"audio": AUDIO, "visual": {"values": VISUAL, "lengths": torch.ones(3)}},
            "'lengths' of modality 'visual' must be integers, got torch.float32",
        ),
        (
            {"audio": AUDIO, "visual": {"values": VISUAL, "lengths": torch.tensor([4, 1])}},
            "'values' of modality 'visual' 3, 'lengths' of modality 'visual' 2",
        ),
    ],
)
def test_wrong_inputs(inputs: dict, message: str) -> None:
    with pytest.raises(BalancingError, match=message):
        check_inputs(inputs, ("audio", "visual"), DeferredChecks())


def test_a_single_modality_allows_others() -> None:
    inputs = {"audio": AUDIO, "visual": VISUAL[:2]}
    assert check_inputs(inputs, ("audio",), DeferredChecks()) == 3


def test_the_batch_size_of_right_inputs() -> None:
    assert (
        check_inputs({"audio": AUDIO, "visual": {"values": VISUAL}}, ("audio", "visual"), DeferredChecks())
        == 3
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.zeros(3), "class indices, got torch.float32"),
        ([0, 1, 2], "class indices, got list"),
        (torch.zeros(3, dtype=torch.bool), "class indices, got torch.bool"),
        (torch.zeros(3, dtype=torch.cfloat), "class indices, got torch.complex64"),
        (torch.zeros(3, 1).long(), r"target must have the shape \(3,\), got \(3, 1\)"),
        (torch.zeros(2).long(), r"target must have the shape \(3,\), got \(2,\)"),
    ],
)
def test_wrong_targets(target: torch.Tensor, message: str) -> None:
    with pytest.raises(BalancingError, match=message):
        check_target(target, 3)


class Later:
    """An event of a GPU that has not happened yet, then has."""

    def __init__(self) -> None:
        self.happened = False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.happened = True


def test_a_condition_on_a_gpu_is_raised_when_it_is_known() -> None:
    checks, event = DeferredChecks(), Later()
    checks._pending.append((torch.tensor([True, False]), event, ["first", "second"]))
    checks.poll()
    event.happened = True
    with pytest.raises(BalancingError, match="second"):
        checks.poll()
    checks.poll()
    checks._pending.append((torch.tensor([False]), Later(), ["third"]))
    with pytest.raises(BalancingError, match="third"):
        checks.poll(wait=True)


def test_pending_conditions_are_not_copied() -> None:
    checks = DeferredChecks()
    checks._pending.append((torch.tensor([False]), Later(), ["third"]))
    copy.deepcopy(checks).poll(wait=True)
    pickle.loads(pickle.dumps(checks)).poll(wait=True)  # our own bytes
