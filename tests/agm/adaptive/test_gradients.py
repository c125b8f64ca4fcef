"""The gradient of every parameter equals that of the naive form with hooks, in float64."""

import copy

import pytest
import torch
from agm_oracle import BlackBox, HookedAGM, Joint, batch
from torch import nn
from torch.nn import functional

from m2pt.agm import AdaptiveGradientModulation
from m2pt.agm.adaptive import modulated_loss
from m2pt.agm.responses import ShapleyAttribution

NAMES = ("audio", "visual", "text", "depth", "touch")
ALPHA, CAP = 0.8, 0.3


def worst_difference(model: nn.Module, reference: nn.Module) -> float:
    """Return the largest relative difference between the gradients of two models, over their parameters."""
    worst = 0.0
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert theirs.grad is not None and ours.grad is not None and theirs.grad.norm() > 0
        worst = max(worst, ((ours.grad - theirs.grad).norm() / theirs.grad.norm()).item())
    return worst


def compare(model: Joint, *, black_box: bool, empty: str = "omitted", steps: int = 3) -> None:
    """Train a model by both forms and compare losses, coefficients, gradients and BatchNorm's statistics."""
    names = model.modalities
    reference = copy.deepcopy(model)
    oracle = HookedAGM(reference, names, ALPHA, CAP, empty_is_zero=empty == "omitted")
    agm = AdaptiveGradientModulation(
        BlackBox(model) if black_box else model, names, alpha=ALPHA, cap=CAP, empty=empty
    )
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.2, momentum=0.9) for each in (model, reference)]
    for step in range(steps):
        inputs, target = batch(names, seed=step)
        losses = []
        for loss_of, optimizer in zip((agm.loss, oracle.loss), optimizers, strict=True):
            torch.manual_seed(step)
            optimizer.zero_grad()
            losses.append(loss_of(inputs, target))
            losses[-1].backward()
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-13, atol=0)
        for name in names:
            assert agm.coefficients[name].item() == pytest.approx(oracle.kappa[name], rel=1e-12)
        assert worst_difference(model, reference) < 1e-10
        for optimizer in optimizers:
            optimizer.step()
        for (key, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14, msg=key)
    assert len({round(kappa, 6) for kappa in oracle.kappa.values()}) > 1


@pytest.mark.parametrize("black_box", [False, True], ids=["fast", "black box"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["layer norm", "batch norm"])
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_equal_those_of_hooks(
    count: int, early: bool, batch_norm: bool, dropout: float, black_box: bool
) -> None:
    torch.manual_seed(count)
    model = Joint(NAMES[:count], early=early, batch_norm=batch_norm, dropout=dropout).double()
    compare(model, black_box=black_box)


@pytest.mark.parametrize("count", [4, 5])
def test_gradients_of_more_modalities(count: int) -> None:
    torch.manual_seed(count)
    compare(Joint(NAMES[:count], early=True, batch_norm=True, dropout=0.2).double(), black_box=False, steps=2)


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_with_the_textbook_s_empty_set(count: int) -> None:
    torch.manual_seed(count)
    compare(Joint(NAMES[:count], early=True).double(), black_box=False, empty="subtracted")


def test_only_one_encoder_has_batch_norm() -> None:
    torch.manual_seed(0)
    model = Joint(NAMES[:3]).double()
    model.encoders["visual"] = Joint(("visual",), batch_norm=True).double().encoders["visual"]
    compare(model, black_box=False)


def test_detached_muted_passes_leave_one_common_factor() -> None:
    """Without the gradients of the muted passes AGM is only a change of the learning rate."""
    torch.manual_seed(0)
    names = NAMES[:3]
    model = Joint(names, early=True).double()
    agm = AdaptiveGradientModulation(model, names, alpha=ALPHA)
    inputs, target = batch(names)
    agm.loss(inputs, target)
    kappa = agm.modulation.coefficients
    attribution = ShapleyAttribution(names)
    values = agm._passes(model, inputs, len(target))
    detached = torch.cat([values[:-1].detach(), values[-1:]])
    modulated_loss(detached, attribution.modulated(kappa), target).backward(retain_graph=True)
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    functional.cross_entropy(values[-1], target).backward()
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, kappa.mean() * parameter.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("batch_norm", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.1)])
def test_each_encoder_runs_once_or_twice(batch_norm: bool, dropout: float) -> None:
    """The muted input is one row, whatever the number of subsets; a second pass only if the mode matters."""
    names, size = NAMES[:4], 8
    model = Joint(names, batch_norm=batch_norm, dropout=dropout).double()
    agm = AdaptiveGradientModulation(model, names)
    inputs, target = batch(names, size)
    agm.loss(inputs, target)
    model.calls = dict.fromkeys(names, 0)
    agm.loss(inputs, target)
    passes = 2 if batch_norm or dropout else 1
    assert model.calls == dict.fromkeys(names, passes * size + 1)


def test_frozen_parts_and_their_mode_are_left_alone() -> None:
    names = NAMES[:2]
    torch.manual_seed(0)
    model = Joint(names, batch_norm=True, dropout=0.1).double()
    model.encoders["audio"].requires_grad_(False).eval()
    before = copy.deepcopy(model.encoders["audio"].state_dict())
    modes = [module.training for module in model.modules()]
    agm = AdaptiveGradientModulation(model, names)
    agm.loss(*batch(names)).backward()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.encoders["audio"].parameters())
    assert all(parameter.grad.norm() > 0 for parameter in model.encoders["visual"].parameters())
    for key, value in model.encoders["audio"].state_dict().items():
        assert torch.equal(value, before[key])


def test_second_order_without_modulation_is_that_of_the_cross_entropy() -> None:
    torch.manual_seed(0)
    model, (inputs, target) = Joint(("audio", "visual")).double(), batch(("audio", "visual"))
    agm = AdaptiveGradientModulation(model, ("audio", "visual"), alpha=0.0)
    parameters = list(model.parameters())
    found = []
    for loss in (agm.loss(inputs, target), functional.cross_entropy(model(inputs), target)):
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        penalty = torch.stack([each.square().sum() for each in first]).sum()
        found.append(torch.autograd.grad(penalty, parameters))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-14)
