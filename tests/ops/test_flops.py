"""The operations of a step: closed forms of transformers, and a detector as it runs."""

from dataclasses import replace

import pytest
import torch
from tiny_trainings import BATCH, CLASSES, DEPTH, DIM, LINEAR, META, TOKENS, find
from torch.utils.flop_counter import FlopCounterMode

from m2pt.ops import flops
from m2pt.ops.step_costs import FlopEstimator
from m2pt.ops.synthetic_training import build_synthetic, operations


def forward_of_blocks():
    """Operations of all blocks for one image: the linear layers, and attention's two products."""
    return DEPTH * (2 * TOKENS * sum(LINEAR.values()) + 2 * 2 * TOKENS * TOKENS * DIM)


PATCHES = 2 * 16 * (8 * 8 * 3) * DIM
HEAD = 2 * DIM * CLASSES


@pytest.mark.parametrize("name", ["imagenet-tune-from-image-07", "imagenet-tune-from-image-pointcloud"])
def test_a_transformers_operations_are_the_closed_form(tiny, name):
    # backward costs twice the forward pass, but no gradient goes to the pixels; a pathway is elementwise
    total = operations(build_synthetic(find(tiny, f"finetune {name}"), META))
    assert total == BATCH * (2 * PATCHES + 3 * forward_of_blocks() + 3 * HEAD)


def test_a_frozen_transformer_with_pathways_needs_its_weights_gradients(tiny):
    total = operations(build_synthetic(find(tiny, "finetune imagenet-fix-from-image-pointcloud"), META))
    first = 2 * TOKENS * LINEAR["qkv"]  # nothing below the first layer is trained
    assert total == BATCH * (PATCHES + 3 * forward_of_blocks() - first + 3 * HEAD)


def test_a_detector_is_counted_as_it_runs(tiny):
    synthetic = build_synthetic(find(tiny, "transfer coco"), torch.device("cpu"))
    model, regions = synthetic.model, {}
    for name, head in (("boxes", model.roi_heads.box_head), ("masks", model.roi_heads.mask_head)):
        head.register_forward_hook(lambda _, inputs, __, name=name: regions.update({name: len(inputs[0])}))
    with FlopCounterMode(display=False) as counter:
        synthetic.loss(model, synthetic.batch)[0].backward()
    ran = dict(regions)
    assert ran["boxes"] > ran["masks"] > 0
    images = synthetic.batch[0]
    assert flops.count_detector_with(model, images, **ran) == counter.get_total_flops()


def test_two_numbers_of_classes_tell_the_operations_of_any(tiny):
    training = find(tiny, "finetune partnet-chair-1")

    def with_classes(classes):
        settings = training.spec.dataset.settings
        subsets = {**settings.subsets, training.spec.dataset.subset: classes}
        dataset = replace(training.spec.dataset, settings=settings.model_copy(update={"subsets": subsets}))
        spec = replace(training.spec, dataset=dataset)
        run = replace(training.run, spec=spec)
        other = replace(training, spec=spec, stored=spec.stored, run=run)
        return spec.stored, lambda: operations(build_synthetic(other, META))

    estimator = FlopEstimator()
    for classes in (5, 9):
        estimator.flops(*with_classes(classes))
    spec, count = with_classes(51)
    assert estimator.flops(spec, lambda: pytest.fail("counted a third time")) == count()


@pytest.mark.parametrize("kind", ["coco", "ade20k", "shapenetpart", "partnet", "audioset", "kinetics"])
def test_every_kind_of_training_runs_on_synthetic_inputs(tiny, kind):
    training = next(each for each in tiny.values() if each.spec.dataset.layout == kind)
    synthetic = build_synthetic(training, torch.device("cpu"))
    loss, _ = synthetic.loss(synthetic.model, synthetic.batch)
    loss.backward()
    assert torch.isfinite(loss)
