"""Masked autoencoders compared with their textbook form: tokens decoded in place, loss by mask."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import nn

from m2pt.errors import InputError
from m2pt.modalities.positions import sincos_2d, sinusoid_1d
from m2pt.models.decoders import WindowedDecoder, windowed_block
from m2pt.models.masked_autoencoder import MaskedAutoencoder, build_masked_autoencoder
from m2pt.tasks.pretraining import reconstruction_loss
from m2pt.training.optimizer import parameter_groups
from m2pt.training.settings import TrainingSettings

SETTINGS = {
    "image": ({"image_size": 16}, {"patch_size": 4}, 0.75),
    "video": ({"frames": 4, "stride": 2, "image_size": 12}, {"patch_size": 4, "tubelet_size": 2}, 0.7),
    "audio": ({"frames": 64, "mel_bins": 32}, {"patch_size": 4, "stride": 4}, 0.8),
    "pointcloud": ({"points": 48}, {"groups": 10, "group_size": 6, "hidden": 8}, 0.6),
}
SHAPES = {"image": (3, 16, 16), "video": (3, 4, 12, 12), "audio": (1, 64, 32), "pointcloud": (48, 3)}


def make(modality: str, *, kind: str = "global", dim: int = 16, **changed: object) -> MaskedAutoencoder:
    data, tokenizer, ratio = SETTINGS[modality]
    settings = {
        "input": data,
        "tokenizer": tokenizer,
        "backbone": {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0},
        "decoder": {"dim": dim, "depth": 2, "num_heads": 2, "kind": kind},
        "mask_ratio": ratio,
        **changed,
    }
    return build_masked_autoencoder(modality, **settings)


def batch(modality: str, size: int = 3) -> torch.Tensor:
    return torch.randn(size, *SHAPES[modality], generator=torch.Generator().manual_seed(1))


def in_double(model: MaskedAutoencoder) -> MaskedAutoencoder:
    """Randomize all weights, for a sharp comparison."""
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def loss_and_mask(model: MaskedAutoencoder, x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The model's loss, and the mask that the same seed draws as booleans (B, L)."""
    torch.manual_seed(3)
    loss = model(x).item()
    torch.manual_seed(3)
    _, masked = model.encoder.tokenizer.draw_mask(len(x), model.mask_ratio, x.device)
    mask = torch.zeros(len(x), model.encoder.tokenizer.num_tokens, dtype=torch.bool)
    return loss, mask.scatter(1, masked, True)


def decoded_in_place(
    model: MaskedAutoencoder, visible: torch.Tensor, mask: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """Predictions (L, target) for one sample: encode visible tokens, insert mask tokens, decode all."""
    encoder, decoder = model.encoder, model.decoder
    prefix = encoder.tokenizer.prefix()
    x = visible if prefix is None else torch.cat([prefix[0], visible])
    x = x.unsqueeze(0)
    for block in encoder.blocks:
        x = block(x)
    x = decoder.embed(encoder.norm(x))[0]
    start = 0 if prefix is None else 1
    places = decoder.mask_token[0].repeat(len(mask), 1)
    places[~mask] = x[start:]
    x = torch.cat([x[:start], places + table]).unsqueeze(0)
    for block in decoder.blocks:
        x = block(x)
    return decoder.pred(decoder.norm(x))[0, start:]


def masked_mean(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    per_token = ((predicted - target) ** 2).mean(-1)
    return float((per_token * mask).sum() / mask.sum())


@pytest.mark.parametrize(("modality", "grid"), [("image", (4, 4)), ("audio", (16, 8))])
def test_loss_of_patches_equals_maes(modality, grid):
    model, x = in_double(make(modality, dim=12)), batch(modality).double()
    loss, mask = loss_and_mask(model, x)
    rows, columns = grid
    channels = x.shape[1]
    patches = (
        x.reshape(3, channels, rows, 4, columns, 4).permute(0, 2, 4, 3, 5, 1).reshape(3, rows * columns, -1)
    )
    patches = patches.numpy()
    spread = patches.std(-1, ddof=1, keepdims=True)
    target = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(spread**2 + 1e-6)
    tokens = model.encoder.tokenizer.patch_embed(x) + sincos_2d(16, grid).double()
    with torch.no_grad():
        predicted = [
            decoded_in_place(model, tokens[i][~mask[i]], mask[i], sincos_2d(12, grid).double())
            for i in range(3)
        ]
    assert loss == pytest.approx(masked_mean(torch.stack(predicted).numpy(), target, mask.numpy()), rel=1e-6)


def test_loss_of_cubes_equals_videomaes():
    model, x = in_double(make("video", dim=12)), batch("video").double()
    loss, mask = loss_and_mask(model, x)
    cubes = x.reshape(3, 3, 2, 2, 3, 4, 3, 4).permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(3, 18, 32, 3).numpy()
    pixels = cubes * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])
    target = (pixels - pixels.mean(2, keepdims=True)) / (pixels.std(2, ddof=1, keepdims=True) + 1e-6)
    tokens = model.encoder.tokenizer.patch_embed(x) + sinusoid_1d(16, 18).double()
    with torch.no_grad():
        predicted = [
            decoded_in_place(model, tokens[i][~mask[i]], mask[i], sinusoid_1d(12, 18).double())
            for i in range(3)
        ]
    expected = masked_mean(torch.stack(predicted).numpy(), target.reshape(3, 18, 96), mask.numpy())
    assert loss == pytest.approx(expected, rel=1e-5)


