"""Automatic mixed precision and torch.compile."""

import copy

import pytest
import torch
from agm_oracle import BlackBox, Joint, batch
from torch._dynamo.backends.debugging import aot_eager

from m2pt.agm import AdaptiveGradientModulation

NAMES = ("audio", "visual", "text")


def test_scores_and_loss_are_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    model = Joint(NAMES, early=True)
    exact = AdaptiveGradientModulation(copy.deepcopy(model), NAMES, alpha=0.7)
    mixed = AdaptiveGradientModulation(model, NAMES, alpha=0.7)
    inputs, target = batch(NAMES, dtype=torch.float32)
    exact.loss(inputs, target).backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(inputs).dtype == torch.bfloat16
        loss = mixed.loss(inputs, target)
        values = mixed._passes(model, inputs, 6)
        responses = mixed.attribution(values)
    loss.backward()
    assert loss.dtype == responses.dtype == torch.float32
    for name in NAMES:  # bfloat16 has 8 bits: far from exact, but not as far as scores rounded to it
        torch.testing.assert_close(mixed.scores[name], exact.scores[name], rtol=0.02, atol=0)
        torch.testing.assert_close(mixed.coefficients[name], exact.coefficients[name], rtol=0.1, atol=0)
    for ours, theirs in zip(mixed.model.parameters(), exact.model.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() < 0.1 * theirs.grad.norm() + 1e-4


def test_a_model_in_bfloat16_keeps_the_state_in_float64() -> None:
    torch.manual_seed(0)
    agm = AdaptiveGradientModulation(Joint(NAMES), NAMES).bfloat16()
    inputs, target = batch(NAMES, dtype=torch.bfloat16)
    loss = agm.loss(inputs, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert agm.modulation.running_scores.dtype == torch.float64


def compile_model(agm: AdaptiveGradientModulation, backend) -> None:
    agm.model = torch.compile(agm.model, backend=backend)


def compile_parts(agm: AdaptiveGradientModulation, backend) -> None:
    agm.model.encoders["audio"].compile(backend=backend)
    agm.model.fusion.compile(backend=backend)


def compile_method(agm: AdaptiveGradientModulation, backend) -> None:
    agm.compile(backend=backend)


@pytest.mark.parametrize(
    ("compile_some", "black_box", "compiles"),
    [(compile_model, True, True), (compile_parts, False, True), (compile_method, False, False)],
)
def test_compiled_models_have_the_same_loss_and_gradients(
    compile_some, black_box: bool, compiles: bool
) -> None:
    torch.manual_seed(0)
    names = NAMES[:2]
    model = Joint(names, early=True, batch_norm=True)
    plain = AdaptiveGradientModulation(copy.deepcopy(model), names, alpha=0.7)
    agm = AdaptiveGradientModulation(BlackBox(model) if black_box else model, names, alpha=0.7)
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return aot_eager(graph, examples)

    compile_some(agm, backend)
    for seed in range(2):
        inputs, target = batch(names, dtype=torch.float32, seed=seed)
        expected, found = plain.loss(inputs, target), agm(inputs, target)
        torch.testing.assert_close(found, expected)
        expected.backward()
        found.backward()
    assert bool(graphs) == compiles
    for ours, theirs in zip(model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
