"""States with the keys of published checkpoints, and encoders of ours that they fit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from m2pt.models.exchange import load_exchange
from m2pt.models.transformer import build_encoder

DEPTH, DIM = 2, 24
BACKBONE = {"dim": DIM, "depth": DEPTH, "num_heads": 2, "mlp_ratio": 4.0}
BLOCK = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")

State = dict[str, Tensor]


def blocks(dim: int = DIM, depth: int = DEPTH, prefix: str = "blocks", *, qkv_bias: bool = True) -> State:
    """Random blocks with timm's keys below `prefix`."""
    shapes = {"norm1": (dim,), "norm2": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    shapes |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    state = {}
    for number in range(depth):
        for name in BLOCK:
            state[f"{prefix}.{number}.{name}.weight"] = torch.randn(shapes[name])
            if qkv_bias or name != "attn.qkv":
                state[f"{prefix}.{number}.{name}.bias"] = torch.randn(shapes[name][:1])
    return state


def layer(path: str, *shape: int) -> State:
    return {f"{path}.weight": torch.randn(shape), f"{path}.bias": torch.randn(shape[:1])}


def mae() -> State:
    """MAE, `mae_pretrain_vit_base.pth`."""
    table = {"cls_token": torch.randn(1, 1, DIM), "pos_embed": torch.randn(1, 17, DIM)}
    return {**table, **layer("patch_embed.proj", DIM, 3, 8, 8), **blocks(), **layer("norm", DIM)}


def mae_decoder() -> State:
    """What `main_pretrain.py` of MAE stores beside the encoder."""
    tables = {"mask_token": torch.randn(1, 1, 8), "decoder_pos_embed": torch.randn(1, 17, 8)}
    layers = {**layer("decoder_embed", 8, DIM), **layer("decoder_norm", 8), **layer("decoder_pred", 192, 8)}
    return {**tables, **layers, **blocks(8, 1, "decoder_blocks")}


def audiomae_decoder() -> State:
    """The windowed decoder of AudioMAE, whose blocks have a temperature and a network of positions."""
    extra = {"decoder_blocks.0.attn.tau": torch.ones(1, 2, 1, 1)}
    return {**mae_decoder(), **extra, **layer("decoder_blocks.0.attn.meta_mlp.fc1", 384, 2)}


def finetuned() -> State:
    """MAE, `mae_finetuned_vit_base.pth`: averaged tokens, hence `fc_norm` instead of `norm`."""
    state = {key: value for key, value in mae().items() if not key.startswith("norm.")}
    return {**state, **layer("fc_norm", DIM), **layer("head", 5, DIM)}


def with_query_and_value_bias(prefix: str) -> State:
    """VideoMAE's blocks, which have no bias of keys."""
    state = blocks(prefix=prefix, qkv_bias=False)
    for number in range(DEPTH):
        for name in ("q_bias", "v_bias"):
            state[f"{prefix}.{number}.attn.{name}"] = torch.randn(DIM)
    return state


def videomae() -> State:
    """VideoMAE, `checkpoint.pth` of the pretraining."""
    encoder = {**layer("encoder.patch_embed.proj", DIM, 3, 2, 8, 8), **layer("encoder.norm", DIM)}
    decoder = {**with_query_and_value_bias("decoder.blocks"), **layer("decoder.head", 384, DIM)}
    others = {"encoder_to_decoder.weight": torch.randn(8, DIM), "mask_token": torch.randn(1, 1, 8)}
    return {**encoder, **with_query_and_value_bias("encoder.blocks"), **decoder, **others}


def pointmae() -> State:
    """Point-MAE, `pretrain.pth`, below `base_model`."""
    tokens = {
        **{
            f"first_conv.0.{key}": value
            for key, value in {"weight": torch.randn(4, 3, 1), "bias": torch.randn(4)}.items()
        },
        **layer("first_conv.1", 4),
        "first_conv.1.running_mean": torch.randn(4),
        "first_conv.1.running_var": torch.rand(4),
        "first_conv.1.num_batches_tracked": torch.tensor(7),
        **layer("first_conv.3", 8, 4, 1),
        **layer("second_conv.0", 16, 16, 1),
        **layer("second_conv.1", 16),
        "second_conv.1.running_mean": torch.randn(16),
        "second_conv.1.running_var": torch.rand(16),
        "second_conv.1.num_batches_tracked": torch.tensor(7),
        **layer("second_conv.3", DIM, 16, 1),
    }
    encoder = {f"MAE_encoder.encoder.{key}": value for key, value in tokens.items()}
    places = {**layer("MAE_encoder.pos_embed.0", 128, 3), **layer("MAE_encoder.pos_embed.2", DIM, 128)}
    body = {**blocks(prefix="MAE_encoder.blocks.blocks", qkv_bias=False), **layer("MAE_encoder.norm", DIM)}
    decoder = {**blocks(prefix="MAE_decoder.blocks", qkv_bias=False), **layer("increase_dim.0", 96, DIM, 1)}
    others = {"mask_token": torch.randn(1, 1, DIM), **layer("decoder_pos_embed.0", 128, 3)}
    return {**encoder, **places, **body, **decoder, **others}


def finetuned_pointmae() -> State:
    """Point-MAE, finetuned for classification: the encoder's keys without `MAE_encoder.`, a head, a token."""
    kept = {
        key.removeprefix("MAE_encoder."): value for key, value in pointmae().items() if "MAE_encoder" in key
    }
    head = {**layer("cls_head_finetune.0", 8, 2 * DIM), "cls_token": torch.randn(1, 1, DIM)}
    return {**kept, **head, "cls_pos": torch.randn(1, 1, DIM)}


def renamed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def image_encoder(
    state: State,
    parts: tuple[str, ...] = ("tokenizer", "blocks", "norm"),
    source: str = "file",
    norm_eps: float | None = None,
    **tokenizer: bool,
) -> nn.Module:
    encoder = build_encoder(
        "image",
        input={"image_size": 32},
        tokenizer={"patch_size": 8, **tokenizer},
        backbone=BACKBONE | {"norm_eps": norm_eps},
    )
    load_exchange(encoder, state, parts=parts, source=source)
    return encoder.eval()


def audio_encoder(state: State, norm_eps: float | None = None) -> nn.Module:
    """AST, for 40 frames of 24 bins."""
    encoder = build_encoder(
        "audio",
        input={"frames": 40, "mel_bins": 24},
        tokenizer={"patch_size": 8, "stride": 6, "ast": True},
        backbone=BACKBONE | {"norm_eps": norm_eps},
    )
    load_exchange(encoder, state, parts=("tokenizer", "blocks", "norm"))
    return encoder.eval()


def video_encoder(state: State, norm_eps: float | None = None) -> nn.Module:
    encoder = build_encoder(
        "video",
        input={"frames": 4, "image_size": 16},
        tokenizer={"patch_size": 8, "tubelet_size": 2},
        backbone=BACKBONE | {"norm_eps": norm_eps},
    )
    load_exchange(encoder, state, parts=("tokenizer", "blocks"))
    return encoder.eval()
