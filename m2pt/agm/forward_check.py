"""A check that `encode` and `fuse` do what a model's `forward` does, in both modes."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.calls import cloned, encode, fuse, own_inputs, unchanged
from m2pt.agm.checks import BalancingError, Inputs, check_logits
from m2pt.agm.encoders import check_shaped
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.traceless import SameDraws, generators_of, without_trace

FORWARD_ALONE = "fast_path=False uses forward alone"
"""Advice for methods that can do without `encode` and `fuse`."""

KEEP_INPUTS = "use operations that do not work in place there, such as ReLU(inplace=False)"
"""Advice for models that change what they are given."""


@torch.no_grad()
def check_forward(
    model: nn.Module, modalities: Iterable[str], inputs: Inputs, batch: int, advice: str
) -> bool:
    """Check `fuse(encode(...))` against `forward`; nothing of the model changes, nor does a generator.

    In training mode both draw the same random numbers, whatever their order.

    Args:
        model: a model with `encode` and `fuse`, in training mode.
        modalities: names of its modalities.
        inputs: a checked batch.
        batch: its size B.
        advice: what to do otherwise, for messages.

    Returns:
        Whether the check says something: not if the logits are the same for all samples.

    Raises:
        BalancingError: they differ; the model has hooks that `encode` and `fuse` would skip, or parameters
            without a shape; or it changes its inputs or features in place.
    """
    name = type(model).__name__
    check_shaped(model)
    if model._forward_hooks or model._forward_pre_hooks or model._backward_hooks or model._backward_pre_hooks:
        raise BalancingError(f"{name} has hooks of its own, which encode and fuse would skip: {advice}")
    names = list(modalities)
    with evaluation_mode(model):
        reference = _pass(model, lambda: forward_kept(model, names, inputs, batch))[0]
        found = _pass(model, lambda: _encoded(model, names, inputs, batch, advice))[0]
    check_equal(model, found, reference, f"in evaluation mode: forward must do the same. {advice}")
    says_something = _tells(reference)
    reference, drawn = _pass(model, lambda: forward_kept(model, names, inputs, batch))
    found, others = _pass(model, lambda: _encoded(model, names, inputs, batch, advice))
    if different := sorted(each for each in drawn | others if drawn[each] != others[each]):
        raise BalancingError(
            f"forward of {name} draws other random numbers in training mode than fuse(encode(...)), in "
            f"{', '.join(different)}: keep dropout and the like in encode or fuse. {advice}"
        )
    check_equal(model, found, reference, f"in training mode: forward must do the same. {advice}")
    return says_something


def check_equal(model: nn.Module, found: Tensor, reference: Tensor, why: str) -> None:
    """Check that logits equal those of `forward` up to rounding.

    Raises:
        BalancingError: they do not.
    """
    exact = found.dtype == torch.float64
    low = torch.is_autocast_enabled(found.device.type) or (not exact and _is_low_precision(model))
    tolerance = 1e-8 if exact else 5e-2 if low else 1e-3
    difference = (found - reference.to(found.dtype)).abs().max()
    if difference > tolerance * (1e-3 + reference.abs().max()):
        raise BalancingError(
            f"fuse(encode(...)) of {type(model).__name__} differs from its forward by "
            f"{difference.item():.3g} {why}"
        )


def forward_kept(model: nn.Module, modalities: Iterable[str], inputs: Inputs, batch: int) -> Tensor:
    """Return the logits of the whole model, for a copy of the inputs that it must not change.

    Raises:
        BalancingError: the model changes an input in place, or does not return logits.
    """
    name = type(model).__name__
    given = cloned(inputs, modalities)
    with unchanged(given, name, "inputs", KEEP_INPUTS):
        logits: Tensor = model(own_inputs(given, given))
    check_logits(logits, batch, name)
    return logits


def _encoded(model: Any, modalities: Iterable[str], inputs: Inputs, batch: int, advice: str) -> Tensor:
    """Return the logits of `fuse(encode(...))`, with the same conditions for inputs and features."""
    name = type(model).__name__
    given = cloned(inputs, modalities)
    with unchanged(given, f"encode of {name}", "inputs", KEEP_INPUTS):
        features = {each: encode(model, each, value) for each, value in given.items()}
    with unchanged(features, f"fuse of {name}", "features", f"{KEEP_INPUTS}. {advice}"):
        logits: Tensor = fuse(model, inputs, features)
    check_logits(logits, batch, f"fuse of {name}")
    return logits


def _pass(model: nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, Counter[str]]:
    """Return the logits of a pass without a trace, and how often each function of torch drew in it."""
    with without_trace(model), torch.compiler.set_stance("force_eager"):
        with SameDraws(generators_of(model)) as draws:
            logits = compute()
        return logits, draws.drawn


def _tells(logits: Tensor) -> bool:
    """Return whether finite logits differ between samples; of a single sample, whether one is not 0."""
    differ = logits != logits[:1] if len(logits) > 1 else logits != 0
    return bool(differ.any() & logits.isfinite().all())


def _is_low_precision(model: nn.Module) -> bool:
    """Return whether a model's weights are float16 or bfloat16."""
    return any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
