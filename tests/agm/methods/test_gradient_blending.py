"""Gradient blending: the blended loss, the weights by hand, and their estimate in a training."""

import copy

import pytest
import torch
from balancing_models import Early, Late, Stranger, batch, gradients, joint_gradients, validation
from torch import nn
from torch.nn.functional import cross_entropy

from m2pt.agm.methods import BalancingError, GradientBlending, Losses, blending_weights

PAIR = ("audio", "visual")
ALL = (*PAIR, "joint")
OFFLINE = {"audio": 1.0, "visual": 2.0, "joint": 5.0}


def heads() -> dict[str, nn.Module]:
    torch.manual_seed(3)
    return {name: nn.Linear(4, 3).double() for name in PAIR}


def new(**settings: object) -> GradientBlending:
    return GradientBlending(Late(*PAIR), heads=heads(), **settings)  # type: ignore[arg-type]


def test_the_weights_by_hand() -> None:
    start = {"audio": Losses(2.0, 2.0), "visual": Losses(2.0, 2.1), "joint": Losses(2.0, 2.0)}
    end = {"audio": Losses(1.0, 1.5), "visual": Losses(1.6, 1.9), "joint": Losses(0.5, 1.5)}
    # audio: G .5, O .5; visual: G .2, O .3 − .1 = .2; joint: G .5, O 1
    raw = {"audio": 0.5 / 0.25, "visual": 0.2 / 0.04, "joint": 0.5 / 1.0}
    found = blending_weights(start, end)
    assert found == pytest.approx({name: value / 7.5 for name, value in raw.items()})


def test_weights_at_the_edges() -> None:
    start = dict.fromkeys(ALL, Losses(1.0, 1.0))
    gains = {"audio": Losses(0.5, 0.75), "visual": Losses(0.5, 1.25), "joint": Losses(0.75, 0.75)}
    found = blending_weights(start, gains)
    assert found is not None
    assert found["visual"] == 0  # its validation loss rose
    # joint: O = 0 counts as 1e-3 instead of dividing by 0
    assert found["audio"] / found["joint"] == pytest.approx((0.25 / 0.0625) / (0.25 / 1e-6))
    assert blending_weights(start, dict.fromkeys(ALL, Losses(0.5, 1.5))) is None
    with pytest.raises(BalancingError, match="no value for 'joint'"):
        blending_weights(start, {name: Losses(1, 1) for name in PAIR})


def test_the_loss_is_the_weighted_sum_and_so_are_the_gradients() -> None:
    method = new(weights=OFFLINE)
    model = method.model
    inputs, target = batch(*PAIR)
    expected = {name: 5 / 8 * value for name, value in joint_gradients(model, inputs, target).items()}
    loss = 5 / 8 * cross_entropy(model(inputs), target)
    for name, weight in (("audio", 1 / 8), ("visual", 2 / 8)):
        own = weight * cross_entropy(method.heads[name](model.encoders[name](inputs[name])), target)
        loss = loss + own
        encoder = model.encoders[name]
        for key, value in zip(
            ("weight", "bias"), torch.autograd.grad(own, list(encoder.parameters())), strict=True
        ):
            expected[f"encoders.{name}.{key}"] += value
    found = method.loss(inputs, target)
    torch.testing.assert_close(found, loss, rtol=1e-6, atol=0)  # weights are float32
    found.backward()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-9)
    assert len(gradients(method.heads)) == 4


def test_offline_weights_do_not_change_and_need_no_validation() -> None:
    method = new(weights=OFFLINE, super_epoch=1)
    before = method.weights.clone()
    for epoch in (1, 2, 3):
        method.loss(*batch(*PAIR)).backward()
        method.before_step()
        method.after_epoch(epoch, None)
    assert torch.equal(before, method.weights) and before.tolist() == [0.125, 0.25, 0.625]


def run(method: GradientBlending, epochs: range, learning_rate: float = 0.0) -> list[list[float]]:
    """Train on two batches an epoch; returns the weights after each epoch."""
    found = []
    optimizer = torch.optim.SGD(method.parameters(), lr=learning_rate)
    for epoch in epochs:
        for number, size in enumerate((2, 6)):
            optimizer.zero_grad()
            method.loss(*batch(*PAIR, size=size, seed=10 * epoch + number)).backward()
            method.before_step()
            optimizer.step()
        losses = {"audio": 3 / (epoch + 1), "visual": 2.0 - 0.1 * epoch, "joint": 1 + 1 / epoch}
        method.after_epoch(epoch, validation(method_losses=losses))
        found.append(method.weights.tolist())
    return found


