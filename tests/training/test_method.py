"""What a method may rely on: its hooks, its place in a step, its state. Processes: `test_processes.py`."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from point_trainings import ITEMS, SEED, Points, logged, new_model, train, train_until_killed
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.training import checkpoint
from m2pt.training.method import Method, Step
from m2pt.training.metrics import DivergedError
from m2pt.training.sampling import TrainingBatches

SGD = {"optimizer": "sgd", "optimizer_args": {"momentum": 0.0, "nesterov": False}, "lr": 0.1}
ONE_STEP = SGD | {"epochs": None, "steps": 1}


class Watch:
    """Changes nothing; records weights and gradients before each step, and what it is told."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.steps: list[Step] = []
        self.epochs: list[int] = []

    def before_step(self, model: nn.Module, step: Step) -> Mapping[str, Tensor] | None:
        self.steps.append(step)
        self.weights.append({name: p.detach().clone() for name, p in model.named_parameters()})
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        return None

    def after_epoch(self, model: nn.Module, epoch: int) -> Mapping[str, float] | None:
        self.epochs.append(epoch)
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        assert state == {}


class Multiply(nn.Module):
    """Multiplies the first layer's gradient by the number of its calls, which is its state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def before_step(self, model: Any, step: Step) -> Mapping[str, Tensor]:
        self.calls += 1
        model[0].weight.grad *= self.calls
        return {"calls": self.calls.clone()}

    def after_epoch(self, model: Any, epoch: int) -> Mapping[str, float]:
        return {"calls at the end": self.calls.item()}


class Drop(Watch):
    """Removes the first layer's gradient and triples that of the last one's bias."""

    def before_step(self, model: Any, step: Step) -> None:
        model[0].weight.grad = None
        model[2].bias.grad = 3 * model[2].bias.grad


def bits(model: nn.Module) -> bytes:
    return nn.utils.parameters_to_vector(model.parameters()).detach().numpy().tobytes()


def assert_gradients_of_whole_batches(method: Watch) -> None:
    """Compare with autograd on each step's 8 samples at once."""
    plain, data = new_model(), Points(SEED)
    batches = list(TrainingBatches(ITEMS, batch_size=8, seed=SEED, stop=6))
    assert len(method.gradients) == len(batches) == 6
    for keys, weights, gradients in zip(batches, method.weights, method.gradients, strict=True):
        plain.load_state_dict(weights)
        points, labels = zip(*(data[key] for key in keys), strict=True)
        value = functional.cross_entropy(plain(torch.stack(points)), torch.tensor(labels))
        expected = torch.autograd.grad(value, list(plain.parameters()))
        for (name, _), gradient in zip(plain.named_parameters(), expected, strict=True):
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("clip_grad", [None, 1e-3])
@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_are_complete_unscaled_and_not_clipped(tmp_path, monkeypatch, clip_grad, scaled):
    if scaled:  # as on a GPU in fp16
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler)
    method = Watch()
    trained = train(tmp_path / "watched", method=method, clip_grad=clip_grad)
    assert_gradients_of_whole_batches(method)
    assert bits(trained) != bits(new_model())
    if not scaled:
        assert bits(trained) == bits(train(tmp_path / "plain", clip_grad=clip_grad))


def test_the_step_and_the_epoch_are_counted_from_one_and_come_with_the_logged_scalars(tmp_path):
    method = Watch()
    train(tmp_path, method=method)
    assert [(step.number, step.epoch) for step in method.steps] == [(n, (n + 1) // 2) for n in range(1, 7)]
    assert method.epochs == [1, 2, 3]
    assert [step.scalars["loss"].item() for step in method.steps] == [
        pytest.approx(line["loss"]) for line in logged(tmp_path)
    ]


def test_changed_gradients_reach_the_weights(tmp_path):
    watch = Watch()
    train(tmp_path / "plain", method=watch, **ONE_STEP)
    trained = train(tmp_path / "changed", method=Drop(), **ONE_STEP)
    (before,), (gradients,) = watch.weights, watch.gradients
    assert torch.equal(trained[0].weight, before["0.weight"])
    torch.testing.assert_close(trained[2].bias, before["2.bias"] - 0.1 * 3 * gradients["2.bias"])
    torch.testing.assert_close(trained[2].weight, before["2.weight"] - 0.1 * gradients["2.weight"])


def test_clipping_comes_after_the_method(tmp_path):
    trained = train(tmp_path, method=Drop(), clip_grad=1e-3, **ONE_STEP)
    start = nn.utils.parameters_to_vector(new_model().parameters())
    update = nn.utils.parameters_to_vector(trained.parameters()) - start
    assert update.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_repeated_steps_take_the_changed_gradient_again(tmp_path):
    start = nn.utils.parameters_to_vector(new_model().parameters())
    once, twice = (
        train(tmp_path / str(times), method=Drop(), repeat_step=times, precision="no", **ONE_STEP)
        for times in (1, 2)
    )
    updates = [(nn.utils.parameters_to_vector(m.parameters()) - start).detach() for m in (once, twice)]
    torch.testing.assert_close(updates[1], 2 * updates[0], rtol=1e-4, atol=1e-7)


def test_scalars_are_logged_with_the_losses_and_after_each_epoch(tmp_path):
    train(tmp_path, method=Multiply(), describe=lambda model: {"described": 1.0}, log_every=2)
    assert [line["calls"] for line in logged(tmp_path) if "calls" in line] == [1.5, 3.5, 5.5]
    ends = [line for line in logged(tmp_path) if "calls at the end" in line]
    assert [(line["step"], line["calls at the end"], line["described"]) for line in ends] == [
        (2, 2.0, 1.0),
        (4, 4.0, 1.0),
        (6, 6.0, 1.0),
    ]


class Logs(Watch):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def before_step(self, model: nn.Module, step: Step) -> Mapping[str, Tensor]:
        return {self.names[(step.number - 1) % len(self.names)]: torch.zeros(())}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["loss"], "cannot log 'loss': the name is already used"),
        (["lr"], "cannot log 'lr': the name is already used"),
        (["one", "other"], r"scalars to log are .*'other'.*, but were .*'one'.* in the step before"),
    ],
)
def test_names_of_scalars_must_be_free_and_stay_the_same(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, method=Logs(*names))


