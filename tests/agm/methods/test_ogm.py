"""OGM and OGM-GE: coefficients against hand-computed ones, the noise, and where it acts."""

import copy
import math

import pytest
import torch
import torchvision
from balancing_models import Early, Late, Stranger, batch, gradients, joint_gradients
from torch import Tensor, nn

from m2pt.agm.methods import OGM, BalancingError
from m2pt.agm.methods.ogm import pairwise_ratios

PAIR = ("audio", "visual")


def by_hand(model: Late, inputs: dict[str, Tensor], target: Tensor) -> dict[str, float]:
    """Return Σᵢ softmax(W_m h_m + b / 2)ᵢ[yᵢ] as in the official code, in plain Python."""
    scores = {}
    for index, name in enumerate(PAIR):
        weight = model.fusion.weight[:, 4 * index : 4 * index + 4]
        logits = (model.encoders[name](inputs[name]) @ weight.T + model.fusion.bias / 2).tolist()
        scores[name] = sum(
            math.exp(row[label]) / sum(map(math.exp, row))
            for row, label in zip(logits, target.tolist(), strict=True)
        )
    return scores


def step(method: OGM, inputs: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the model after `before_step`."""
    method.zero_grad()
    method.loss(inputs, target).backward()
    method.before_step()
    return gradients(method.model)


@pytest.mark.parametrize("seed", [3, 4, 8, 9])
def test_only_the_better_encoder_is_slowed_down(seed: int) -> None:
    model = Late(*PAIR, seed=seed)
    inputs, target = batch(*PAIR, seed=seed)
    expected = joint_gradients(model, inputs, target)
    scores = by_hand(model, inputs, target)
    better, worse = sorted(PAIR, key=lambda name: -scores[name])
    coefficient = 1 - math.tanh(0.8 * scores[better] / scores[worse])
    method = OGM(model, alpha=0.8, parameters="all")
    found = step(method, inputs, target)
    for name, value in expected.items():
        factor = coefficient if name.startswith(f"encoders.{better}") else 1
        torch.testing.assert_close(found[name], factor * value, rtol=1e-10, atol=1e-12)
    scalars = method.scalars
    assert scalars[f"coefficient/{better}"].item() == pytest.approx(coefficient, rel=1e-10)
    assert scalars[f"coefficient/{worse}"] == 1
    assert scalars[f"ratio/{better}"].item() == pytest.approx(scores[better] / scores[worse], rel=1e-10)


def test_both_sides_occur_in_the_test_above() -> None:
    better = {
        max(PAIR, key=by_hand(Late(*PAIR, seed=s), *batch(*PAIR, seed=s)).__getitem__) for s in (3, 4, 8, 9)
    }
    assert better == set(PAIR)


def test_early_fusion_is_modulated_too() -> None:
    """In the code of AGM's authors OGM-GE has no effect there."""
    model = Early(*PAIR).eval()  # one mode, so that the pass can be repeated
    inputs, target = batch(*PAIR)
    expected = joint_gradients(model, inputs, target)
    method = OGM(model, alpha=0.8, parameters="all")
    method.training = True  # the method's own mode alone decides whether scores are kept
    found = step(method, inputs, target)
    factors = {name: method.scalars[f"coefficient/{name}"].item() for name in PAIR}
    assert min(factors.values()) < 0.6 and max(factors.values()) == 1
    for name, value in expected.items():
        factor = next((factors[m] for m in PAIR if name.startswith(f"encoders.{m}")), 1)
        torch.testing.assert_close(found[name], factor * value)


def test_encoders_of_a_stranger_are_found_by_module() -> None:
    model = Stranger()
    inputs, target = batch(*PAIR)
    expected = joint_gradients(model, inputs, target)
    method = OGM(
        model, PAIR, alpha=2.0, parameters="all", encoders={"visual": model.net[0], "audio": model.net[1]}
    )
    found = step(method, inputs, target)
    factors = [method.scalars["coefficient/visual"], method.scalars["coefficient/audio"], 1.0]
    assert min(factors[:2]) < 0.2
    for index, factor in enumerate(factors):
        torch.testing.assert_close(found[f"net.{index}.weight"], factor * expected[f"net.{index}.weight"])


def test_three_modalities_average_the_pairwise_ratios() -> None:
    assert pairwise_ratios(torch.tensor([4.0, 2.0])).tolist() == [2.0, 0.5]
    assert pairwise_ratios(torch.tensor([4.0, 2.0, 1.0])).tolist() == [3.0, 1.25, 0.375]


def test_ratios_of_scores_that_are_zero_are_finite() -> None:
    tiny, largest = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
    assert pairwise_ratios(torch.tensor([0.0, 2.0])).tolist() == [pytest.approx(tiny / 2), 2 / tiny]
    assert pairwise_ratios(torch.tensor([0.0, 64.0])).tolist() == [pytest.approx(tiny / 64), largest]
    assert pairwise_ratios(torch.tensor([0.0, 0.0, 0.0])).tolist() == [1, 1, 1]
    assert pairwise_ratios(torch.tensor([0.0, 0.0, 64.0])).tolist() == [0.5, 0.5, largest]


def test_scores_of_zero_stop_the_other_encoder_and_nan_changes_nothing() -> None:
    model = Late(*PAIR)
    inputs, target = batch(*PAIR)
    method = OGM(model, alpha=1.0, parameters="all")
    for sums, expected in (([0.0, 1.0], [1, 0]), ([0.0, 0.0], [1, 1]), ([math.nan, 1.0], [1, 1])):
        method.loss(inputs, target).backward()
        method._sums = torch.tensor(sums)
        method.before_step()
        assert [method.scalars[f"coefficient/{name}"].item() for name in PAIR] == expected


def test_alpha_zero_changes_nothing() -> None:
    model = Late(*PAIR)
    inputs, target = batch(*PAIR)
    expected = joint_gradients(model, inputs, target)
    assert all(
        torch.equal(v, expected[n])
        for n, v in step(OGM(model, alpha=0, parameters="all"), inputs, target).items()
    )
    method = OGM(model, alpha=0, parameters="all")
    method.zero_grad()
    method.loss(inputs, target).backward()
    method._sums = torch.tensor([64.0, 0.0])  # 0 times an infinite ratio would be NaN
    method.before_step()
    assert all(torch.equal(value, expected[name]) for name, value in gradients(model).items())


class Wide(Late):
    """Encoders of one convolution each, with a bias and enough elements for statistics."""

    def encoder(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 1, 5)),
            nn.Conv2d(1, 4000, (1, 5)),
            nn.Flatten(1),
            nn.Unflatten(1, (4, 1000)),
            nn.AvgPool1d(1000),
            nn.Flatten(),
        )