def test_online_weights_follow_from_the_losses_of_the_super_epoch() -> None:
    method = new(super_epoch=2)
    training = {}
    for epoch in range(1, 6):  # the weights of the model do not change: the same losses as in the run
        parts = [batch(*PAIR, size=size, seed=10 * epoch + number) for number, size in enumerate((2, 6))]
        totals = [
            {name: value * len(target) for name, value in method.validation_losses(inputs, target).items()}
            for inputs, target in parts
        ]
        training[epoch] = {name: sum(total[name].item() for total in totals) / 8 for name in ALL}

    def losses(epoch: int) -> dict[str, Losses]:
        measured = (3 / (epoch + 1), 2.0 - 0.1 * epoch, 1 + 1 / epoch)
        return {n: Losses(training[epoch][n], v) for n, v in zip(ALL, measured, strict=True)}

    found = run(method, range(1, 6))
    third = [1 / 3] * 3
    first, second = (blending_weights(losses(e), losses(e + 2)) for e in (1, 3))
    assert first is not None and second is not None
    for weights, expected in zip(
        found, (third, third, first.values(), first.values(), second.values()), strict=True
    ):
        assert weights == pytest.approx(list(expected), rel=1e-4)
    assert found[2] != found[4]
    assert method.scalars["weight/audio"].item() == found[4][0]


def test_weights_stay_if_nothing_generalizes() -> None:
    method = new(super_epoch=1)
    for epoch in (1, 2, 3):
        method.loss(*batch(*PAIR)).backward()
        method.before_step()
        method.after_epoch(epoch, validation(method_losses=dict.fromkeys(ALL, float(epoch))))
    assert method.weights.tolist() == pytest.approx([1 / 3] * 3)


def test_counters_and_weights_keep_their_precision_in_half_precision() -> None:
    method = new(weights={"audio": 0.3, "visual": 0.3, "joint": 0.4})
    before = method.weights.clone()
    method.to(torch.bfloat16)
    inputs, target = batch(*PAIR, size=1)
    inputs = {name: value.bfloat16() for name, value in inputs.items()}
    for _ in range(300):  # bfloat16 cannot count beyond 256
        method.loss(inputs, target)
        method.before_step()
    assert torch.equal(method.weights, before) and method._epoch_samples == 300
    assert method.heads["audio"].weight.dtype == torch.bfloat16


def test_early_fusion_gets_a_joint_loss_too() -> None:
    method = GradientBlending(Early(*PAIR), heads=heads())
    method.loss(*batch(*PAIR)).backward()
    assert len(gradients(method)) == len(list(method.parameters()))
    assert set(method.scalars) == {f"{what}/{name}" for what in ("loss", "weight") for name in ALL}


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_resumed_training_is_the_same_bit_for_bit(killed_after: int) -> None:
    method = new(super_epoch=1)
    run(method, range(1, killed_after + 1), 0.1)
    method.loss(*batch(*PAIR))  # killed in the middle of an epoch
    method.before_step()
    state = copy.deepcopy(method.state_dict())
    resumed = GradientBlending(Late(*PAIR, seed=5), heads=heads(), super_epoch=1)
    resumed.load_state_dict(state)
    assert run(method, range(killed_after + 1, 6), 0.1) == run(resumed, range(killed_after + 1, 6), 0.1)
    for name, value in method.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_wrong_settings_are_named() -> None:
    with pytest.raises(BalancingError, match="Stranger must have encode"):
        GradientBlending(Stranger(), PAIR, heads=heads())
    with pytest.raises(BalancingError, match="heads: no value for 'visual'"):
        GradientBlending(Late(*PAIR), heads={"audio": heads()["audio"]})
    with pytest.raises(BalancingError, match="cannot be named 'joint'"):
        GradientBlending(Late("audio", "joint"), heads={})
    with pytest.raises(BalancingError, match="at least 2 modalities"):
        GradientBlending(Late("audio"), heads={})
    with pytest.raises(BalancingError, match="weights: no value for 'joint'"):
        new(weights={"audio": 1.0, "visual": 1.0})
    with pytest.raises(BalancingError, match="of 'visual' must be a finite number, 0 or more, got -1"):
        new(weights=OFFLINE | {"visual": -1.0})
    with pytest.raises(BalancingError, match="one weight must be positive"):
        new(weights=dict.fromkeys(ALL, 0.0))
    with pytest.raises(BalancingError, match="super_epoch must be an integer, 1 or more, got 0"):
        new(super_epoch=0)
    with pytest.raises(BalancingError, match=r"needs before_step\(\) in each step"):
        new().after_epoch(1, validation(method_losses=dict.fromkeys(ALL, 1.0)))
    pooled = GradientBlending(Late(*PAIR), heads={name: nn.Unflatten(1, (2, 2)) for name in PAIR})
    with pytest.raises(BalancingError, match=r"head of 'audio' must return logits .*\(6, 2, 2\).*\(6, 4\)"):
        pooled.loss(*batch(*PAIR))
