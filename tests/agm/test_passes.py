"""The logits of all subsets against passes of the whole model, for inputs and models of every kind."""

import copy
import itertools

import pytest
import torch
from agm_oracle import Joint, batch
from sequence_joint import SequenceJoint, sequences
from torch import nn

from m2pt.agm import AdaptiveGradientModulation, BalancingError
from m2pt.agm.encoders import encoders_of
from m2pt.agm.modes import evaluation_mode
from m2pt.agm.muting import Muting
from m2pt.agm.passes import SubsetPasses
from m2pt.agm.responses import subsets_of
from m2pt.models.multimodal import build_multimodal

NAMES = ("audio", "visual", "text")


def passes_of(model: nn.Module, **settings) -> SubsetPasses:
    return SubsetPasses(NAMES, subsets_of(NAMES), Muting(), encoders_of(model, NAMES, None), **settings)


def expected_values(model: nn.Module, inputs: dict) -> torch.Tensor:
    """Return the muted passes of the whole model in evaluation mode, by size of the subset."""

    def muted(value):
        if isinstance(value, dict):
            return {**value, "values": torch.zeros_like(value["values"])}
        return torch.zeros_like(value)

    with evaluation_mode(model):
        return torch.stack(
            [
                model({name: value if name in chosen else muted(value) for name, value in inputs.items()})
                for size in (1, 2)
                for chosen in itertools.combinations(NAMES, size)
            ]
        )


