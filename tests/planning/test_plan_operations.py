"""The operations of a step: closed forms of transformers, and a detector as it runs."""

import pytest
import torch
from tiny_trainings import BATCH, CLASSES, DEPTH, DIM, LINEAR, META, TOKENS, find
from torch.utils.flop_counter import FlopCounterMode

from m2pt.commands.rehearsed import operations, rehearse
from m2pt.planning import flops
from m2pt.planning.counted import Counter


def forward_of_blocks():
    """Operations of all blocks for one image: the linear layers, and attention's two products."""
    return DEPTH * (2 * TOKENS * sum(LINEAR.values()) + 2 * 2 * TOKENS * TOKENS * DIM)


PATCHES = 2 * 16 * (8 * 8 * 3) * DIM
HEAD = 2 * DIM * CLASSES


@pytest.mark.parametrize("name", ["imagenet-tune-from-image-07", "imagenet-tune-from-image-pointcloud"])
def test_a_transformers_operations_are_the_closed_form(tiny, name):
    # backward costs twice the forward pass, but no gradient goes to the pixels; a pathway is elementwise
    counted = operations(rehearse(find(tiny, f"finetune {name}"), META))
    assert counted == BATCH * (2 * PATCHES + 3 * forward_of_blocks() + 3 * HEAD)


def test_a_frozen_transformer_with_pathways_needs_its_weights_gradients(tiny):
    counted = operations(rehearse(find(tiny, "finetune imagenet-fix-from-image-pointcloud"), META))
    first = 2 * TOKENS * LINEAR["qkv"]  # nothing below the first layer is trained
    assert counted == BATCH * (PATCHES + 3 * forward_of_blocks() - first + 3 * HEAD)


def test_a_detector_is_counted_as_it_runs(tiny):
    rehearsal = rehearse(find(tiny, "transfer coco"), torch.device("cpu"))
    model, regions = rehearsal.model, {}
    for name, head in (("boxes", model.roi_heads.box_head), ("masks", model.roi_heads.mask_head)):
        head.register_forward_hook(lambda _, inputs, __, name=name: regions.update({name: len(inputs[0])}))
    with FlopCounterMode(display=False) as counter:
        rehearsal.loss(model, rehearsal.batch)[0].backward()
    ran = dict(regions)
    assert ran["boxes"] > ran["masks"] > 0
    images = rehearsal.batch[0]
    assert flops.count_detector_with(model, images, **ran) == counter.get_total_flops()


def test_two_numbers_of_classes_tell_the_operations_of_any(tiny):
    training = find(tiny, "finetune partnet-chair-1")

    def counted(classes):
        spec = {**training.spec, "dataset": {**training.spec["dataset"], "num_classes": classes}}
        other = type(training)(**{**vars(training), "spec": spec})
        return spec, lambda: operations(rehearse(other, META))

    counter = Counter()
    for classes in (5, 9):
        counter.operations(*counted(classes))
    spec, count = counted(51)
    assert counter.operations(spec, lambda: pytest.fail("counted a third time")) == count()


@pytest.mark.parametrize("kind", ["coco", "ade20k", "shapenetpart", "partnet", "audioset", "kinetics"])
def test_every_kind_of_training_runs_on_synthetic_inputs(tiny, kind):
    training = next(each for each in tiny.values() if each.spec["dataset"]["layout"] == kind)
    rehearsal = rehearse(training, torch.device("cpu"))
    loss, _ = rehearsal.loss(rehearsal.model, rehearsal.batch)
    loss.backward()
    assert torch.isfinite(loss)
