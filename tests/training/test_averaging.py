"""The average of the merged weights against sums by hand, and its way through a stopped training."""

import copy

import numpy as np
import pytest
import torch
from point_trainings import new_model, train, train_until_killed
from torch import nn

from m2pt.errors import InputError
from m2pt.pathway import attach, merge, merge_state_dict
from m2pt.training import checkpoint
from m2pt.training.averaging import MergedAverage

DECAY, STEPS = 0.8, 6


def attached_model():
    """Return linear layers with a pathway each, λ with two groups in the last, and a batch norm."""
    target, auxiliary = (
        nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 6)) for _ in range(2)
    )
    torch.manual_seed(2)
    for module in (target, auxiliary):
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    attach([target], {"other": [auxiliary]}, ["0", "3"], scale_init=0.3, scale_groups={"0": 1, "3": 2})
    return target


class Recorded:
    """A method that keeps the state before each step."""

    def __init__(self):
        self.states = []

    def before_step(self, model, step):
        self.states.append(copy.deepcopy(model.state_dict()))

    def after_epoch(self, model, epoch):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def trained(directory, *, train=train, **options):
    model = attached_model()
    average = MergedAverage(model, DECAY)
    train(directory, model=model, average=average, ema=DECAY, **options)
    return model, average


def in_rows(scale, matrix):
    return np.repeat(scale, len(matrix) // len(scale))[:, None]


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_it_is_the_average_of_the_sums_and_not_the_sum_of_averages(tmp_path, precision):
    method = Recorded()
    model, average = trained(tmp_path, method=method, precision=precision, lr=0.1, scale_lr=0.1)
    states = [*method.states, model.state_dict()]
    assert len(states) == STEPS + 1
    numbers = [{name: value.double().numpy() for name, value in state.items()} for state in states]
    shares = [DECAY**STEPS, *((1 - DECAY) * DECAY ** (STEPS - step) for step in range(1, STEPS + 1))]

    def mean(values):
        return sum(share * value for share, value in zip(shares, values, strict=True))

    merged = average.merged()
    assert list(merged) == [name for name in states[0] if "pathways" not in name]
    for layer in ("0", "3"):
        names = [f"{layer}.{name}" for name in ("weight", "pathways.other.weight", "pathways.other.scale")]
        parts = [tuple(state[name] for name in names) for state in numbers]
        by_hand = mean([w + in_rows(scale, a) * a for w, a, scale in parts])
        assert np.abs(merged[f"{layer}.weight"].numpy() - by_hand).max() < 1e-6
        w, a, scale = (mean(values) for values in zip(*parts, strict=True))
        assert np.abs(by_hand - (w + in_rows(scale, a) * a)).max() > 1e-3
        bias = mean([state[f"{layer}.bias"] for state in numbers])
        assert np.abs(merged[f"{layer}.bias"].numpy() - bias).max() < 1e-6
    assert torch.equal(merged["1.running_mean"], states[-1]["1.running_mean"])
    plain = merge(copy.deepcopy(model))
    plain.load_state_dict(merged)
    assert all(value.dtype == plain.state_dict()[name].dtype for name, value in merged.items())


def test_the_average_of_weights_that_stay_is_merging(tmp_path):
    model = attached_model().to(torch.bfloat16)
    average = MergedAverage(model, 0.999)
    for _ in range(1000):
        average.update()
    merged = merge_state_dict(model.state_dict())
    assert all(torch.equal(value, merged[name]) for name, value in average.merged().items())
    assert {value.dtype for value in average.state_dict().values()} == {torch.float32}


def test_a_resumed_training_has_the_same_bits(tmp_path):
    _, undisturbed = trained(tmp_path / "undisturbed")
    trained(tmp_path / "killed", train=train_until_killed)
    assert checkpoint.load(tmp_path / "killed" / "resume.pt")["step"] == 4
    _, resumed = trained(tmp_path / "killed", checkpoint_every=2)
    _, restored = trained(tmp_path / "killed")  # of final.pt
    expected = undisturbed.merged()
    for average in (resumed, restored):
        assert all(torch.equal(value, expected[name]) for name, value in average.merged().items())


def test_a_state_with_another_average_is_refused(tmp_path):
    trained(tmp_path, train=train_until_killed)
    with pytest.raises(InputError, match=r"resume\.pt does not fit .*which this training does not keep"):
        train(tmp_path, model=attached_model())
    path = tmp_path / "resume.pt"
    state = checkpoint.load(path)
    state["average"]["0.weight"] = state["average"]["0.weight"].double()
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=r"the average is of another model, which differs in 0\.weight"):
        trained(tmp_path)
    del state["average"]
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=r"KeyError: 'average'"):
        trained(tmp_path)


def test_the_recipe_and_the_average_agree(tmp_path):
    model = new_model()
    for options in ({"ema": 0.9}, {"average": MergedAverage(model, 0.9)}):
        with pytest.raises(TypeError, match="the decay of the average"):
            train(tmp_path, model=model, **options)