def test_the_noise_has_the_standard_deviation_of_the_gradient() -> None:
    model = Wide(*PAIR)
    inputs, target = batch(*PAIR)
    expected = joint_gradients(model, inputs, target)
    method = OGM(model, alpha=0.5, enhance=True, seed=7)
    found = step(method, inputs, target)
    noises = []
    for modality in PAIR:
        name = f"encoders.{modality}.1.weight"
        noise = found[name] - method.scalars[f"coefficient/{modality}"] * expected[name]
        values, own = noise.flatten(), expected[name].flatten()
        deviation = own.std().item()
        assert values.std().item() == pytest.approx(deviation, rel=0.02)  # 20,000 values: 4 standard errors
        assert abs(values.mean().item()) < 4 * deviation / math.sqrt(len(values))
        assert values.abs().lt(deviation).double().mean().item() == pytest.approx(0.6827, abs=0.014)
        assert abs(torch.corrcoef(torch.stack([values, own]))[0, 1].item()) < 0.03
        noises.append(values / deviation)
    assert abs(torch.corrcoef(torch.stack(noises))[0, 1].item()) < 0.03
    for name in expected.keys() - {f"encoders.{m}.1.weight" for m in PAIR}:
        assert torch.equal(found[name], expected[name]), name  # biases and the head


def test_the_noise_differs_by_seed_and_step_only() -> None:
    inputs, target = batch(*PAIR)

    def noisy(seed: int, steps: int) -> Tensor:
        method = OGM(Wide(*PAIR), alpha=0.5, enhance=True, seed=seed)
        for _ in range(steps):
            torch.rand(steps)  # the global generator does not matter
            found = step(method, inputs, target)
        return found["encoders.audio.1.weight"]

    same = noisy(0, 1)
    assert torch.equal(same, noisy(0, 1))
    assert not torch.equal(same, noisy(0, 2))
    assert not torch.equal(same, noisy(1, 1))


def test_a_gradient_of_one_element_stays_finite() -> None:
    model = Late(*PAIR)
    for name in PAIR:
        model.encoders[name] = nn.Sequential(nn.Linear(5, 4), nn.PReLU()).double()
    found = step(OGM(model, alpha=0.5, enhance=True, parameters="all"), *batch(*PAIR))
    assert all(value.isfinite().all() for value in found.values())


