"""Trainings on synthetic inputs: model, loss and a batch of the right shapes, without data or weights.

On the meta device nothing is computed and no memory is used: enough to count operations and parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from m2pt import build
from m2pt.agm import BalancingMethod
from m2pt.datasets.layouts import layout_module
from m2pt.models.bodies import build_body
from m2pt.models.exchange import join_average
from m2pt.ops import flops
from m2pt.ops.storage import num_bytes
from m2pt.pathway import merge_state_dict
from m2pt.plan.jobs import Training
from m2pt.plan.specs import Architecture, PretrainingSpec, RunSpec
from m2pt.run_files import ATTACHED

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class SyntheticTraining:
    """A model with its pathways, ready to train, and one micro-batch for its loss."""

    model: nn.Module
    loss: Loss
    batch: Any
    saved: dict[str, dict[str, Tensor]]
    """Tensors of each weight file that the run leaves: encoder, merged, attached, model."""


def build_synthetic(
    training: Training, device: torch.device, batch_size: int | None = None
) -> SyntheticTraining:
    """Build a training on `device`, with random weights and synthetic inputs; the batch is the recipe's.

    Raises:
        InputError: the settings are inconsistent.
    """
    spec, run = training.spec, training.run
    if isinstance(spec, PretrainingSpec):
        with torch.device(device):
            model, loss = build.pretraining(spec)
            model = model.to(device)  # also tables that are made from an array
        saved = {"encoder": build.encoder_state(spec, model)}
        return SyntheticTraining(model.train(), loss, synthetic_batch(spec, device, batch_size), saved)
    assert run is not None
    with torch.device(device):
        model = build.run_model(run, partial(build.attach_placeholders, run=run)).to(device)
    if isinstance(model, BalancingMethod):
        saved = {"model": dict(model.model.state_dict())}
    else:
        state = model.state_dict()
        saved = {"merged": merge_state_dict(state)}
        if ATTACHED in run.kind.outputs:
            average = {} if spec.recipe.training.ema is None else saved["merged"]
            saved["attached"] = join_average(state, average)
    loss = build.target_task(spec).loss
    return SyntheticTraining(model.train(), loss, synthetic_batch(spec, device, batch_size), saved)


def operations(synthetic: SyntheticTraining) -> int:
    """Count the operations of a micro-batch on the meta device, with the pathways merged."""
    model = flops.without_pathways(synthetic.model)
    if isinstance(model, MaskRCNN):
        return flops.count_detector(model, synthetic.batch)
    return flops.count(model, synthetic.loss, synthetic.batch)


def body_bytes(architecture: Architecture) -> int:
    """Return the size in bytes of the weights of an encoder that is not trained here."""
    with torch.device("meta"):
        return num_bytes(build_body(architecture.stored).state_dict().values())


def synthetic_batch(
    spec: RunSpec | PretrainingSpec, device: torch.device, batch_size: int | None = None
) -> Any:
    """Return one micro-batch of random inputs and labels, shaped as the dataset's reader makes it.

    Its size is the recipe's, or `batch_size`.

    Raises:
        InputError: there is no such layout.
    """
    return layout_module(spec.dataset.layout).synthetic_batch(
        batch_size or spec.recipe.training.batch_size,
        num_classes=spec.dataset.num_classes,
        input=spec.reader_input(),
        augmentation=spec.recipe.augmentation,
        device=device,
    )
