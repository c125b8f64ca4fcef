"""Mono-modal logits for evaluation: what each modality contributes to a trained joint model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from m2pt.agm.checks import DeferredChecks, Inputs, check_inputs
from m2pt.agm.encoders import encoders_of
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.muting import Muting
from m2pt.agm.passes import SubsetPasses
from m2pt.agm.precision import full_precision
from m2pt.agm.responses import EmptySet, ShapleyAttribution
from m2pt.agm.settings import check_modalities, check_module


@torch.no_grad()
def mono_modal_logits(
    model: nn.Module,
    inputs: Inputs,
    modalities: Sequence[str] | None = None,
    *,
    empty: EmptySet = "omitted",
    muting: Muting | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
) -> dict[str, Tensor]:
    """Return the response of each modality in evaluation mode, for any model, however it was trained.

    Args:
        model: see `AdaptiveGradientModulation`. It is left in the mode that it was in.
        inputs: the batch by modality.
        modalities: names of the modalities; by default `model.modalities`, or else the keys of `inputs`.
        empty: "omitted": the responses sum to the logits `model(inputs)`, so that no further pass is needed
            for those. "subtracted": the textbook's Shapley values.
        muting: what replaces the input of a muted modality; zeros by default.
        encoders: the part of the model that encodes each modality; by default `model.encoders`.

    Returns:
        Responses (B, num_classes) by modality, in float32 or better; of one modality alone its logits.

    Raises:
        BalancingError: the model is no module, or the batch does not fit.
    """
    check_module("mono_modal_logits: model", model)
    if modalities is None:
        modalities = getattr(model, "modalities", None) or list(inputs)
    names = check_modalities("mono_modal_logits", modalities, 1)
    attribution = ShapleyAttribution(names, empty)
    muting = Muting() if muting is None else muting
    passes = SubsetPasses(names, attribution.subsets, muting, encoders_of(model, names, encoders))
    return evaluate_responses(model, passes, attribution, inputs)


@torch.no_grad()
def evaluate_responses(
    model: nn.Module, passes: SubsetPasses, attribution: ShapleyAttribution, inputs: Inputs
) -> dict[str, Tensor]:
    """Return the responses of a batch in evaluation mode, given how the subsets are computed."""
    batch = check_inputs(inputs, passes.modalities, checks := DeferredChecks())
    with evaluation_mode(model):
        values = passes(model, inputs, batch)
    checks.poll(wait=True)
    with full_precision(values.device):
        responses = attribution.to(values.device)(values)
    return dict(zip(passes.modalities, responses, strict=True))