def test_noise_in_a_sparse_gradient_is_refused() -> None:
    model = Late(*PAIR)
    model.encoders["audio"] = nn.EmbeddingBag(7, 4, sparse=True).double()
    inputs, target = batch(*PAIR)
    inputs["audio"] = torch.randint(7, (6, 2))
    found = step(OGM(model, alpha=0.5, parameters="all"), inputs, target)
    assert found["encoders.audio.weight"].is_sparse
    with pytest.raises(BalancingError, match="sparse=False"):
        step(OGM(model, alpha=0.5, enhance=True, parameters="all"), inputs, target)


def test_the_window_counts_epochs_from_one() -> None:
    inputs, target = batch(*PAIR)
    method = OGM(Late(*PAIR), alpha=0.8, parameters="all", first_epoch=2, last_epoch=3)
    active = []
    for epoch in range(1, 5):
        step(method, inputs, target)
        active.append(min(method.scalars[f"coefficient/{name}"].item() for name in PAIR) < 1)
        method.after_epoch(epoch, None)
    assert active == [False, True, True, False]


def test_accumulated_passes_count_as_one_batch() -> None:
    inputs, target = batch(*PAIR)
    whole = OGM(Late(*PAIR), alpha=0.8, parameters="all")
    expected = step(whole, inputs, target)
    parts = OGM(Late(*PAIR), alpha=0.8, parameters="all")
    for part in (slice(0, 1), slice(1, 6)):
        loss = parts.loss({n: v[part] for n, v in inputs.items()}, target[part])
        (loss * len(target[part]) / 6).backward()
    parts.eval()
    parts.loss(inputs, target)  # an evaluation in between is no part of the step
    parts.train()
    parts.before_step()
    for name, value in gradients(parts.model).items():
        torch.testing.assert_close(value, expected[name])
    assert parts.scalars.keys() == whole.scalars.keys()


def test_a_resumed_training_is_the_same_bit_for_bit() -> None:
    data = [batch(*PAIR, seed=seed) for seed in range(6)]

    def run(method: OGM, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for number in steps:
            step(method, *data[number])
            optimizer.step()
            if number % 2:
                method.after_epoch(number // 2 + 1, None)

    def new() -> tuple[OGM, torch.optim.Optimizer]:
        method = OGM(Late(*PAIR), alpha=0.8, enhance=True, parameters="all", last_epoch=2)
        return method, torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)

    method, optimizer = new()
    run(method, optimizer, range(3))
    state = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
    run(method, optimizer, range(3, 6))
    resumed, other = new()
    resumed.load_state_dict(state[0])
    other.load_state_dict(state[1])
    run(resumed, other, range(3, 6))
    for name, value in method.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_low_precision_scores_are_summed_in_float32() -> None:
    model = Late(*PAIR).float()
    inputs, target = batch(*PAIR, size=64)
    inputs = {name: value.float() for name, value in inputs.items()}
    method = OGM(model, alpha=0.8, parameters="all")
    step(method, inputs, target)
    expected = method.scalars["ratio/audio"].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(inputs, target)
    loss.backward()
    method.before_step()
    assert method.scalars["ratio/audio"].dtype == torch.float32
    assert method.scalars["ratio/audio"].item() == pytest.approx(expected, rel=0.02)


def test_wrong_settings_are_named() -> None:
    for alpha in (-0.1, math.nan, math.inf):
        with pytest.raises(BalancingError, match=f"alpha must be a finite number, 0 or more, got {alpha}"):
            OGM(Late(*PAIR), alpha=alpha)
    with pytest.raises(
        BalancingError, match=r"0% of the parameters .* 'audio' are convolution .*parameters='all'"
    ):
        OGM(Late(*PAIR), alpha=1)
    with pytest.raises(BalancingError, match="'conv' or 'all', got 'weights'"):
        OGM(Late(*PAIR), alpha=1, parameters="weights")  # type: ignore[arg-type]
    with pytest.raises(BalancingError, match="needs a forward pass"):
        OGM(Wide(*PAIR), alpha=1).before_step()


def test_conv_needs_encoders_that_mostly_consist_of_convolutions() -> None:
    model = Wide(*PAIR)
    for name in PAIR:  # a patch embedding, then a transformer
        model.encoders[name] = nn.Sequential(nn.Conv2d(3, 8, 4), nn.TransformerEncoderLayer(8, 2, 64))
    with pytest.raises(BalancingError, match=r"'audio' are convolution kernels .*: use parameters='all'"):
        OGM(model, alpha=1)
    resnets = {name: torchvision.models.resnet18(num_classes=4) for name in PAIR}
    model.encoders = nn.ModuleDict(resnets)
    assert len(OGM(model, alpha=1)._modulated["audio"]) == 20
