"""What all methods share: wrong use, what a batch may be, and several processes."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from balancing_models import Late, Stranger, batch, gradients, joint_gradients, validation
from balancing_processes import TRAINED, new_method, train
from torch import Tensor, nn

from m2pt.agm import (
    MSLR,
    OGM,
    AdaptiveGradientModulation,
    BalancingError,
    BalancingMethod,
    GradientBlending,
    Joint,
    mono_modal_logits,
)

ONES = {"audio": 1.0, "visual": 1.0}


BAD_METHODS: dict[str, tuple[Callable[[], object], str]] = {
    "one modality, modulated": (
        lambda: AdaptiveGradientModulation(Late("audio")),
        r"AdaptiveGradientModulation needs at least 2 modalities, got \['audio'\]: train .* with Joint",
    ),
    "one modality": (
        lambda: MSLR(Late("audio"), coefficients={"audio": 1.0}),
        "of one modality with Joint",
    ),
    "no names": (lambda: Joint(Stranger()), "give modalities"),
    "a name twice": (lambda: Joint(Stranger(), ["audio", "audio"]), "named twice"),
    "no encoders": (lambda: MSLR(Stranger(), list(ONES), coefficients=ONES), "has no `encoders`"),
    "an encoder lacks": (
        lambda: MSLR(model := Stranger(), list(ONES), coefficients=ONES, encoders={"audio": model.net[0]}),
        "no value for 'visual'",
    ),
    "unknown encoder": (
        lambda: MSLR(Late("a", "b"), coefficients={"a": 1, "b": 1}, encoders={"c": nn.Linear(1, 1)}),
        "unknown 'c'",
    ),
    "shared": (
        lambda: OGM(m := Stranger(), list(ONES), alpha=1, encoders=dict.fromkeys(ONES, m.net[0])),
        "'audio' and 'visual' share",
    ),
    "foreign": (
        lambda: OGM(Stranger(), list(ONES), alpha=1, encoders={n: nn.Linear(5, 4) for n in ONES}),
        "'audio' is not a part of the model",
    ),
    "empty": (
        lambda: OGM(Stranger(), list(ONES), alpha=1, encoders={n: nn.Identity() for n in ONES}),
        "'audio' has no parameters",
    ),
}


@pytest.mark.parametrize("case", BAD_METHODS)
def test_a_method_that_cannot_be_built_says_why(case: str) -> None:
    build, message = BAD_METHODS[case]
    with pytest.raises(BalancingError, match=message):
        build()


ALL = ["joint", "agm", "ogm", "mslr", "mses", "blending"]


@pytest.mark.parametrize("name", ALL)
def test_a_wrong_batch_is_named(name: str) -> None:
    """The same checks for all methods, whatever the mode."""
    method = new_method(name)
    inputs, target = batch("audio", "visual")
    visual = inputs["visual"]
    wrong: list[tuple[dict[str, object], Tensor, str]] = [
        ({"audio": inputs["audio"]}, target, "lacks modality 'visual'; it has 'audio'"),
        (inputs | {"text": visual}, target, "has modality 'text', which is not among"),
        (inputs | {"visual": visual[:4]}, target, "batch size: modality 'audio' 6, modality 'visual' 4"),
        (inputs | {"visual": {"values": visual, "lengths": torch.ones(4).long()}}, target, "batch size"),
        (inputs, target[:4], r"target must have the shape \(6,\), got \(4,\)"),
        (inputs, target.double(), "class indices, got torch.float64"),
        (inputs, target.clone().fill_(3), "target has a class outside 0 to 2"),
    ]
    for given, labels, message in wrong:
        for training in (True, False):
            with pytest.raises(BalancingError, match=message):
                method.train(training).loss(given, labels)


@pytest.mark.parametrize("name", ALL)
def test_all_methods_have_one_interface(name: str) -> None:
    """In evaluation, where nothing is balanced, the loss is that of joint training; blending's is its own."""
    method = new_method(name)
    inputs, target = batch("audio", "visual")
    before = set(method.scalars)
    loss = method.loss(inputs, target)
    loss.backward()
    method.before_step()
    assert set(method.scalars) == before
    assert not any(value.requires_grad for value in method.scalars.values())
    assert (method.validation_losses(inputs, target) != {}) == (name == "blending")
    if name != "blending":
        expected = nn.functional.cross_entropy(method.model.eval()(inputs), target)
        torch.testing.assert_close(method.eval().loss(inputs, target), expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
def test_labels_may_be_integers_of_any_size(name: str, dtype: torch.dtype) -> None:
    inputs, target = batch("audio", "visual")
    found = []
    for labels in (target, target.to(dtype)):
        method = new_method(name)
        torch.manual_seed(0)  # of dropout
        method.loss(inputs, labels).backward()
        found.append(gradients(method))
    for key, value in found[0].items():
        assert torch.equal(found[1][key], value), key


@pytest.mark.parametrize("name", ALL)
def test_a_model_that_is_switched_without_its_method_is_an_error(name: str) -> None:
    """From then on the loss would be that of plain joint training."""
    method = new_method(name)
    method.eval()
    method.model.train()
    with pytest.raises(BalancingError, match=r"the model is in training mode, but .* in evaluation mode"):
        method.loss(*batch("audio", "visual"))
    method.train()
    method.loss(*batch("audio", "visual")).backward()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_logits_that_are_not_finite_are_an_error(name: str, training: bool) -> None:
    method = new_method(name)
    with torch.no_grad():
        next(method.model.parameters()).fill_(torch.nan)
    with pytest.raises(BalancingError, match=r"the (loss of \w+|score of modality '\w+') is NaN or infinite"):
        method.train(training).loss(*batch("audio", "visual"))


class Ordered(Late):
    """Concatenates in the order of its inputs."""

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.fusion(torch.cat(list(features.values()), dim=1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.fuse({name: self.encode(name, value) for name, value in inputs.items()})


BUILDERS: dict[str, Callable[[Late], BalancingMethod]] = {
    "joint": Joint,
    "agm": lambda model: AdaptiveGradientModulation(model, alpha=0),
    "agm, whole": lambda model: AdaptiveGradientModulation(model, alpha=0, fast_path=False),
    "ogm": lambda model: OGM(model, alpha=0, parameters="all"),
    "blending": lambda model: GradientBlending(
        model,
        heads={n: nn.Linear(4, 3).double() for n in ONES},
        weights={"audio": 0, "visual": 0, "joint": 1},
    ),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_sees_the_modalities_in_the_order_of_the_batch(name: str) -> None:
    model = Ordered("audio", "visual")
    inputs, target = batch("visual", "audio")
    expected = joint_gradients(model, inputs, target)
    method = BUILDERS[name](model)
    method.loss(inputs, target).backward()
    for key, value in gradients(model).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-9)
    total = sum(mono_modal_logits(model, inputs).values())
    torch.testing.assert_close(total, model(inputs).detach())


@pytest.mark.parametrize("name", ["mslr", "mses", "blending"])
def test_a_method_that_adapts_wants_a_complete_validation(name: str) -> None:
    method = new_method(name)
    with pytest.raises(BalancingError, match="give after_epoch"):
        method.after_epoch(1, None)
    one = {"audio": 0.5}
    with pytest.raises(BalancingError, match="no finite value for 'visual'"):
        method.after_epoch(1, validation(one, one, one))
    nan = {"audio": 0.5, "visual": float("nan"), "joint": 1.0}
    with pytest.raises(BalancingError, match="no finite value for 'visual'"):
        method.after_epoch(1, validation(nan, nan, nan))


def finish(method: BalancingMethod, epoch: object) -> None:
    losses = {"audio": 0.5, "visual": 0.4, "joint": 0.3}
    method.after_epoch(epoch, validation(losses, losses, losses))  # type: ignore[arg-type]


def step(method: BalancingMethod) -> None:
    method.loss(*batch("audio", "visual")).backward()
    method.before_step()


@pytest.mark.parametrize("name", TRAINED)
def test_epochs_come_once_and_in_order_also_after_a_restart(name: str) -> None:
    method, resumed = new_method(name), new_method(name)
    for epoch in (1, 3):
        step(method)
        finish(method, epoch)
    resumed.load_state_dict(method.state_dict())
    for each in (method, resumed):
        step(each)
        before = copy.deepcopy(each.state_dict())
        for wrong in (3, 2, 0, -1):
            with pytest.raises(BalancingError, match=rf"after_epoch\({wrong}\) .* be 4 or more"):
                finish(each, wrong)
        for odd in (None, 4.0, "4"):
            with pytest.raises(BalancingError, match="number of complete epochs, 1 or more, got"):
                finish(each, odd)
        assert str(before) == str(each.state_dict())
        finish(each, 4)


@pytest.mark.parametrize("name", TRAINED)
def test_a_state_of_other_modalities_is_refused(name: str) -> None:
    """The same names in another order would swap running means."""
    method, other = new_method(name), new_method(name)
    for part in (method, method.modulation) if name == "agm" else (method,):
        part.modalities = ("visual", "audio")
    message = r"the state is of the modalities \['visual', 'audio'\], not of \['audio', 'visual'\]"
    with pytest.raises(BalancingError, match=message):
        other.load_state_dict(method.state_dict())


@pytest.mark.parametrize("name", ["ogm", "mslr", "mses"])
def test_a_method_that_changes_gradients_wants_its_hook_once_a_step(name: str) -> None:
    method = new_method(name)
    with pytest.raises(BalancingError, match="needs a"):
        method.before_step()
    method.loss(*batch("audio", "visual")).backward()
    with pytest.raises(BalancingError, match="changes gradients: call before_step"):
        finish(method, 1)
    method.before_step()
    before = gradients(method)
    with pytest.raises(BalancingError, match="needs a"):
        method.before_step()
    assert all(torch.equal(value, before[key]) for key, value in gradients(method).items())
    method.loss(*batch("audio", "visual")).backward()  # accumulation may go on in the next epoch
    finish(method, 1)
    method.before_step()


@pytest.mark.parametrize("name", ["joint", "agm"])
def test_a_method_that_leaves_gradients_alone_does_not_need_the_hook(name: str) -> None:
    method = new_method(name)
    method.before_step()
    method.loss(*batch("audio", "visual")).backward()
    finish(method, 1)


@pytest.mark.parametrize("name", TRAINED)
def test_all_processes_end_with_the_same_weights(
    name: str, two_processes: list[dict[str, dict[str, Tensor]]]
) -> None:
    first, second = (states[name] for states in two_processes)
    parameters = [key for key in first if "running" not in key and "num_batches" not in key]
    assert len(parameters) > 5
    for key in parameters:
        assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize("name", ["ogm", "mslr", "blending"])
def test_two_processes_equal_one(name: str, two_processes: list[dict[str, dict[str, Tensor]]]) -> None:
    """On the whole batch, with unequal accumulated parts, and validations that differ by process."""
    alone = train(new_method(name))
    for key, value in two_processes[0][name].items():
        torch.testing.assert_close(
            value, alone[key], rtol=1e-5, atol=1e-7, msg=lambda m, key=key: f"{key}: {m}"
        )
