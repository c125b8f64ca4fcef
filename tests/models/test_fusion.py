"""Fusions, compared with closed forms in numpy."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.models.fusion import (
    ConcatFusion,
    CrossAttentionFusion,
    FiLMFusion,
    GatedFusion,
    Maxout,
    MaxoutFusion,
    SumFusion,
)

PAIR = {"audio": 4, "visual": 6}
TRIPLE = {**PAIR, "text": 5}


def features(dims: Mapping[str, int], batch: int = 3) -> dict[str, Tensor]:
    return {name: torch.randn(batch, dim, dtype=torch.float64) for name, dim in dims.items()}


def linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def build(kind: type[nn.Module], dims: Mapping[str, int] = PAIR, **options: object) -> nn.Module:
    return kind(dims, 7, **options).double()


SMALL = {
    ConcatFusion: {},
    SumFusion: {},
    MaxoutFusion: {"hidden_dims": (10, 8)},
    GatedFusion: {"dim": 8},
    FiLMFusion: {},
    CrossAttentionFusion: {"dim": 8, "num_heads": 2},
}
ANY_NUMBER = [ConcatFusion, SumFusion, MaxoutFusion, CrossAttentionFusion]


@pytest.mark.parametrize("kind", SMALL)
def test_logits_do_not_depend_on_the_order_of_the_mapping_and_reach_every_modality(kind) -> None:
    fusion, given = build(kind, **SMALL[kind]), features(PAIR)
    fusion.eval()
    for value in given.values():
        value.requires_grad_()
    logits = fusion(given)
    assert logits.shape == (3, 7)
    assert torch.equal(fusion(dict(reversed(given.items()))), logits)
    logits[:, 0].sum().backward()
    assert all(value.grad.abs().min() > 0 for value in given.values())


@pytest.mark.parametrize("kind", ANY_NUMBER)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_number_of_modalities(kind, count) -> None:
    dims = {f"m{i}": 3 + i for i in range(count)}
    assert build(kind, dims, **SMALL[kind])(features(dims)).shape == (3, 7)


@pytest.mark.parametrize("kind", SMALL)
def test_heads_have_one_row_per_class(kind) -> None:
    fusion = build(kind, **SMALL[kind])
    heads = list(fusion.heads.values()) if kind is SumFusion else [fusion.head]
    assert all(isinstance(head, nn.Linear) and head.out_features == 7 for head in heads)
    assert hasattr(fusion, "head") != hasattr(fusion, "heads")


@pytest.mark.parametrize("kind", [ConcatFusion, SumFusion])
def test_late_fusion_is_additive(kind) -> None:
    """With constant features for muted modalities, Σ over subsets of (-1)^|S| f(S) is 0 (facts: run)."""
    fusion, given = build(kind), features(PAIR)
    muted = {name: torch.randn(1, dim, dtype=torch.float64).expand(3, -1) for name, dim in PAIR.items()}
    interaction = sum(
        (-1) ** (a + v)
        * fusion(
            {
                "audio": (given if a else muted)["audio"],
                "visual": (given if v else muted)["visual"],
            }
        )
        for a, v in itertools.product([0, 1], repeat=2)
    )
    torch.testing.assert_close(interaction, torch.zeros(3, 7, dtype=torch.float64), atol=1e-12, rtol=0)


def test_concatenation_and_sum_in_numpy() -> None:
    given = features(TRIPLE)
    arrays = {name: value.numpy() for name, value in given.items()}
    concat = build(ConcatFusion, TRIPLE)
    joined = np.concatenate([arrays[name] for name in TRIPLE], axis=1)
    np.testing.assert_allclose(concat(given).detach(), linear(concat.head, joined), atol=1e-12)
    summed = build(SumFusion, TRIPLE)
    expected = sum(linear(summed.heads[name], arrays[name]) for name in TRIPLE)
    np.testing.assert_allclose(summed(given).detach(), expected, atol=1e-12)


def test_a_maxout_unit_is_the_maximum_of_two_linear_functions() -> None:
    layer, x = Maxout(4, 5).double(), torch.randn(3, 4, dtype=torch.float64)
    pieces = linear(layer.linear, x.numpy()).reshape(3, 5, 2)
    np.testing.assert_allclose(layer(x).detach(), pieces.max(axis=2), atol=1e-12)


def test_maxout_fusion_in_numpy() -> None:
    fusion, given = build(MaxoutFusion, hidden_dims=(10, 8), dropout=0.0), features(PAIR, batch=6)
    x = np.concatenate([value.numpy() for value in given.values()], axis=1)

    def normalize(x: np.ndarray, eps: float) -> np.ndarray:
        return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)

    first, second = fusion.hidden[1].linear, fusion.hidden[4].linear
    x = linear(first, normalize(x, 1e-4)).reshape(6, 10, 2).max(axis=2)
    x = linear(second, normalize(x, 1e-5)).reshape(6, 8, 2).max(axis=2)
    np.testing.assert_allclose(fusion(given).detach(), linear(fusion.head, normalize(x, 1e-5)), atol=1e-10)


def test_maxout_fusion_has_the_official_sizes() -> None:
    with torch.device("meta"):
        fusion = MaxoutFusion({"audio": 512, "visual": 512}, 6)
    shapes = [tuple(layer.weight.shape) for layer in fusion.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(2 * 2048, 1024), (2 * 1024, 2048), (6, 1024)]
    assert [layer.p for layer in fusion.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize(("gate", "gated"), [("audio", "visual"), ("visual", "audio")])
def test_gated_fusion_in_numpy(gate: str, gated: str) -> None:
    fusion, given = build(GatedFusion, dim=8, gate=gate), features(PAIR)
    sigmoid = 1 / (1 + np.exp(-linear(fusion.project[gate], given[gate].numpy())))
    expected = linear(fusion.head, sigmoid * linear(fusion.project[gated], given[gated].numpy()))
    np.testing.assert_allclose(fusion(given).detach(), expected, atol=1e-12)


@pytest.mark.parametrize(("condition", "modulated"), [("audio", "visual"), ("visual", "audio")])
def test_film_in_numpy(condition: str, modulated: str) -> None:
    fusion, given = build(FiLMFusion, condition=condition), features(PAIR)
    scale, shift = np.split(linear(fusion.film, given[condition].numpy()), 2, axis=1)
    expected = linear(fusion.head, scale * given[modulated].numpy() + shift)
    np.testing.assert_allclose(fusion(given).detach(), expected, atol=1e-12)


def test_the_first_modality_gates_and_conditions_by_default() -> None:
    assert (GatedFusion(PAIR, 2).gate, GatedFusion(PAIR, 2).gated) == ("audio", "visual")
    assert (FiLMFusion(PAIR, 2).condition, FiLMFusion(PAIR, 2).modulated) == ("audio", "visual")


def test_cross_attention_equals_torchs_multihead_attention() -> None:
    fusion, given = build(CrossAttentionFusion, TRIPLE, dim=8, num_heads=2), features(TRIPLE)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    weights = {
        "in_proj_weight": fusion.qkv.weight,
        "in_proj_bias": fusion.qkv.bias,
        "out_proj.weight": fusion.mix.weight,
        "out_proj.bias": fusion.mix.bias,
    }
    theirs.load_state_dict(weights)
    tokens = torch.stack([fusion.project[name](given[name]) for name in TRIPLE], dim=1)
    attended, shares = theirs(tokens, tokens, tokens)
    expected = fusion.head(nn.functional.layer_norm(tokens + attended, (8,)).flatten(1))
    torch.testing.assert_close(fusion(given), expected, atol=1e-12, rtol=1e-12)
    assert shares.std() > 1e-3


def test_cross_attention_of_two_modalities_trains_its_queries() -> None:
    fusion = build(CrossAttentionFusion, dim=8, num_heads=2)
    fusion(features(PAIR))[:, 0].sum().backward()
    queries_and_keys = fusion.qkv.weight.grad[:16]
    assert queries_and_keys.norm() > 1e-4


@pytest.mark.parametrize(
    ("kind", "options"), [(ConcatFusion, {}), (SumFusion, {}), (GatedFusion, {}), (FiLMFusion, {})]
)
def test_fusions_without_batch_norm_and_dropout_are_the_same_in_evaluation(kind, options) -> None:
    fusion, given = build(kind, **options), features(PAIR)
    trained = fusion.train()(given)
    with torch.no_grad():
        assert torch.equal(fusion.eval()(given), trained)


@pytest.mark.parametrize(
    ("kind", "dims", "options", "message"),
    [
        (GatedFusion, TRIPLE, {}, "gated is for exactly two modalities, not for audio, visual, text; choose"),
        (FiLMFusion, {"audio": 4}, {}, "film is for exactly two modalities, not for audio; choose concat"),
        (GatedFusion, PAIR, {"gate": "text"}, "gated: gate 'text' is not a modality; choose audio or visual"),
        (FiLMFusion, PAIR, {"condition": "txt"}, "film: condition 'txt' is not a modality"),
        (CrossAttentionFusion, PAIR, {"dim": 9, "num_heads": 2}, "dim 9 is not a multiple of num_heads 2"),
    ],
)
def test_unsuitable_settings_are_rejected(kind, dims, options, message) -> None:
    with pytest.raises(InputError, match=message):
        kind(dims, 7, **options)
