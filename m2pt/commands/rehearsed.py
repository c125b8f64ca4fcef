"""A training put together without data or weights: its model, its loss and a batch of the right shapes.

On the meta device nothing is computed and nothing takes memory: enough to count operations and parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from m2pt.commands import assembled
from m2pt.commands.finetune import freeze_all_but_head_and_scales
from m2pt.errors import InputError
from m2pt.models.bodies import build_body
from m2pt.pathway import is_scale, merge_state_dict
from m2pt.planning import flops
from m2pt.planning.jobs import Training
from m2pt.planning.storage import size
from m2pt.schema.plan import Spec

BOXES = 8
"""Instances in each synthetic image of a detector: COCO's training images have 7.3 on average."""

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Rehearsal:
    """A model with its pathways, as it is trained, and one micro-batch for its loss."""

    model: nn.Module
    loss: Loss
    batch: Any
    saved: dict[str, dict[str, Tensor]]
    """The tensors of each weight file that the training leaves, by a word for the file."""


def rehearse(training: Training, device: torch.device) -> Rehearsal:
    """Build a training on `device`, at random weights and with synthetic inputs.

    Raises:
        InputError: settings that do not fit each other.
    """
    spec, run = training.spec, training.run
    if run is None:
        with torch.device(device):
            model, loss = assembled.pretraining(spec)
            model = model.to(device)  # also tables that are made from an array
        saved = {"encoder": assembled.encoder_state(spec, model)}
        return Rehearsal(model.train(), loss, synthetic_batch(spec, device), saved)
    loss = assembled.target_task(spec).loss
    with torch.device(device):
        if run.experiment.is_transfer:
            backbone = assembled.dense_backbone(spec)
            assembled.attached_like(backbone, run)
            scales = [p for name, p in backbone.named_parameters() if is_scale(name) and p.requires_grad]
            model = assembled.dense_model(spec, backbone)
            if run.experiment.mode == "fix":  # a frozen backbone is one whose matrices stay
                for scale in scales:
                    scale.requires_grad_(True)
        else:
            model = assembled.target_model(spec)
            assembled.attached_like(model, run)
            if run.experiment.mode == "fix":
                freeze_all_but_head_and_scales(model)
    state = model.state_dict()
    saved = {"merged": merge_state_dict(state)}
    if not run.experiment.is_transfer:
        saved["attached"] = state
    return Rehearsal(model.train(), loss, synthetic_batch(spec, device), saved)


def operations(rehearsal: Rehearsal) -> int:
    """Count the operations of a micro-batch of a rehearsal on the meta device, whose pathways are merged."""
    model = flops.without_pathways(rehearsal.model)
    if isinstance(model, MaskRCNN):
        return flops.count_detector(model, rehearsal.batch)
    return flops.count(model, rehearsal.loss, rehearsal.batch)


def body_bytes(architecture: Spec) -> int:
    """Bytes of the weights of an encoder that is not trained here."""
    with torch.device("meta"):
        return size(build_body(architecture).state_dict().values())


def synthetic_batch(spec: Spec, device: torch.device) -> Any:
    """One micro-batch of random inputs and labels, in the shapes of the dataset's reader and its collate.

    Raises:
        InputError: there is no such layout.
    """
    sizes, classes = spec["architecture"]["input"], spec["dataset"]["num_classes"]
    batch = spec["recipe"]["training"]["batch_size"]

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    def labels(*shape: int, below: int = classes) -> Tensor:
        return torch.randint(below, shape, device=device)

    match spec["dataset"]["layout"]:
        case "imagenet":
            return numbers(batch, 3, sizes["image_size"], sizes["image_size"]), labels(batch)
        case "kinetics":
            clips = batch * (spec["recipe"]["augmentation"].get("samples") or 1)
            side = sizes["image_size"]
            return numbers(clips, 3, sizes["frames"], side, side), labels(clips)
        case "audioset":
            hot = torch.zeros(batch, classes, device=device)
            hot[:, 0] = 1
            return numbers(batch, 1, sizes["frames"], sizes["mel_bins"]), hot
        case "text":
            return labels(batch, sizes["length"]), labels(batch)
        case "shapenet55":
            return _cloud(numbers, batch, sizes), labels(batch)
        case "shapenetpart":
            from m2pt.datasets.shapenetpart import NUM_CATEGORIES

            parts = labels(batch, sizes["points"])
            return _cloud(numbers, batch, sizes), labels(batch, below=NUM_CATEGORIES), parts
        case "partnet":
            return _cloud(numbers, batch, sizes), labels(batch, sizes["points"])
        case "ade20k":
            side = sizes["image_size"]
            return list(numbers(batch, 3, side, side)), list(labels(batch, side, side))
        case "coco":
            side = sizes["image_size"]
            targets = [_instances(side, labels(BOXES) + 1, device) for _ in range(batch)]
            return list(numbers(batch, 3, side, side)), targets
    raise InputError(f"no synthetic batch for a dataset of layout {spec['dataset']['layout']!r}")


def _cloud(numbers: Callable[..., Tensor], batch: int, sizes: Spec) -> Tensor:
    return nn.functional.normalize(numbers(batch, sizes["points"], 3), dim=-1)


def _instances(side: int, labels: Tensor, device: torch.device) -> dict[str, Tensor]:
    """A detector's target: squares a quarter of the image wide, along its diagonal."""
    width = side // 4
    starts = torch.linspace(0, side - width, BOXES, device=device).floor()
    boxes = torch.stack([starts, starts, starts + width, starts + width], dim=1)
    masks = torch.zeros(BOXES, side, side, dtype=torch.uint8, device=device)
    if device.type != "meta":
        for mask, start in zip(masks, starts.long().tolist(), strict=True):
            mask[start : start + width, start : start + width] = 1
    return {"boxes": boxes, "labels": labels, "masks": masks}
