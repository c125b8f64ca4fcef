"""Muted inputs of every kind."""

import pytest
import torch
from agm_oracle import Joint, batch

from m2pt.agm import AdaptiveGradientModulation, BalancingError, Muting

SEQUENCE = {"values": torch.randn(3, 4, 2), "lengths": torch.tensor([1, 4, 2])}


def test_zeros_replace_a_tensor_as_a_whole_and_keep_lengths_in_a_mapping() -> None:
    muting = Muting()
    assert torch.equal(muting("a", torch.ones(3, 2), 1), torch.zeros(1, 2))
    assert torch.equal(muting("text", torch.tensor([[5, 7]]), 1), torch.tensor([[0, 0]]))
    muted = muting("text", SEQUENCE, 2)
    assert torch.equal(muted["values"], torch.zeros(2, 4, 2))
    assert torch.equal(muted["lengths"], torch.tensor([1, 4]))


def test_a_mapping_without_anything_to_mute_is_an_error() -> None:
    with pytest.raises(BalancingError, match=r"'text' cannot be muted: none of \['ids'\] is a floating"):
        Muting()("text", {"ids": torch.tensor([[1]])}, 1)


def test_complex_values_in_a_mapping_are_muted() -> None:
    value = {"values": torch.randn(3, 2), "spectrum": torch.randn(3, 2, dtype=torch.cfloat)}
    muted = Muting()("audio", value, 3)
    assert all(torch.equal(muted[name], torch.zeros_like(value[name])) for name in value)


def test_any_name_can_be_muted_and_none_takes_the_value_of_another() -> None:
    """Some are attributes of a module, some would be equal without dots."""
    names = ["type", "training", "zeros", "a.b", "a_b", "a/b", "a~b", "a~2b"]
    values = {name: torch.tensor([float(index)]) for index, name in enumerate(names)}
    for learned in (False, True):
        muting = Muting({**values, "a": {"b": torch.tensor([99.0])}}, learned=learned)
        assert [muting(name, torch.ones(1, 1), 1).item() for name in names] == list(range(len(names)))
        assert muting("a", {"b": torch.ones(1, 1)}, 1)["b"].item() == 99
        assert not muting.zeros and muting.training is True


def test_the_mean_is_over_samples_and_over_the_valid_positions_of_sequences() -> None:
    images = [torch.randn(2, 3, 3), torch.randn(5, 3, 3)]
    longer = {"values": torch.randn(2, 6, 2), "lengths": torch.tensor([6, 5])}
    batches = [{"image": images[0], "text": SEQUENCE}, {"image": images[1], "text": longer}]
    muting = Muting.mean(batches)
    torch.testing.assert_close(muting("image", images[0], 1)[0], torch.cat(images).mean(0))
    valid = [
        sequence["values"][i, : sequence["lengths"][i]]
        for sequence in (SEQUENCE, longer)
        for i in range(len(sequence["values"]))
    ]
    found = muting("text", SEQUENCE, 3)["values"]
    torch.testing.assert_close(found, torch.cat(valid).mean(0).expand(3, 4, 2))
    assert set(muting.state_dict()) == {"value/image", "value/text/values"}
    with pytest.raises(BalancingError, match="at least one batch"):
        Muting.mean([])


def test_learned_inputs_are_trained_by_the_modulated_loss_and_reach_zero_gradient_outside_the_window() -> (
    None
):
    torch.manual_seed(0)
    model = Joint(("a", "v"), early=True).double()
    inputs, target = batch(model.modalities)
    agm = AdaptiveGradientModulation(model, muting=Muting.learned(inputs), window=(1, 1))
    learned = dict(agm.named_parameters())["muting.value/a"]
    agm.loss(inputs, target).backward()
    assert learned.shape == (1, 6) and learned.grad.norm() > 0
    agm.after_epoch(1)
    learned.grad = None
    agm.loss(inputs, target).backward()
    assert torch.equal(learned.grad, torch.zeros_like(learned))


def test_a_learned_sequence_shares_one_vector() -> None:
    muting = Muting.learned({"text": SEQUENCE})
    assert [tuple(p.shape) for p in muting.parameters()] == [(1, 1, 2)]
    assert muting("text", SEQUENCE, 3)["values"].shape == (3, 4, 2)


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        (
            {"a": torch.zeros(1, 5)},
            torch.zeros(2, 3),
            r"has shape \(1, 5\), which does not broadcast to .*\(1, 3\)",
        ),
        ({"b": torch.zeros(1, 3)}, torch.zeros(2, 3), "there is no value for 'a'"),
        ({"a": torch.zeros(1, 3)}, torch.zeros(2, 3).long(), "not a floating-point tensor"),
    ],
)
def test_values_that_do_not_fit(values: dict, given: torch.Tensor, message: str) -> None:
    with pytest.raises(BalancingError, match=message):
        Muting(values)("a", given, 1)


def test_a_tensor_without_a_mean_is_an_error() -> None:
    with pytest.raises(BalancingError, match="modality 'text' has no floating-point tensor"):
        Muting.mean([{"text": torch.tensor([[1]])}])