def test_loss_of_groups_equals_point_maes():
    model, x = in_double(make("pointcloud")), batch("pointcloud").double()
    loss, mask = loss_and_mask(model, x)
    encoder, decoder = model.encoder, model.decoder
    groups, centers = encoder.tokenizer.group(x)
    tokens = encoder.tokenizer.patch_embed(groups)
    forth, back = [], []
    for sample in range(3):
        seen, hidden = ~mask[sample], mask[sample]
        state = tokens[sample][seen].unsqueeze(0)
        for block in encoder.blocks:
            state = block(state + encoder.tokenizer.pos_embed(centers[sample][seen]))
        places = decoder.mask_token[0].repeat(10, 1)
        places[seen] = encoder.norm(state)[0]
        state = places.unsqueeze(0)
        for block in decoder.blocks:
            state = block(state + decoder.positions(centers[sample]))
        predicted = decoder.pred(decoder.norm(state))[0, hidden].view(-1, 6, 3).detach().numpy()
        for ours, theirs in zip(predicted, groups[sample][hidden].numpy(), strict=True):
            forth.append(KDTree(theirs).query(ours)[0] ** 2)
            back.append(KDTree(ours).query(theirs)[0] ** 2)
    assert loss == pytest.approx(np.mean(forth) + np.mean(back), rel=1e-6)


@pytest.mark.parametrize(
    ("modality", "kind"),
    [("image", "global"), ("video", "global"), ("audio", "global"), ("audio", "windowed")],
)
def test_masked_input_never_reaches_the_prediction(modality, kind):
    model, x = make(modality, kind=kind).eval(), batch(modality)
    tokenizer = model.encoder.tokenizer
    visible, masked = tokenizer.draw_mask(3, model.mask_ratio, x.device)
    tokenizer.draw_mask = lambda *_: (visible, masked)
    predictions = []
    model.decoder.register_forward_hook(lambda module, inputs, output: predictions.append(output))
    model(x)
    embed = tokenizer.patch_embed.forward
    places = torch.zeros(3, tokenizer.num_tokens, 1).scatter(1, masked.unsqueeze(-1), 1.0)
    tokenizer.patch_embed.forward = lambda pixels: embed(pixels) + 5 * places
    model(x)
    assert torch.equal(*predictions)


def reach(block: nn.Module, time: int, frequency: int) -> set[tuple[int, int]]:
    """Tokens of an 8 by 8 map on which the output of one token depends."""
    x = torch.randn(1, 8, 8, 16, requires_grad=True)
    # weighted, since the plain sum over a layer norm's outputs is constant
    (block(x)[0, time, frequency] * torch.randn(16)).sum().backward()
    # tokens of another window are masked by -100 before the softmax, which leaves them exp(-100)
    return {tuple(place) for place in (x.grad[0].abs().sum(-1) > 1e-9).nonzero().tolist()}


@pytest.mark.parametrize(
    ("shifted", "place", "times", "frequencies"),
    [
        (False, (1, 6), range(0, 4), range(4, 8)),
        (False, (4, 0), range(4, 8), range(0, 4)),
        (True, (4, 5), range(2, 6), range(4, 8)),
        (True, (0, 5), range(0, 2), range(4, 8)),
        (True, (7, 1), range(6, 8), range(0, 4)),
    ],
)
def test_windows_are_four_by_four_and_shift_along_time_only(shifted, place, times, frequencies):
    torch.manual_seed(0)
    block = windowed_block(16, 2, (8, 8), shifted=shifted, drop_path=0.0, norm_eps=1e-6).eval()
    assert reach(block, *place) == {(time, frequency) for time in times for frequency in frequencies}


def test_windowed_decoder_matches_audiomaes():
    model = make("audio", kind="windowed")
    assert isinstance(model.decoder, WindowedDecoder)
    for index, block in enumerate(model.decoder.blocks):
        assert block.shift_size == ((0, 0), (2, 0))[index % 2]
        assert block.attn.meta_mlp.drop1.p == 0.1
        assert block.attn.logit_scale.exp().unique().tolist() == [1.0]
        assert block.norm1.weight.unique().tolist() == [1.0]


