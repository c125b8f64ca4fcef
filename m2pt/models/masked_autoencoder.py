"""Masked autoencoding: encode the visible tokens, reconstruct the masked ones."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.tokenizer import take
from m2pt.models.decoders import Decoder, GlobalDecoder, WindowedDecoder
from m2pt.models.settings import DecoderSettings
from m2pt.models.transformer import Encoder, build_encoder


class MaskedAutoencoder(nn.Module):
    """MAE, VideoMAE, AudioMAE or Point-MAE, depending on the encoder's tokenizer and the decoder.

    Masks are drawn from torch's global generator. Target and prediction are computed for masked tokens only,
    which gives the same loss as computing them for all.
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
        predicted = self.decoder(encoded, tokens.centers, visible, masked)
        return tokenizer.reconstruction_loss(predicted, tokenizer.target(tokens.source, masked))

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, other than vectors."""
        return set() if self.encoder.tokenizer.decays_mask_token else {"decoder.mask_token"}


def build_decoder(modality: str, encoder: Encoder, settings: DecoderSettings, drop_path: float) -> Decoder:
    """Build the decoder of the modality's method; see `build_masked_autoencoder`."""
    tokenizer, dim, kind = encoder.tokenizer, settings.dim, settings.kind
    embed: nn.Module
    if tokenizer.decoder_embedding == "none":
        if dim != encoder.embed_dim:
            raise InputError(
                f"decoder.dim {dim} differs from backbone.dim {encoder.embed_dim}: Point-MAE's decoder "
                "has the encoder's width; set them equal"
            )
        embed = nn.Identity()
    else:
        embed = nn.Linear(encoder.embed_dim, dim, bias=tokenizer.decoder_embedding == "linear")
    shape: dict[str, Any] = {
        "dim": dim,
        "depth": settings.depth,
        "num_heads": settings.num_heads,
        "target_dim": tokenizer.target_dim,
        "norm_eps": encoder.norm_eps,
    }
    positions = tokenizer.decoder_positions(dim)
    if kind not in tokenizer.decoder_kinds:
        known = " or ".join(tokenizer.decoder_kinds)
        raise InputError(f"decoder.kind {kind!r} is unknown for {modality}: choose {known}")
    if kind == "global":
        every_block = tokenizer.positions_every_block
        return GlobalDecoder(
            embed, positions, **shape, positions_every_block=every_block, drop_path=drop_path
        )
    grid: Any = tokenizer.grid
    return WindowedDecoder(embed, positions, **shape, grid=grid, drop_path=drop_path)


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
    """Build a masked autoencoder.

    Args:
        modality: a modality whose tokenizer defines a target; see `m2pt.catalog.MODALITIES`.
        input: as for `build_encoder`.
        tokenizer: as for `build_encoder`.
        backbone: as for `build_encoder`.
        decoder: fields of `DecoderSettings`; AudioMAE's released weights have kind "windowed".
        mask_ratio: 0.75 in MAE, 0.9 in VideoMAE, 0.8 in AudioMAE, 0.6 in Point-MAE.
        drop_path: stochastic depth rate of the last block of encoder and decoder; 0.1 in Point-MAE, else 0.

    Raises:
        InputError: unknown names or inconsistent settings.
    """
    encoder = build_encoder(
        modality, input=input, tokenizer=tokenizer, backbone=backbone, drop_path=drop_path
    )
    if encoder.tokenizer.standardized_dim == 1:
        raise InputError(
            f"modality {modality}: a token has a single number, which cannot be standardized to a target of "
            "the pretraining: choose a larger patch_size"
        )
    built_decoder = build_decoder(modality, encoder, DecoderSettings(**decoder), drop_path)
    return MaskedAutoencoder(encoder, built_decoder, mask_ratio=mask_ratio)
