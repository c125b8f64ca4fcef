"""Count the FLOPs of a training step on the meta device, where nothing is computed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from m2pt.pathway import is_scale, merge

MASK_ROIS = 0.25
"""Largest fraction of a detector's regions that reach the mask head (torchvision's fraction of positives)."""


def without_pathways(model: nn.Module) -> nn.Module:
    """Merge the pathways of a model on the meta device, where they cannot run, without changing its FLOPs.

    A pathway itself is elementwise work, which does not count. But its scale and its matrix need the gradient
    of the layer's weight, even if that is frozen.
    """
    layers = {
        name.rpartition(".pathways.")[0]
        for name, parameter in model.named_parameters()
        if is_scale(name) and (parameter.requires_grad or _matrix(model, name).requires_grad)
    }
    merge(model)
    for layer in layers:
        model.get_parameter(f"{layer}.weight").requires_grad_(True)
    return model


def _matrix(model: nn.Module, scale: str) -> nn.Parameter:
    return model.get_parameter(f"{scale.removesuffix('scale')}weight")


def count(model: nn.Module, loss: Callable[[nn.Module, Any], tuple[Tensor, Any]], batch: Any) -> int:
    """Count the FLOPs (a multiply-add is two) of one forward and backward pass.

    Matrix products, convolutions and attention count, as in `torch.utils.flop_counter`; elementwise work,
    optimizer and data loading do not. Model and batch are on the meta device, the model in training mode.
    """
    with FlopCounterMode(display=False) as counter:
        value, _ = loss(model, batch)
        value.backward()
    return counter.get_total_flops()


def count_detector(model: Any, batch: Any) -> int:
    """Count the FLOPs of a Mask R-CNN, which cannot run on the meta device: its regions depend on values.

    Every image is assumed to yield the most regions: `roi_batch` for the boxes and a quarter of them, the
    largest fraction, for the masks.
    """
    regions = model.roi_heads.fg_bg_sampler.batch_size_per_image * len(batch[0])
    return count_detector_with(model, batch[0], boxes=regions, masks=int(regions * MASK_ROIS))


def count_detector_with(model: Any, images: Sequence[Tensor], *, boxes: int, masks: int) -> int:
    """Count the FLOPs of a Mask R-CNN with this many regions for its heads and images of the padded size."""
    heads = model.roi_heads
    with FlopCounterMode(display=False) as counter:
        features = model.backbone(torch.stack(list(images)))
        outputs = [part for parts in model.rpn.head(list(features.values())) for part in parts]
        pooled = _regions(features, boxes, heads.box_roi_pool.output_size)
        outputs += heads.box_predictor(heads.box_head(pooled))
        pooled = _regions(features, masks, heads.mask_roi_pool.output_size)
        outputs.append(heads.mask_predictor(heads.mask_head(pooled)))
        torch.stack([output.sum() for output in outputs]).sum().backward()
    return counter.get_total_flops()


def _regions(features: dict[str, Tensor], count: int, size: Sequence[int]) -> Tensor:
    """Return a stand-in for pooled regions, (count, channels, *size), that passes gradients on."""
    level = next(iter(features.values()))
    pooled = level.new_zeros(count, level.shape[1], *size)
    return pooled + torch.stack([feature.sum() for feature in features.values()]).sum()
