"""The masked transformer for padded sequences, compared with torch's own encoder one sequence at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.models.sequence_encoder import SequenceEncoder

LENGTHS = torch.tensor([5, 1, 3])


def encoder(output: str = "first", *, dropout: float = 0.0) -> SequenceEncoder:
    return SequenceEncoder(
        6, dim=8, depth=3, num_heads=2, hidden_dim=12, dropout=dropout, output=output
    ).double()


def batch(padded: int = 5, lengths: Tensor = LENGTHS) -> dict[str, Tensor]:
    values = torch.randn(3, 5, 6, dtype=torch.float64)
    extra = torch.full((3, padded - 5, 6), 7.0, dtype=torch.float64)
    return {"values": torch.cat([values, extra], dim=1), "lengths": lengths}


@pytest.mark.parametrize("output", ["first", "mean"])
def test_features_equal_those_of_torchs_encoder_for_each_sequence_alone(output: str) -> None:
    model, inputs = encoder(output), batch()
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, dtype=torch.float64)
    theirs = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    theirs.layers.load_state_dict(model.layers.state_dict())
    for features, values, length in zip(model(inputs), inputs["values"], LENGTHS, strict=True):
        steps = theirs(values[None, :length] @ model.project.weight.T)[0]
        expected = steps[0] if output == "first" else steps.mean(dim=0)
        torch.testing.assert_close(features, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("output", ["first", "mean"])
@pytest.mark.parametrize("filler", [0.0, 1e6, float("nan"), float("inf")])
def test_padding_has_no_influence_on_features_or_gradients(output: str, filler: float) -> None:
    model, inputs = encoder(output), batch()
    results = []
    for padded in (5, 9):
        values = torch.full((3, padded, 6), filler, dtype=torch.float64)
        for row, length in enumerate(LENGTHS):
            values[row, :length] = inputs["values"][row, :length]
        model.zero_grad()
        features = model({"values": values, "lengths": LENGTHS})
        features.square().sum().backward()
        results.append([features.detach(), *(p.grad.clone() for p in model.parameters())])
    for short, long in zip(*results, strict=True):
        assert short.isfinite().all()
        torch.testing.assert_close(long, short, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("output", ["first", "mean"])
def test_sequences_of_zeros_have_the_same_features_whatever_their_length(output: str) -> None:
    model = encoder(output)
    assert model.constant_when_muted
    features = model({"values": torch.zeros(3, 5, 6, dtype=torch.float64), "lengths": LENGTHS})
    alone = model({"values": torch.zeros(1, 1, 6, dtype=torch.float64), "lengths": torch.tensor([1])})
    torch.testing.assert_close(features, alone.expand(3, -1), atol=1e-13, rtol=1e-12)


def test_steps_within_the_length_do_have_an_influence() -> None:
    model, inputs = encoder(), batch()
    changed = {**inputs, "values": inputs["values"].clone()}
    changed["values"][0, 4] += 1
    different = (model(changed) - model(inputs)).abs().amax(dim=1) > 1e-6
    assert different.tolist() == [True, False, False]


@pytest.mark.parametrize("output", ["first", "mean"])
def test_without_dropout_evaluation_equals_training_to_the_bit(output: str) -> None:
    model, inputs = encoder(output).float(), batch()
    inputs["values"] = inputs["values"].float()
    trained = model.train()(inputs)
    with torch.no_grad():
        assert torch.equal(model.eval()(inputs), trained)


def test_dropout_acts_in_training_alone() -> None:
    model, inputs = encoder(dropout=0.5), batch()
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


def test_dropout_of_the_last_layer_has_the_statistics_of_torchs() -> None:
    model = SequenceEncoder(6, dim=8, depth=1, num_heads=2, hidden_dim=12, dropout=0.4).double()
    values = torch.randn(1, 4, 6, dtype=torch.float64).expand(20000, -1, -1)
    lengths = torch.full((20000,), 4)
    ours = model({"values": values, "lengths": lengths})
    theirs = model.layers[0]((values @ model.project.weight.T).transpose(0, 1))[0]
    torch.testing.assert_close(ours.mean(dim=0), theirs.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), atol=0.05, rtol=0)


def test_all_zeros_give_the_same_features_at_any_length() -> None:
    """There are no positions and the projection has no bias, so muted sequences are alike."""
    features = encoder()({"values": torch.zeros(3, 5, 6, dtype=torch.float64), "lengths": LENGTHS})
    torch.testing.assert_close(features[1:], features[:1].expand(2, -1), atol=1e-12, rtol=1e-12)


def test_a_masked_batch_of_defaults_has_the_official_sizes() -> None:
    with torch.device("meta"):
        model = SequenceEncoder(371)
    assert model.embed_dim == 768 and len(model.layers) == 8
    layer = model.layers[0]
    assert (layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p) == (4, 2048, 0.1)
    assert not layer.norm_first and model.project.bias is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lengths": torch.tensor([5, 0, 3])}, "sequence 1 of the batch has length 0; .*1 to 5"),
        ({"lengths": torch.tensor([5, 1, -2])}, "sequence 2 of the batch has length -2"),
        ({"lengths": torch.tensor([6, 1, 3])}, "sequence 0 of the batch has length 6"),
        ({"lengths": torch.tensor([5, 1])}, r"`lengths` has shape \(2,\).*each of the 3 sequences"),
        ({"lengths": torch.tensor([5.0, 1.0, 3.0])}, r"torch\.float32; give one integer"),
        ({"lengths": torch.tensor([True, True, True])}, r"torch\.bool; give one integer"),
        ({"values": torch.zeros(3, 5, 7)}, r"shape \(3, 5, 7\); give padded sequences \(B, T, 6\)"),
        ({"values": torch.zeros(3, 6)}, r"shape \(3, 6\)"),
    ],
)
def test_unsuitable_sequences_are_rejected(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder()({**batch(), **changed})


@pytest.mark.parametrize("inputs", [torch.zeros(3, 5, 6), {"values": torch.zeros(3, 5, 6)}])
def test_sequences_come_with_their_lengths(inputs: Any) -> None:
    with pytest.raises(InputError, match=r"`values` \(B, T, D\) and `lengths` \(B,\); give both"):
        encoder()(inputs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"num_heads": 3}, "dim 8 is not a multiple of num_heads 3"), ({"output": "last"}, "first or mean")],
)
def test_unsuitable_settings_are_rejected(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceEncoder(6, **{"dim": 8, **changed})