def test_windowed_decoder_restores_the_order_of_tokens():
    decoder = make("audio", kind="windowed").decoder.eval()
    torch.manual_seed(0)
    encoded, order = torch.randn(2, 1 + 128, 16), torch.rand(2, 128).argsort(1)
    x = decoder.mask_token.expand(2, 128, -1).clone()
    for sample in range(2):
        x[sample, order[sample, :28]] = decoder.embed(encoded[sample, 1:29])
    x = (x + sincos_2d(16, (16, 8))).view(2, 16, 8, 16)
    for block in decoder.blocks:
        x = block(x)
    expected = decoder.pred(decoder.norm(x)).view(2, 128, -1)
    predicted = decoder(encoded[:, :29], None, order[:, :28], order[:, 28:])
    for sample in range(2):
        torch.testing.assert_close(predicted[sample], expected[sample, order[sample, 28:]])


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        ("image", "global"),
        ("video", "global"),
        ("audio", "global"),
        ("audio", "windowed"),
        ("pointcloud", "global"),
    ],
)
def test_loss_falls_when_one_batch_is_repeated(modality, kind):
    torch.manual_seed(0)
    model = make(modality, kind=kind)
    pattern = batch(modality, 1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(40):
        loss, _ = reconstruction_loss(model, (pattern.expand(4, *pattern.shape[1:]), torch.zeros(4)))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_masks_follow_torchs_global_generator():
    model, x = make("image").eval(), batch("image")
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(model(x).item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("modality", SETTINGS)
def test_autocast_changes_the_loss_by_rounding_only(modality):
    model, x = make(modality).eval(), batch(modality)
    torch.manual_seed(0)
    exact = model(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)


def test_every_parameter_but_fixed_positions_gets_a_gradient():
    for modality in SETTINGS:
        model = make(modality)
        model(batch(modality)).backward()
        without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
        fixed = {"encoder.tokenizer.pos_embed"} if modality in ("image", "audio") else set()
        assert without == fixed


def test_videomaes_decoder_embedding_has_no_bias_and_point_mae_has_none():
    assert make("video").decoder.embed.bias is None
    assert make("image").decoder.embed.bias is not None
    assert isinstance(make("pointcloud").decoder.embed, nn.Identity)


@pytest.mark.parametrize(
    ("modality", "decays"), [("image", True), ("audio", True), ("video", False), ("pointcloud", False)]
)
def test_weight_decay_of_the_mask_token_is_the_method_s(modality, decays):
    model = make(modality)
    groups = parameter_groups(model, TrainingSettings(steps=2, batch_size=1, lr=0.1, weight_decay=0.05))
    (found,) = (
        group["weight_decay"]
        for group in groups
        if any(parameter is model.decoder.mask_token for parameter in group["params"])
    )
    assert found == (0.05 if decays else 0.0)


def test_stochastic_depth_reaches_encoder_and_decoder():
    model = make("pointcloud", drop_path=0.1)
    for blocks in (model.encoder.blocks, model.decoder.blocks):
        assert blocks[-1].drop_path2.drop_prob == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("modality", "changed", "message"),
    [
        ("image", {"kind": "windowed"}, "windowed.*image.*global"),
        ("audio", {"kind": "local"}, "local.*audio.*global or windowed"),
        ("pointcloud", {"dim": 8}, "decoder.dim 8.*backbone.dim 16"),
        (
            "audio",
            {"kind": "windowed", "input": {"frames": 24, "mel_bins": 32}},
            r"multiples of 4, not \(6, 8\)",
        ),
    ],
)
def test_inconsistent_decoders_are_rejected(modality, changed, message):
    with pytest.raises(InputError, match=message):
        make(modality, **changed)


def test_decoder_dim_must_be_a_multiple_of_its_heads():
    with pytest.raises(ValueError, match="dim 15 is not a multiple of num_heads"):
        make("audio", kind="windowed", dim=15)


def test_a_target_of_a_single_number_is_refused():
    settings = {"dim": 16, "depth": 1, "num_heads": 2}
    for modality, values, tokenizer in (
        ("audio", {"frames": 8, "mel_bins": 8}, {"patch_size": 1, "stride": 1}),
        ("video", {"frames": 2, "image_size": 4}, {"patch_size": 1, "tubelet_size": 1}),
    ):
        with pytest.raises(InputError, match=f"modality {modality}: a token has a single number"):
            build_masked_autoencoder(
                modality,
                input=values,
                tokenizer=tokenizer,
                backbone={"dim": 16, "depth": 1, "num_heads": 2},
                decoder=settings,
                mask_ratio=0.5,
            )


def test_windows_are_not_for_tokens_of_ast():
    with pytest.raises(InputError, match=r"decoder\.kind 'windowed' is unknown for audio: choose global"):
        build_masked_autoencoder(
            "audio",
            input={"frames": 128, "mel_bins": 128},
            tokenizer={"patch_size": 16, "stride": 16, "ast": True},
            backbone={"dim": 16, "depth": 1, "num_heads": 2},
            decoder={"dim": 16, "depth": 2, "num_heads": 2, "kind": "windowed"},
            mask_ratio=0.5,
        )
