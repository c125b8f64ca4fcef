"""Mono-modal responses of a training batch by muted features, beside the pass that trains."""

import torch
from torch import Tensor, nn

from m2pt.agm.calls import encode, fuse, has_fast_path
from m2pt.agm.checks import Inputs, in_order_of
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.muting import Muting
from m2pt.agm.passes import SubsetPasses
from m2pt.agm.precision import at_least_float32
from m2pt.agm.responses import ShapleyAttribution


def forward_with_responses(
    model: nn.Module, attribution: ShapleyAttribution, inputs: Inputs, batch: int, *, fast: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the model's logits, with their graph, and the response of each modality, without one.

    A model with `encode` and `fuse` is encoded once; muted are the *features*, by zeros. For a linear layer
    on concatenated features that gives exactly W_m h_m + b / M, the mono-modal logits of OGM's paper; for any
    other fusion it is their generalization. AGM mutes the inputs instead, after which an encoder's features
    need not be 0. In any other model the inputs are muted by zeros here too.

    The passes with muted modalities are in evaluation mode, so that BatchNorm's running statistics and
    dropout stay untouched.

    Args:
        model: the model, in any mode.
        attribution: the Shapley weights of all its modalities.
        inputs: a checked batch.
        batch: its size B.
        fast: False mutes inputs in any model.

    Returns:
        Logits (B, num_classes) and responses (M, B, num_classes).
    """
    names, subsets = attribution.modalities, attribution.subsets
    if not (fast and has_fast_path(model)):
        values = SubsetPasses(names, subsets, Muting(), fast=False)(model, inputs, batch, graph=False)
        return values[-1], attribution(values.detach())
    features = in_order_of(inputs, {name: encode(model, name, inputs[name]) for name in names})
    logits = at_least_float32(fuse(model, inputs, features))
    present = {name: feature.detach() for name, feature in features.items()}
    muted = {name: torch.zeros_like(feature) for name, feature in present.items()}
    with torch.no_grad(), evaluation_mode(model):
        others = [
            fuse(model, inputs, {name: (present if name in subset else muted)[name] for name in features})
            for subset in subsets[:-1]
        ]
        return logits, attribution(torch.stack([*map(at_least_float32, others), logits.detach()]))