@pytest.mark.parametrize("counts", [False, True], ids=["mean", "sum"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_padded_sequences_keep_their_lengths_when_muted(dropout: float, counts: bool) -> None:
    """A muted sequence may depend on its length, so that every sample of it is encoded."""
    torch.manual_seed(0)
    model = SequenceJoint(NAMES, dropout=dropout, counts=counts).double()
    inputs, _ = sequences(NAMES)
    found = passes_of(model)(model, inputs, 5)
    assert model.rows == 3 * 5 * (3 if dropout else 2)
    torch.testing.assert_close(found[:-1], expected_values(model, inputs), rtol=1e-12, atol=1e-13)


def test_one_row_of_a_muted_sequence_is_enough_where_that_is_promised() -> None:
    torch.manual_seed(0)
    model = SequenceJoint(NAMES).double()
    inputs, target = sequences(NAMES)
    found = passes_of(model, constant_when_muted=NAMES)(model, inputs, 5)
    assert model.rows == 3 * (5 + 1)
    torch.testing.assert_close(found[:-1], expected_values(model, inputs), rtol=1e-12, atol=1e-13)
    counting = SequenceJoint(NAMES, counts=True).double()
    agm = AdaptiveGradientModulation(counting, NAMES, constant_when_muted=["text"])
    with pytest.raises(BalancingError, match="constant_when_muted must not depend on what muting keeps"):
        agm.loss(inputs, target)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_encoder_may_say_that_it_is_constant_when_muted(dropout: float) -> None:
    """One row of each muted sequence is encoded, and gradients are those of passes of the whole model."""
    torch.manual_seed(0)
    encoder = {"kind": "sequence", "dim": 8, "depth": 2, "num_heads": 2, "hidden_dim": 12, "dropout": dropout}
    settings = {"encoders": dict.fromkeys(NAMES, encoder), "fusion": {"kind": "concat"}}
    model = build_multimodal(settings, num_classes=3, shapes=dict.fromkeys(NAMES, (6, 4))).double()
    reference = copy.deepcopy(model)
    inputs, target = sequences(NAMES)
    found = passes_of(model)(model, inputs, 5)
    torch.testing.assert_close(found[:-1], expected_values(model, inputs), rtol=1e-12, atol=1e-13)
    doubled = {name: {**each, "values": 2 * each["values"]} for name, each in inputs.items()}
    rows: list[int] = []
    encode = model.encode

    def counted(modality: str, value: dict) -> torch.Tensor:
        rows.append(len(value["lengths"]))
        return encode(modality, value)

    fast = AdaptiveGradientModulation(model, alpha=0.8)
    whole = AdaptiveGradientModulation(reference, alpha=0.8, fast_path=False)
    for agm in (fast, whole):
        torch.manual_seed(0)
        agm.loss(doubled, target)  # the checks of the first batch, and a level for the second
        model.encode = counted  # type: ignore[method-assign]
        torch.manual_seed(1)
        agm.loss(inputs, target).backward()
    assert len({round(value.item(), 6) for value in fast.coefficients.values()}) > 1
    assert sum(rows) == 3 * (5 + 1 + (5 if dropout else 0))
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 1e-10 * theirs.grad.norm()


def test_the_promise_of_an_encoder_is_about_zeros_only() -> None:
    class Constant(SequenceJoint):
        def __init__(self) -> None:
            super().__init__(NAMES)
            for each in self.encoders.values():
                each.constant_when_muted = True

    model = Constant().double()
    inputs, _ = sequences(NAMES)
    passes_of(model)(model, inputs, 5)
    assert model.rows == 3 * (5 + 1)
    model.rows = 0
    mean = Muting.mean([inputs])
    SubsetPasses(NAMES, subsets_of(NAMES), mean, encoders_of(model, NAMES, None))(model, inputs, 5)
    assert model.rows == 3 * (5 + 5)


class PackedEncoder(nn.Module):
    """A recurrent encoder with dropout, which reads a tensor (B, WIDTH) as a sequence of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 5, 2, dropout=0.5, batch_first=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.lstm(values.unsqueeze(2))[0][:, -1]


def without_statistics(model: Joint) -> Joint:
    """Return a model whose encoders and fusion normalize by the batch in both modes."""
    for encoder in model.encoders.values():
        encoder[1] = nn.BatchNorm1d(7, track_running_stats=False)
    model.fusion = nn.Sequential(nn.BatchNorm1d(15, track_running_stats=False), nn.Linear(15, 4))
    return model.double()


def recurrent(model: Joint) -> Joint:
    """Return a model with a recurrent encoder."""
    model.encoders["text"] = PackedEncoder()
    return model.double()


@pytest.mark.parametrize("change", [without_statistics, recurrent])
def test_models_with_other_layers(change) -> None:
    torch.manual_seed(0)
    model = change(Joint(NAMES))
    inputs, _ = batch(NAMES)
    found = passes_of(model)(model, inputs, 6)
    torch.testing.assert_close(found[:-1], expected_values(model, inputs), rtol=1e-12, atol=1e-13)


def test_dropout_outside_the_encoders_counts_for_all_of_them() -> None:
    """An encoder is reused only if nothing that `encode` may call depends on the mode."""

    class Dropping(Joint):
        def __init__(self) -> None:
            super().__init__(NAMES)
            self.drop = nn.Dropout(0.5)

        def encode(self, modality, value):
            return self.drop(super().encode(modality, value))

    torch.manual_seed(0)
    model = Dropping().double()
    inputs, _ = batch(NAMES)
    found = passes_of(model)(model, inputs, 6)
    torch.testing.assert_close(found[:-1], expected_values(model, inputs), rtol=1e-12, atol=1e-13)


def test_encoders_that_are_not_known_are_run_twice_if_anything_depends_on_the_mode() -> None:
    torch.manual_seed(0)
    model = Joint(NAMES, batch_norm=True).double()
    reference = copy.deepcopy(model)
    inputs, _ = batch(NAMES)
    passes = SubsetPasses(NAMES, subsets_of(NAMES), Muting())
    found = passes(model, inputs, 6)
    torch.testing.assert_close(found[-1], reference(inputs), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found[:-1], expected_values(reference, inputs), rtol=1e-12, atol=1e-13)


def test_wrong_features() -> None:
    model = Joint(NAMES).double()
    inputs, _ = batch(NAMES)
    model.encode = lambda modality, value: (value,)  # type: ignore[method-assign]
    with pytest.raises(BalancingError, match=r"encode\('audio', ...\) must return a tensor, got tuple"):
        passes_of(model)(model, inputs, 6)
    model.encode = lambda modality, value: value[:2]  # type: ignore[method-assign]
    with pytest.raises(BalancingError, match="must return one row per sample, 7, got 2"):
        passes_of(model)(model, inputs, 6)


class Packed(Joint):
    """A recurrent encoder that wants its sequences sorted by length."""

    def __init__(self, modalities: tuple[str, ...]) -> None:
        super().__init__(modalities)
        self.encoders = nn.ModuleDict({name: nn.GRU(6, 5, batch_first=True) for name in modalities})

    def encode(self, modality, value):
        packed = nn.utils.rnn.pack_padded_sequence(value["values"], value["lengths"], batch_first=True)
        return self.encoders[modality](packed)[1][0]


def test_an_encoder_that_wants_sorted_sequences_is_named() -> None:
    names = ("audio", "visual")
    lengths = torch.tensor([4, 3, 1])
    inputs = {name: {"values": torch.randn(3, 4, 6), "lengths": lengths} for name in names}
    target = torch.tensor([0, 1, 2])
    with pytest.raises(
        BalancingError, match=r"set enforce_sorted=False in pack_padded_sequence, or fast_path"
    ):
        AdaptiveGradientModulation(Packed(names)).loss(inputs, target)
    AdaptiveGradientModulation(Packed(names), fast_path=False).loss(inputs, target).backward()
