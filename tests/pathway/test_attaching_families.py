"""Pathways on the models of timm, torchvision, transformers and open_clip: exact, by defaults alone."""

import copy

import pytest
import torch
from model_families import DEPTH, FAMILIES, build, inputs, output
from torch import nn

from m2pt.pathway import attach, merge
from m2pt.pathway.layers import attached_layers
from m2pt.pathway.terms import attached_names, terms


def twins(model: nn.Module) -> nn.Module:
    """Return a copy of an attached model that has W + λA as plain weights, computed in float64."""
    plain = merge(copy.deepcopy(model))
    for name, layer in attached_layers(model):
        for parameter in attached_names(layer):
            weight = layer._parameters[parameter].detach().double()
            for matrix, scale in terms(layer, parameter).values():
                weight = weight + scale.detach().double() * matrix.detach().double()
            plain.get_submodule(name)._parameters[parameter].data = weight.float()
    return plain


@pytest.mark.parametrize("family", FAMILIES)
def test_attach_by_defaults_train_and_merge(family: str) -> None:
    model, auxiliary, given = build(family, 0), build(family, 1), inputs(family)
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    before = output(model, given)
    attach(model, auxiliary)
    assert torch.equal(output(model, given), before)

    layers = list(attached_layers(model))
    assert len(layers) % DEPTH == 0 and len(layers) >= 4 * DEPTH - DEPTH * (
        "in_proj_weight" in attached_names(layers[0][1])
    )
    with torch.no_grad():
        for _, layer in layers:
            for name in attached_names(layer):
                for _, scale in terms(layer, name).values():
                    scale.fill_(0.3)
    plain = twins(model)
    expected = output(plain, given)
    assert not torch.allclose(expected, before, atol=1e-3)
    torch.testing.assert_close(output(model, given), expected, rtol=1e-4, atol=1e-5)

    output(model, given).square().sum().backward()
    output(plain, given).square().sum().backward()
    for name, layer in layers:
        for parameter in attached_names(layer):
            gradient = plain.get_submodule(name)._parameters[parameter].grad
            own = layer._parameters[parameter].grad
            ((matrix, scale),) = terms(layer, parameter).values()
            close = {"rtol": 1e-3, "atol": 1e-4 * float(gradient.abs().max())}
            torch.testing.assert_close(own, gradient, **close)
            torch.testing.assert_close(matrix.grad, 0.3 * gradient, **close)
            dot = (gradient.double() * matrix.detach().double()).sum().float().reshape(1)
            torch.testing.assert_close(
                scale.grad, dot, rtol=1e-3, atol=1e-3 * float(gradient.abs().sum()) / 30
            )

    merge(model)
    assert list(model.state_dict()) == keys and [type(module) for module in model.modules()] == classes
    torch.testing.assert_close(output(model, given), expected, rtol=1e-4, atol=1e-5)
