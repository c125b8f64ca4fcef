"""Plain joint training, and one modality alone."""

import pytest
import torch
from balancing_models import Early, Late, Stranger, batch, gradients, joint_gradients
from torch import nn

from m2pt.agm.methods import BalancingError, Joint


@pytest.mark.parametrize("model", [Late("audio", "visual"), Late("audio"), Late("a", "b", "c")])
def test_the_gradients_are_those_of_the_cross_entropy(model: Late) -> None:
    inputs, target = batch(*model.modalities)
    expected = joint_gradients(model, inputs, target)
    method = Joint(model)
    loss = method.loss(inputs, target)
    loss.backward()
    method.before_step()
    method.after_epoch(1, None)
    logits = model(inputs).detach()
    by_hand = (logits.exp().sum(1).log() - logits[range(len(target)), target]).mean()
    torch.testing.assert_close(loss.detach(), by_hand)
    assert gradients(model).keys() == expected.keys()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, expected[name])
    assert method.scalars == {}


def test_a_model_of_one_modality_ignores_the_others_of_the_dataset() -> None:
    inputs, target = batch("audio", "visual")
    method = Joint(Late("visual"))
    assert method.modalities == ("visual",)
    alone = method.loss({"visual": inputs["visual"]}, target)
    assert torch.equal(method.loss(inputs, target), alone)
    seen: list[list[str]] = []
    method.model.register_forward_pre_hook(lambda module, given: seen.append(list(given[0])))
    method.loss(inputs, target)
    assert seen == [["visual"]]  # a model that refuses unknown modalities can be trained, too


def test_a_black_box_needs_no_encoders() -> None:
    inputs, target = batch("audio", "visual")
    assert Joint(Stranger(), ["audio", "visual"]).loss(inputs, target).isfinite()
    with pytest.raises(BalancingError, match="at least 1"):
        Joint(nn.Linear(1, 1), [])


def test_a_model_without_parameters_has_scalars() -> None:
    assert Joint(nn.Identity(), ["audio"]).scalars == {}


def test_the_loss_is_float32_under_autocast() -> None:
    model = Early("audio", "visual").float()
    inputs, target = batch("audio", "visual")
    inputs = {name: value.float() for name, value in inputs.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(inputs).dtype == torch.bfloat16
        assert Joint(model).loss(inputs, target).dtype == torch.float32
