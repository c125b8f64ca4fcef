"""Mono-modal logits for evaluation: what each modality contributes to a trained joint model."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from m2pt.agm.calls import own_inputs
from m2pt.agm.checks import DeferredChecks, Inputs, check_inputs
from m2pt.agm.encoders import encoders_of
from m2pt.agm.forward_check import FORWARD_ALONE, check_equal
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.muting import Muting
from m2pt.agm.passes import SubsetPasses
from m2pt.agm.precision import full_precision
from m2pt.agm.responses import EmptySet, ShapleyAttribution
from m2pt.agm.settings import check_flag, check_modalities, check_module

_COMPARED: WeakSet[nn.Module] = WeakSet()
"""Models whose `encode` and `fuse` were found to give the logits of `forward`."""


@torch.no_grad()
def mono_modal_logits(
    model: nn.Module,
    inputs: Inputs,
    modalities: Sequence[str] | None = None,
    *,
    empty: EmptySet = "omitted",
    muting: Muting | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
    fast_path: bool = True,
) -> dict[str, Tensor]:
    """Return the response of each modality in evaluation mode, for any model, however it was trained.

    Args:
        model: see `AdaptiveGradientModulation`. It is left in the mode that it was in.
        inputs: the batch by modality.
        modalities: names of the modalities; by default `model.modalities`, or else those of the encoders, or
            else the keys of `inputs`.
        empty: "omitted": the responses sum to the logits `model(inputs)`, so that no further pass is needed
            for those. "subtracted": the textbook's Shapley values.
        muting: what replaces the input of a muted modality; zeros by default.
        encoders: the part of the model that encodes each modality; by default `model.encoders`.
        fast_path: False never uses `encode` and `fuse`.

    Returns:
        Responses (B, num_classes) by modality, in float32 or better; of one modality alone its logits.

    Raises:
        BalancingError: the model is no module; the batch does not fit, or is changed by the model; a response
            is not finite; or `encode` and `fuse` give other logits than the model.
    """
    check_module("mono_modal_logits: model", model)
    check_flag("mono_modal_logits: fast_path", fast_path)
    if modalities is None:
        known = getattr(model, "encoders", None) if encoders is None else encoders
        modalities = getattr(model, "modalities", None) or _keys(known) or _keys(inputs)
    names = check_modalities("mono_modal_logits", modalities, 1)
    attribution = ShapleyAttribution(names, empty)
    muting = Muting() if muting is None else muting
    known = encoders_of(model, names, encoders)
    passes = SubsetPasses(names, attribution.subsets, muting, known, fast=fast_path)
    return evaluate_responses(model, passes, attribution, inputs)


@torch.no_grad()
def evaluate_responses(
    model: nn.Module, passes: SubsetPasses, attribution: ShapleyAttribution, inputs: Inputs
) -> dict[str, Tensor]:
    """Return the responses of a batch in evaluation mode, given how the subsets are computed."""
    batch = check_inputs(inputs, passes.modalities, checks := DeferredChecks())
    with evaluation_mode(model):
        values = passes(model, inputs, batch)
        if passes.encodes_once(model) and model not in _COMPARED:
            _compare(model, passes, values, inputs)
    with full_precision(values.device):
        responses = attribution.to(values.device)(values)
        messages = [
            f"the response of modality {name!r} is NaN or infinite: check the inputs and the model's weights"
            for name in passes.modalities
        ]
        checks.require(responses.isfinite().flatten(1).all(1), messages)
    checks.poll(wait=True)
    return dict(zip(passes.modalities, responses, strict=True))


def _compare(model: nn.Module, passes: SubsetPasses, values: Tensor, inputs: Inputs) -> None:
    """Compare the logits of the fast path with those of the model, until logits that differ were equal."""
    reference = model(own_inputs(inputs, passes.modalities))
    why = f"in evaluation mode: forward must do the same, and no sample may depend on others. {FORWARD_ALONE}"
    check_equal(model, values[-1], reference, why)
    if (values != values[:1, :1]).any():
        _COMPARED.add(model)


def _keys(values: Any) -> list[Any]:
    """Return the keys of a mapping or a `ModuleDict`; of anything else there are none."""
    return list(values.keys()) if isinstance(values, Mapping | nn.ModuleDict) else []
