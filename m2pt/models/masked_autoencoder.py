"""Masked autoencoding: encode the visible tokens, reconstruct what was masked."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.audio import AudioTokenizer
from m2pt.modalities.masking import take
from m2pt.models.decoders import Decoder, GlobalDecoder, WindowedDecoder
from m2pt.models.transformer import Encoder, build_encoder


class MaskedAutoencoder(nn.Module):
    """MAE, VideoMAE, AudioMAE or Point-MAE, as its encoder's tokenizer and its decoder define.

    Masks are drawn from torch's global generator. The target is made, and the decoder's head run, for masked
    tokens only, which gives the same loss as making them for all.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, *, mask_ratio: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.mask_ratio = mask_ratio
        encoder.tokenizer.fix_positions()

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction loss of a batch, a scalar."""
        tokenizer = self.encoder.tokenizer
        tokens = tokenizer(x)
        visible, masked = tokenizer.draw_mask(len(x), self.mask_ratio, x.device)
        encoded = self.encoder.encode(take(tokens.values, visible), take(tokens.positions, visible))
        predicted = self.decoder(encoded, tokens.centres, visible, masked)
        return tokenizer.reconstruction_loss(predicted, tokenizer.target(tokens.source, masked))


def build_decoder(
    modality: str, encoder: Encoder, *, dim: int, depth: int, num_heads: int, kind: str, drop_path: float
) -> Decoder:
    """Make the decoder that the modality's method has; see `build_masked_autoencoder`."""
    tokenizer = encoder.tokenizer
    embed: nn.Module
    if modality == "pointcloud":
        if dim != encoder.embed_dim:
            raise InputError(
                f"decoder.dim {dim} differs from backbone.dim {encoder.embed_dim}: Point-MAE's decoder "
                "continues at the encoder's width; set them equal"
            )
        embed = nn.Identity()
    else:
        embed = nn.Linear(encoder.embed_dim, dim, bias=modality != "video")
    shape = {"dim": dim, "depth": depth, "num_heads": num_heads, "target_dim": tokenizer.target_dim}
    positions = tokenizer.decoder_positions(dim)
    if kind == "global":
        every_block = tokenizer.positions_every_block
        return GlobalDecoder(
            embed, positions, **shape, positions_every_block=every_block, drop_path=drop_path
        )
    if kind == "windowed" and isinstance(tokenizer, AudioTokenizer):
        return WindowedDecoder(embed, positions, **shape, grid=tokenizer.grid, drop_path=drop_path)
    known = "global or windowed" if modality == "audio" else "global"
    raise InputError(f"decoder.kind {kind!r} is unknown for {modality}: choose {known}")


def build_masked_autoencoder(
    modality: str,
    *,
    input: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    backbone: Mapping[str, Any],
    decoder: Mapping[str, Any],
    mask_ratio: float,
    drop_path: float = 0.0,
) -> MaskedAutoencoder:
    """Make a masked autoencoder.

    Args:
        modality: image (MAE), video (VideoMAE), audio (AudioMAE) or pointcloud (Point-MAE).
        input, tokenizer, backbone: as for `build_encoder`.
        decoder: dim, depth, num_heads; for audio also kind, "windowed" (as AudioMAE's released weights) or
            "global" (the default).
        mask_ratio: .75 MAE, .9 VideoMAE, .8 AudioMAE, .6 Point-MAE.
        drop_path: rate of the last block of encoder and of decoder; Point-MAE has .1, the others 0.

    Raises:
        InputError: unknown names, or settings that do not fit each other.
    """
    encoder = build_encoder(
        modality, input=input, tokenizer=tokenizer, backbone=backbone, drop_path=drop_path
    )
    made = build_decoder(modality, encoder, drop_path=drop_path, **{"kind": "global", **decoder})
    return MaskedAutoencoder(encoder, made, mask_ratio=mask_ratio)
