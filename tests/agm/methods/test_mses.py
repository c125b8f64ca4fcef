"""MSES: when an encoder is frozen, with which weights, and that it does not change any more."""

import copy
import io

import pytest
import torch
from balancing_models import Early, Late, batch, gradients, validation
from torch import Tensor, nn

from m2pt.agm.methods import MSES, BalancingError

PAIR = ("audio", "visual")


def train_epoch(method: MSES, optimizer: torch.optim.Optimizer, epoch: int, audio: float) -> None:
    """Take two steps, then report a loss of `audio`; the one of `visual` always falls."""
    method.train()
    for number in range(2):
        inputs, target = batch(*PAIR, seed=10 * epoch + number)
        optimizer.zero_grad()
        method.loss(inputs, target).backward()
        method.before_step()
        optimizer.step()
    method.after_epoch(epoch, validation(losses={"audio": audio, "visual": 1 / epoch}))


def new(model: Late | None = None, **settings: float) -> tuple[MSES, torch.optim.Optimizer]:
    """Return a method and an optimizer that moves a parameter even at gradients of zero."""
    method = MSES(model or Early(*PAIR), **({"patience": 1} | settings))  # type: ignore[arg-type]
    return method, torch.optim.AdamW(method.parameters(), lr=0.05, weight_decay=0.1)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_losses_are_smoothed_with_the_raw_loss_before() -> None:
    """1, 3, 1, 1 is 1, .6·1 + .4·3 = 1.8, .6·3 + .4·1 = 2.2, 1: no new minimum, frozen after patience 2."""
    method = MSES(Late(*PAIR), patience=2)
    for epoch, loss in enumerate([1.0, 3.0, 1.0], 1):
        method.after_epoch(epoch, validation(losses={"audio": loss, "visual": 1 / epoch}))
        assert method.frozen == ()
    # 0.6·1 + 0.4·0.99 = 0.996 is a new minimum, just in time
    method.after_epoch(4, validation(losses={"audio": 0.99, "visual": 0.2}))
    assert method.frozen == ()
    for epoch in (5, 6, 7):  # 0.6·0.99 + 0.4·1 = 0.994; then 1, 1
        method.after_epoch(epoch, validation(losses={"audio": 1.0, "visual": 0.1}))
    assert method.frozen == ()
    method.after_epoch(8, validation(losses={"audio": 1.0, "visual": 0.1}))
    assert method.frozen == ("audio",)
    assert {name: value.item() for name, value in method.scalars.items()} == {
        "coefficient/audio": 0.0,
        "coefficient/visual": 1.0,
    }


@pytest.mark.parametrize("model", [Late, Early])
def test_the_encoder_returns_to_its_best_epoch_and_stays(model: type[Late]) -> None:
    method, optimizer = new(model(*PAIR), smoothing=0.0)
    best: dict[str, Tensor] = {}
    for epoch, loss in enumerate([1.0, 0.5, 0.6, 0.7], 1):
        assert method.frozen == ()
        train_epoch(method, optimizer, epoch, loss)
        if epoch == 2:
            best = snapshot(method.model.encoders["audio"])
        assert epoch in (2, 4) or not best or not same(best, method.model.encoders["audio"].state_dict())
    assert method.frozen == ("audio",)
    assert same(best, method.model.encoders["audio"].state_dict())
    others = snapshot(method.model.encoders["visual"]), snapshot(method.model.fusion)
    for epoch in (5, 6):
        train_epoch(method, optimizer, epoch, 0.01)
    assert same(best, method.model.encoders["audio"].state_dict())  # weights, and BatchNorm's statistics
    assert not same(others[0], method.model.encoders["visual"].state_dict())
    assert not same(others[1], method.model.fusion.state_dict())


def test_the_first_epoch_can_be_the_best() -> None:
    """In the released code this fails for a missing file."""
    method, optimizer = new(patience=0)
    train_epoch(method, optimizer, 1, 1.0)
    best = snapshot(method.model.encoders["audio"])
    train_epoch(method, optimizer, 2, 2.0)
    assert method.frozen == ("audio",) and same(best, method.model.encoders["audio"].state_dict())


def test_frozen_parameters_stay_in_the_graph_until_the_step() -> None:
    """DDP waits for the gradient of each parameter."""
    method, optimizer = new(patience=0)
    train_epoch(method, optimizer, 1, 1.0)
    train_epoch(method, optimizer, 2, 2.0)
    optimizer.zero_grad()
    method.model.train()  # a loop that trains the model, not the method
    method.loss(*batch(*PAIR)).backward()
    assert not method.model.encoders["audio"].training and method.model.fusion.training
    assert len(gradients(method)) == len(list(method.parameters()))
    method.before_step()
    assert not gradients(method.model.encoders["audio"])
    assert gradients(method.model.encoders["visual"]) and gradients(method.model.fusion)


def test_all_can_be_frozen() -> None:
    method = MSES(Late(*PAIR), patience=0)
    for epoch in (1, 2, 3):
        method.after_epoch(epoch, validation(losses={"audio": epoch, "visual": epoch}))
    assert method.finished and method.frozen == PAIR


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5])
def test_a_resumed_training_is_the_same_bit_for_bit(killed_after: int) -> None:
    losses = [1.0, 0.5, 0.8, 0.9, 1.0, 1.1]
    method, optimizer = new()
    for epoch in range(1, killed_after + 1):
        torch.manual_seed(epoch)
        train_epoch(method, optimizer, epoch, losses[epoch - 1])
    file = io.BytesIO()
    torch.save((method.state_dict(), optimizer.state_dict()), file)
    resumed, other = new(Early(*PAIR, seed=8))
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed.load_state_dict(state[0])
    other.load_state_dict(state[1])
    for epoch in range(killed_after + 1, 7):
        for each in ((method, optimizer), (resumed, other)):
            torch.manual_seed(epoch)
            train_epoch(*each, epoch, losses[epoch - 1])
    assert method.frozen == resumed.frozen == ("audio",)
    assert same(method.model.state_dict(), resumed.model.state_dict())
    assert method.scalars == resumed.scalars


def test_wrong_settings_are_named() -> None:
    with pytest.raises(BalancingError, match="patience must be an integer, 0 or more, got -1"):
        MSES(Late(*PAIR), patience=-1)
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(BalancingError, match=f"smoothing must be .*got {wrong}"):
            MSES(Late(*PAIR), patience=1, smoothing=wrong)
