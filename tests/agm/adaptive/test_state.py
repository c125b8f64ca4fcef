"""State that survives a restart, epochs of the window, accumulation and evaluation."""

import copy
import pickle

import pytest
import torch
from agm_oracle import Joint, batch
from torch.nn import functional

from m2pt.agm import AdaptiveGradientModulation, BalancingError

NAMES = ("audio", "visual")


def method(**settings) -> AdaptiveGradientModulation:
    torch.manual_seed(0)
    return AdaptiveGradientModulation(
        Joint(NAMES, early=True, batch_norm=True, dropout=0.2), NAMES, **{"alpha": 0.7, **settings}
    )


def train(agm: AdaptiveGradientModulation, steps: range, optimizer: torch.optim.Optimizer) -> list[float]:
    """Take steps, two an epoch, seeded by their number, and return the losses."""
    losses = []
    for step in steps:
        inputs, target = batch(NAMES, dtype=torch.float32, seed=step)
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = agm.loss(inputs, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 2:
            agm.after_epoch(step // 2 + 1)
    return losses


def optimizer_of(agm: AdaptiveGradientModulation) -> torch.optim.Optimizer:
    return torch.optim.SGD(agm.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("after_window", ["reset", "stays"])
@pytest.mark.parametrize("stop", [2, 3, 6])
def test_a_resumed_training_is_bit_equal(stop: int, after_window: str, tmp_path) -> None:
    settings = {"window": (1, 2), "after_window": after_window}
    whole = method(**settings)
    losses = train(whole, range(8), optimizer_of(whole))
    first = method(**settings)
    optimizer = optimizer_of(first)
    before = train(first, range(stop), optimizer)
    torch.save({"method": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    second = method(**settings)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state["method"])
    optimizer = optimizer_of(second)
    optimizer.load_state_dict(state["optimizer"])
    assert before + train(second, range(stop, 8), optimizer) == losses
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_the_state_has_the_model_s_weights_under_model_and_only_tensors() -> None:
    agm = method()
    state = agm.state_dict()
    own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    assert own.keys() == agm.model.state_dict().keys()
    assert {key for key in state if not key.startswith("model.")} == {
        "modulation.running_scores",
        "modulation.scores",
        "modulation.coefficients",
        "modulation.batches",
        "modulation._extra_state",
    }
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_copies_and_pickles_are_independent() -> None:
    agm = method()
    inputs, target = batch(NAMES, dtype=torch.float32)
    agm.loss(inputs, target)
    for other in (copy.deepcopy(agm), pickle.loads(pickle.dumps(agm))):  # our own bytes
        with torch.no_grad():
            other.model.fusion.head.weight.add_(1.0)
        torch.manual_seed(0)
        assert other.loss(inputs, target).item() != agm.loss(inputs, target).item()
        assert other._passes.muting is other.muting
        assert other._passes.encoders["audio"] is other.model.encoders["audio"]


def test_the_window_limits_modulation_and_muted_passes() -> None:
    """Before it the running means are kept up without gradients; after it the step is a plain one."""
    agm = method(window=(2, 2))
    plain = copy.deepcopy(agm.model)
    inputs, target = batch(NAMES, dtype=torch.float32)

    def is_plain() -> bool:
        agm.model.zero_grad()
        plain.zero_grad()
        plain.load_state_dict(agm.model.state_dict())
        torch.manual_seed(1)
        agm.loss(inputs, target).backward()
        torch.manual_seed(1)
        functional.cross_entropy(plain(inputs), target).backward()
        pairs = zip(agm.model.parameters(), plain.parameters(), strict=True)
        return all(torch.allclose(a.grad, b.grad, atol=1e-6) for a, b in pairs)

    agm.loss(inputs, target)
    assert is_plain() and agm.modulation.batches.item() == 2
    agm.after_epoch(1)
    assert not is_plain() and agm.modulation.batches.item() == 3
    agm.after_epoch(2)
    agm.model.calls = dict.fromkeys(NAMES, 0)
    assert is_plain() and agm.modulation.batches.item() == 3
    assert agm.model.calls == dict.fromkeys(NAMES, len(target))
    assert [value.item() for value in agm.coefficients.values()] == [1.0, 1.0]


def test_each_pass_of_an_accumulated_step_is_one_batch() -> None:
    agm, twice = method(), method()
    halves = [batch(NAMES, dtype=torch.float32, seed=seed) for seed in (0, 1)]
    gradients = []
    for index, half in enumerate(halves):
        torch.manual_seed(index)
        agm.zero_grad()
        agm.loss(*half).backward()
        gradients.append([parameter.grad.clone() for parameter in agm.model.parameters()])
    for index, half in enumerate(halves):
        torch.manual_seed(index)
        (twice.loss(*half) / 2).backward()
    assert twice.modulation.batches.item() == 2
    assert torch.equal(twice.modulation.running_scores, agm.modulation.running_scores)
    for first, second, parameter in zip(*gradients, twice.model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, (first + second) / 2)


def test_evaluation_returns_the_cross_entropy_and_changes_nothing() -> None:
    agm = method()
    inputs, target = batch(NAMES, dtype=torch.float32)
    agm.loss(inputs, target)
    state = {key: value.clone() for key, value in agm.state_dict().items()}
    agm.eval()
    expected = functional.cross_entropy(agm.model(inputs), target)
    assert torch.equal(agm.loss(inputs, target), expected)
    with torch.no_grad():
        assert torch.equal(agm.loss(inputs, target), expected)
    for key, value in agm.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_scalars_have_the_same_names_in_every_step() -> None:
    agm = method(window=(1, 1))
    names = ["score/audio", "score/visual", "coefficient/audio", "coefficient/visual"]
    assert list(agm.scalars) == names
    agm.loss(*batch(NAMES, dtype=torch.float32))
    agm.before_step()
    agm.after_epoch(1, None)
    assert list(agm.scalars) == names
    assert not any(value.requires_grad for value in agm.scalars.values())
    assert agm.scalars["score/audio"] == agm.scores["audio"] > 0


def test_presets() -> None:
    model = Joint(NAMES)
    agm = AdaptiveGradientModulation.from_preset("CREMA-D", model)
    assert (agm.modulation.alpha, agm.modulation.cap, agm.probability_floor) == (1.5, 10.0, 1e-8)
    agm = AdaptiveGradientModulation.from_preset("UR-FUNNY", model, NAMES, fusion="early", window=(0, 20))
    assert (agm.modulation.alpha, agm.modulation.cap, agm.probability_floor) == (6.0, 7.0, None)
    assert agm.modulation.window == (0, 20)
    with pytest.raises(BalancingError, match="no alpha was published for CREMA-D with early fusion"):
        AdaptiveGradientModulation.from_preset("CREMA-D", model, fusion="early")
    early = AdaptiveGradientModulation.from_preset("CREMA-D", model, fusion="early", alpha=0.5)
    assert early.modulation.alpha == 0.5
    with pytest.raises(BalancingError, match="there is no preset 'AVE', only AV-MNIST, CREMA-D, UR-FUNNY"):
        AdaptiveGradientModulation.from_preset("AVE", model)