class Draws(Watch):
    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[float] = []

    def before_step(self, model: nn.Module, step: Step) -> None:
        self.numbers.append(torch.rand(()).item())

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        self.numbers.append(torch.rand(()).item())


def test_random_numbers_of_a_method_differ_from_each_other_and_do_not_touch_the_training(tmp_path):
    method = Draws()
    trained = train(tmp_path / "drawing", method=method)
    assert len(set(method.numbers)) == len(method.numbers) == 9
    assert bits(trained) == bits(train(tmp_path / "plain"))


def test_the_state_survives_an_interruption_to_the_same_bits(tmp_path):
    whole, resumed = Multiply(), Multiply()
    alone = train(tmp_path / "alone", method=whole)
    directory = train_until_killed(tmp_path / "run", method=Multiply())
    assert checkpoint.load(directory / "resume.pt")["method"]["state"]["calls"] == 4
    trained = train(directory, method=resumed, checkpoint_every=2)
    assert whole.calls == resumed.calls == 6 and bits(trained) == bits(alone)
    assert (directory / "metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()


def test_a_finished_training_returns_the_state_of_its_method(tmp_path):
    train(tmp_path, method=Multiply())
    method = Multiply()
    train(tmp_path, method=method)
    assert method.calls == 6


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (Multiply, None, "saved by a training with the method Multiply, but this one has no method"),
        (None, Multiply, "saved by a training with no method, but this one has the method Multiply"),
        (Multiply, Drop, "saved by a training with the method Multiply, but this one has the method Drop"),
    ],
)
def test_another_method_is_refused_and_the_state_stays(tmp_path, first, second, message, finished):
    def create(kind: type | None) -> Method | None:
        return kind() if kind else None

    if finished:
        train(tmp_path, method=create(first))
    else:
        train_until_killed(tmp_path, method=create(first))
    path = tmp_path / ("final.pt" if finished else "resume.pt")
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"{path.name} was {message}"):
        train(tmp_path, method=create(second))
    assert path.read_bytes() == before
    train(tmp_path, method=create(first))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["state"].clear(),
        lambda entry: entry["state"].update(calls=torch.zeros(2)),
        lambda entry: entry.pop("state"),
        lambda entry: entry.pop("name"),
    ],
)
def test_a_state_that_does_not_fit_the_method_is_refused_by_name(tmp_path, change):
    path = train_until_killed(tmp_path, method=Multiply()) / "resume.pt"
    state = checkpoint.load(path)
    change(state["method"])
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=r"resume\.pt does not fit this training .*delete it"):
        train(tmp_path, method=Multiply())


def test_files_of_a_training_without_method_have_no_key_for_it(tmp_path):
    resume = checkpoint.load(train_until_killed(tmp_path) / "resume.pt")
    assert list(resume) == [
        *("identity", "step", "effective_batch", "model", "optimizer", "scaler", "window"),
        *("metrics_length", "metrics_sha256", "seconds"),
    ]
    train(tmp_path)
    final = checkpoint.load(tmp_path / "final.pt")
    assert list(final) == ["identity", "step", "model", "metrics_length", "metrics_sha256"]


class Poison(Watch):
    def before_step(self, model: Any, step: Step) -> None:
        if step.number == 3:
            model[0].weight.grad.fill_(math.nan)


def test_a_method_that_spoils_the_weights_is_caught_before_they_are_saved(tmp_path):
    with pytest.raises(DivergedError, match=r"resume\.pt \(step 2\)"):
        train(tmp_path, method=Poison(), checkpoint_every=1)
    assert checkpoint.load(tmp_path / "resume.pt")["step"] == 2


@pytest.mark.parametrize("name", ["before_step", "after_epoch", "state_dict", "load_state_dict"])
def test_an_incomplete_method_is_refused_before_the_first_step(tmp_path, name: str) -> None:
    watch: Any = Watch()
    setattr(watch, name, None)
    with pytest.raises(TypeError, match=rf"Watch is not a training method: it has no {name}\(\)"):
        train(tmp_path, method=watch, **ONE_STEP)
    assert not watch.steps
