"""Models built from specs."""

import dataclasses

import pytest
import torch
from config_documents import TINY, changed
from torch.nn import functional

from m2pt.build import attach_auxiliaries, target_model
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.models.bodies import build_body
from m2pt.plan.plan import Plan


def test_matrices_of_another_number_of_heads_are_paired_as_they_are() -> None:
    plan = Plan.load(TINY, changed(read_yaml(TINY), "modalities.pointcloud.num_heads", 8))
    run = next(each for each in plan.runs.values() if each.experiment.auxiliaries == ("pointcloud",))
    model = target_model(run.spec)
    auxiliary = build_body(run.spec.inputs["pointcloud"].architecture.stored)
    assert model.blocks[0].attn.num_heads == 2
    assert auxiliary.get_submodule("blocks.0.attn").num_heads == 8
    qkv, given = model.blocks[0].attn.qkv, auxiliary.get_submodule("blocks.0.attn.qkv")
    x, weight, bias = torch.randn(3, 16), qkv.weight.detach().clone(), qkv.bias.detach().clone()
    attach_auxiliaries(model, run, {"pointcloud": auxiliary.blocks})
    with torch.no_grad():
        qkv.pathways["pointcloud"].scale.fill_(0.5)
        expected = functional.linear(x, weight + 0.5 * given.weight, bias)
        torch.testing.assert_close(qkv(x), expected)


def test_other_bodies_of_unequal_sizes_are_refused() -> None:
    """Heads, which a ConvNeXt does not have, are no reason to cut matrices."""
    plan = Plan.load(TINY)
    run = next(each for each in plan.runs.values() if each.experiment.auxiliaries == ("audio_convnext",))
    pathway = run.experiment.pathway.model_copy(update={"layers": ("mlp.fc1", "mlp.fc2")})
    experiment = run.experiment.model_copy(update={"pathway": pathway})
    transformer = next(each for each in plan.runs.values() if each.experiment.auxiliaries == ("pointcloud",))
    spec = dataclasses.replace(transformer.spec, experiment=experiment, inputs=run.spec.inputs)
    auxiliary = build_body(run.spec.inputs["audio_convnext"].architecture.stored)
    with pytest.raises(InputError, match=r"a weight of shape \(32, 16\), .* of shape \(32, 8\)"):
        attach_auxiliaries(
            target_model(transformer.spec),
            dataclasses.replace(transformer, spec=spec, experiment=experiment),
            {"audio_convnext": auxiliary.blocks},
        )
