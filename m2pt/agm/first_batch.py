"""Checks with the first batch: the passes give the logits of the model, and gradients can flow."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from m2pt.agm.calls import cloned, encode, own_inputs
from m2pt.agm.checks import BalancingError, Inputs
from m2pt.agm.forward_check import FORWARD_ALONE, check_equal, check_forward, forward_kept
from m2pt.agm.gradient_check import check_gradients
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.passes import SubsetPasses
from m2pt.agm.processes import mean_over_processes
from m2pt.agm.traceless import without_trace


class FirstBatches:
    """A check with the first batch, and with batch 2, 4, 8 and so on until it says something.

    Behind a layer that starts at zero all logits are 0, and nothing can be found yet.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._done = False

    def __call__(self, check: Callable[[], bool], device: torch.device) -> None:
        """Check the next batch of a training if that is due.

        Args:
            check: returns whether it says something, and raises an error.
            device: where processes exchange whether it does: all check the same batches.
        """
        if self._done:
            return
        self._seen += 1
        if self._seen.bit_count() == 1:
            says_something = torch.tensor(float(check()), device=device)
            self._done = mean_over_processes(says_something).item() == 1


def check_first_batch(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int) -> bool:
    """Check a model with its first batch; no state changes, nor does a generator.

    Args:
        model: the model, in training mode.
        passes: how its subsets are computed.
        inputs: a checked batch.
        batch: its size B.

    Returns:
        Whether the check says something: not if the logits do not depend on a modality, for example.

    Raises:
        BalancingError: `encode` and `fuse` give other logits than the model; the model changes its inputs; or
            the logits depend on a modality in a way that cannot be differentiated.
    """
    says_something = True
    if passes.encodes_once(model):
        says_something = check_forward(model, passes.modalities, inputs, batch, FORWARD_ALONE)
        with without_trace(model):
            _check_mode(model, passes, inputs)
        with without_trace(model), evaluation_mode(model):
            _check_subsets(model, passes, inputs, batch)
    else:
        with without_trace(model), evaluation_mode(model), torch.no_grad():
            forward_kept(model, passes.modalities, inputs, batch)
    with without_trace(model), evaluation_mode(model):
        return check_gradients(model, passes, inputs, batch) and says_something


@torch.no_grad()
def _check_subsets(model: nn.Module, passes: SubsetPasses, inputs: Inputs, batch: int) -> None:
    """Compare the fast path with passes of the whole model: with all modalities, and with each alone."""
    muted = {name: passes.muting(name, inputs[name], batch) for name in passes.modalities}
    found = passes(model, inputs, batch)
    for subset, logits in zip(passes.subsets, found, strict=True):
        if len(subset) in (1, len(passes.modalities)):
            given = cloned(passes.select(subset, inputs, muted), passes.modalities)
            reference = model(own_inputs(given, given))
            why = (
                f"with {', '.join(sorted(subset))} present: forward must do the same, no sample may depend "
                "on the others of its batch, and a modality in constant_when_muted must not depend on what "
                f"muting keeps. {FORWARD_ALONE}"
            )
            check_equal(model, logits, reference, why)


@torch.no_grad()
def _check_mode(model: Any, passes: SubsetPasses, inputs: Inputs) -> None:
    """Compare both modes of the encoders that are encoded once."""
    for name in passes.encoded_once(model):
        trained = encode(model, name, inputs[name])
        with without_trace(model), evaluation_mode(model):
            evaluated = encode(model, name, inputs[name])
        difference = (trained - evaluated).abs().max()
        if difference > 1e-2 * (1e-3 + evaluated.abs().max()):
            raise BalancingError(
                f"encode({name!r}, ...) of {type(model).__name__} depends on the mode, by "
                f"{difference.item():.3g}, but no module of its encoder says so: {FORWARD_ALONE}"
            )
