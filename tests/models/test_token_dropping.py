"""Token dropping: whole steps and rows are dropped, in training only, and tokens keep their positions."""

import pytest
import torch

from m2pt.errors import InputError
from m2pt.modalities.tokenizer import Tokens
from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.token_dropping import TokenDropping

GRID = (64, 8)
BODY = {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
AUDIO = {
    "input": {"frames": 40, "mel_bins": 20, "sample_rate": 16000, "mean": -4.0, "std": 4.0},
    "tokenizer": {"patch_size": 4, "stride": 4},
    "backbone": BODY,
    "num_classes": 3,
    "head": "linear",
}
"""10 time steps by 5 frequency rows."""


def numbered(batch: int, shared: bool) -> Tokens:
    """Tokens whose single value and position are their index in the grid."""
    numbers = torch.arange(float(GRID[0] * GRID[1])).reshape(1, -1, 1)
    values = numbers.repeat(batch, 1, 1)
    return Tokens(values, numbers if shared else values, source=values)


def classifier(pool: str = "avg", **changed: object) -> Classifier:
    return build_classifier("audio", **{**AUDIO, "pool": pool, **changed})


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("shares", "steps", "rows"), [((0.2, 0.2), 51, 6), ((0.5, 0.0), 32, 8), ((0.0, 0.7), 64, 2)]
)
def test_whole_steps_and_rows_are_dropped_for_each_sample(
    shared: bool, shares: tuple[float, float], steps: int, rows: int
) -> None:
    time, frequency = shares
    kept = TokenDropping(GRID, time=time, frequency=frequency)(numbered(5, shared))
    assert kept.values.shape == (5, steps * rows, 1)
    assert torch.equal(kept.positions, kept.values)
    seen = []
    for sample in kept.values[..., 0].int().tolist():
        seen_steps, seen_rows = {n // GRID[1] for n in sample}, {n % GRID[1] for n in sample}
        assert (len(seen_steps), len(seen_rows)) == (steps, rows)
        assert sorted(sample) == sorted(step * GRID[1] + row for step in seen_steps for row in seen_rows)
        seen.append(frozenset(sample))
    assert len(set(seen)) > 1


def test_every_step_and_row_is_dropped_equally_often() -> None:
    torch.manual_seed(0)
    kept = TokenDropping(GRID, time=0.2, frequency=0.2)(numbered(4000, shared=True))
    counts = torch.bincount(kept.values.flatten().int(), minlength=512).reshape(GRID) / 4000
    torch.testing.assert_close(counts.mean(1), torch.full((64,), 51 / 64 * 6 / 8), atol=0.04, rtol=0)
    torch.testing.assert_close(counts.mean(0), torch.full((8,), 51 / 64 * 6 / 8), atol=0.04, rtol=0)


def test_steps_and_rows_of_tokens_in_frequency_major_order() -> None:
    """As of AST: the other grid, the same shares."""
    dropping = TokenDropping((8, 64), time=0.2, frequency=0.7, frequency_major=True)
    kept = dropping(numbered(5, shared=True)).values[..., 0].int()
    for sample in kept.tolist():
        rows, steps = {number // 64 for number in sample}, {number % 64 for number in sample}
        assert (len(steps), len(rows), len(sample)) == (51, 2, 102)
    with pytest.raises(InputError, match="leave 51 of 64 time steps and 0 of 8 frequency rows"):
        TokenDropping((8, 64), time=0.2, frequency=0.9, frequency_major=True)


def test_nothing_is_dropped_in_evaluation_or_without_shares() -> None:
    tokens = numbered(2, shared=True)
    assert TokenDropping(GRID, time=0.2, frequency=0.2).eval()(tokens) is tokens
    assert TokenDropping(GRID, time=0.0, frequency=0.0)(tokens) is tokens


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_a_classifier_receives_the_class_token_and_the_kept_tokens(pool: str) -> None:
    dropping, plain = classifier(pool, token_drop={"time": 0.3, "frequency": 0.4}), classifier(pool)
    dropping.head.weight.data.normal_()
    plain.load_state_dict(dropping.state_dict())
    seen = []
    dropping.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 1, 40, 20)

    torch.manual_seed(7)
    logits = dropping.train()(x)
    assert seen[0].shape == (2, 1 + 7 * 3, 16)
    assert torch.equal(seen[0][:, 0], dropping.tokenizer.prefix()[0].expand(2, -1))
    tokens = plain.tokenizer(x)
    everything = (tokens.values + tokens.positions).detach()
    for sample, whole in zip(seen[0][:, 1:], everything, strict=True):
        distances = (sample.detach().unsqueeze(1) - whole).abs().amax(dim=2)
        assert (distances.min(dim=1).values < 1e-5).all(), "values and positions belong together"
        assert len(set(distances.argmin(dim=1).tolist())) == 21

    encoded = plain.norm(plain.blocks[1](plain.blocks[0](seen[0])))
    pooled = encoded[:, 0] if pool == "token" else encoded[:, 1:].mean(dim=1)
    torch.testing.assert_close(logits, plain.head(plain.fc_norm(pooled)))
    assert torch.equal(dropping.eval()(x), plain.eval()(x))


def test_dropping_follows_torchs_global_generator() -> None:
    model, x = classifier(token_drop={"time": 0.2, "frequency": 0.2}).train(), torch.randn(2, 1, 40, 20)
    model.head.weight.data.normal_()
    logits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        logits.append(model(x))
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])


def test_token_dropping_adds_nothing_to_the_weights() -> None:
    dropping = classifier(token_drop={"time": 0.2, "frequency": 0.2})
    assert list(dropping.state_dict()) == list(classifier().state_dict())


def test_shares_that_leave_no_token_are_rejected() -> None:
    with pytest.raises(InputError, match="leave 6 of 64 time steps and 0 of 8 frequency rows"):
        TokenDropping(GRID, time=0.9, frequency=0.9)


def test_token_drop_is_rejected_for_images() -> None:
    with pytest.raises(InputError, match="only audio has them"):
        build_classifier(
            "image",
            input={"image_size": 16},
            tokenizer={"patch_size": 4},
            backbone=BODY,
            num_classes=3,
            pool="avg",
            head="linear",
            token_drop={"time": 0.2, "frequency": 0.2},
        )
