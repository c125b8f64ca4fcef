"""MSLR: coefficients on gradients, and the dynamic strategy."""

import math

import pytest
import torch
from balancing_models import Early, Late, Stranger, batch, gradients, joint_gradients, validation

from m2pt.agm.methods import MSLR, BalancingError

PAIR = ("audio", "visual")
COEFFICIENTS = {"audio": 1.3, "visual": 0.7}


def test_gradients_are_scaled_by_modality_and_early_fusion_is_no_exception() -> None:
    inputs, target = batch(*PAIR)
    for model in (Late(*PAIR), Early(*PAIR).eval()):
        expected = joint_gradients(model, inputs, target)
        method = MSLR(model, coefficients=COEFFICIENTS, strategy="keep")
        method.loss(inputs, target).backward()
        method.before_step()
        for name, value in gradients(model).items():
            factor = next((c for m, c in COEFFICIENTS.items() if name.startswith(f"encoders.{m}")), 1)
            torch.testing.assert_close(value, factor * expected[name])


def test_a_step_of_sgd_is_a_step_with_that_learning_rate() -> None:
    model, other = Late(*PAIR), Late(*PAIR)
    method = MSLR(model, coefficients=COEFFICIENTS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    groups = [
        {"params": other.encoders["audio"].parameters(), "lr": 0.13},
        {"params": other.encoders["visual"].parameters(), "lr": 0.07},
        {"params": other.fusion.parameters(), "lr": 0.1},
    ]
    reference = torch.optim.SGD(groups, momentum=0.9)
    for seed in range(4):
        inputs, target = batch(*PAIR, seed=seed)
        optimizer.zero_grad()
        method.loss(inputs, target).backward()
        method.before_step()
        optimizer.step()
        reference.zero_grad()
        torch.nn.functional.cross_entropy(other(inputs), target).backward()
        reference.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


def test_the_dynamic_ratio_compares_with_the_epochs_before() -> None:
    method = MSLR(Late(*PAIR), coefficients=COEFFICIENTS, memory=2)
    found = []
    for epoch, accuracy in enumerate([0.2, 0.4, 0.6, 0.25], 1):
        method.after_epoch(epoch, validation({"audio": accuracy, "visual": 0.5}))
        found.append(method.coefficients["audio"])
        assert method.coefficients["visual"] == pytest.approx(0.7)
    # means before: none, none, (0.2 + 0.4) / 2, (0.4 + 0.6) / 2; the ratio does not accumulate
    assert found == pytest.approx([1.3, 1.3, 1.3 * 0.6 / 0.3, 1.3 * 0.25 / 0.5])
    assert method.scalars["coefficient/audio"].item() == pytest.approx(found[-1])


def test_accuracies_of_zero_give_no_ratio() -> None:
    method = MSLR(Late(*PAIR), coefficients=COEFFICIENTS, memory=1)
    for epoch in (1, 2):
        method.after_epoch(epoch, validation({"audio": 0.0, "visual": 0.5}))
    assert method.coefficients == pytest.approx(COEFFICIENTS)
    method.after_epoch(3, validation({"audio": 0.5, "visual": 0.0}))
    assert method.coefficients == pytest.approx({"audio": 1.3, "visual": 0.0})


def test_keep_needs_no_validation() -> None:
    method = MSLR(Late(*PAIR), coefficients=COEFFICIENTS, strategy="keep")
    method.after_epoch(1, None)
    assert method.coefficients == COEFFICIENTS


def test_the_state_is_restored() -> None:
    values = [0.3, 0.1, 0.7, 0.35]
    method = MSLR(Late(*PAIR), coefficients=COEFFICIENTS, memory=2)
    resumed = MSLR(Late(*PAIR, seed=9), coefficients=COEFFICIENTS, memory=2)
    for epoch, accuracy in enumerate(values, 1):
        method.after_epoch(epoch, validation({"audio": accuracy, "visual": accuracy**2}))
        resumed.load_state_dict(method.state_dict())
        assert resumed.coefficients == method.coefficients
        assert resumed.scalars == method.scalars
    last = validation({"audio": 0.4, "visual": 0.2})
    method.after_epoch(5, last)
    assert method.coefficients != resumed.coefficients
    resumed.after_epoch(5, last)
    assert method.coefficients == resumed.coefficients


def test_wrong_settings_are_named() -> None:
    with pytest.raises(BalancingError, match="unknown 'text', no value for 'visual'"):
        MSLR(Late(*PAIR), coefficients={"audio": 1.0, "text": 1.0})
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(
            BalancingError, match=f"of 'visual' must be a finite number, above 0, got {wrong}"
        ):
            MSLR(Late(*PAIR), coefficients={"audio": 1.0, "visual": wrong})
    with pytest.raises(BalancingError, match="'keep' or 'dynamic', got 'smooth'"):
        MSLR(Late(*PAIR), coefficients=COEFFICIENTS, strategy="smooth")  # type: ignore[arg-type]
    with pytest.raises(BalancingError, match="memory must be an integer, 1 or more, got 0"):
        MSLR(Late(*PAIR), coefficients=COEFFICIENTS, memory=0)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    model = Stranger()
    inputs, target = batch(*PAIR)
    model.net[0].bias.requires_grad_(False)
    method = MSLR(
        model, PAIR, coefficients=COEFFICIENTS, encoders={"audio": model.net[0], "visual": model.net[1]}
    )
    method.loss(inputs, target).backward()
    method.before_step()
    assert model.net[0].bias.grad is None
