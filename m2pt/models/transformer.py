"""The transformer that all modalities share, so that their weights can be exchanged."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from m2pt import catalog
from m2pt.errors import InputError
from m2pt.modalities.tokenizer import Tokenizer


def build_blocks(
    dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    drop_path: float,
    norm_eps: float = Tokenizer.norm_eps,
) -> nn.ModuleList:
    """Build timm's blocks with a qkv bias and a drop path rate that rises linearly from 0 to `drop_path`.

    Raises:
        InputError: `dim` is not a multiple of `num_heads`.
    """
    if dim % num_heads:
        raise InputError(f"dim {dim} is not a multiple of num_heads {num_heads}")
    rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
    norm_layer: Any = partial(LayerNorm, eps=norm_eps)
    return nn.ModuleList(
        Block(dim, num_heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=norm_layer)
        for rate in rates
    )


class Encoder(nn.Module):
    """Tokenizer, blocks, final LayerNorm.

    The blocks have the same weights for all modalities, qkv with bias; Point-MAE's, without, load with zeros.

    Args:
        tokenizer: tokenizer of the modality.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads of a block.
        mlp_ratio: hidden units of a block's MLP per unit of `dim`.
        norm_eps: epsilon of the LayerNorms; None: that of the modality's method.
        drop_path: stochastic depth rate of the last block.

    Raises:
        InputError: `dim` is not a multiple of `num_heads`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.grad_checkpointing = False
        self.num_prefix_tokens = tokenizer.num_prefix_tokens
        self.tokenizer = tokenizer
        self.norm_eps = tokenizer.norm_eps if norm_eps is None else norm_eps
        self.blocks = build_blocks(dim, depth, num_heads, mlp_ratio, drop_path, self.norm_eps)
        self.norm: nn.Module = LayerNorm(dim, eps=self.norm_eps)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                tokenizer.init_linear(module.weight)
                nn.init.zeros_(module.bias)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks again in the backward pass, in place of keeping their activations."""
        self.grad_checkpointing = enable

    def drop_prefix(self) -> None:
        """Compute without prefix tokens from now on; they remain in the state, frozen."""
        self.num_prefix_tokens = 0
        for name, parameter in self.tokenizer.named_parameters():
            if name in ("cls_token", "dist_token"):
                parameter.requires_grad_(False)

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """Parts (see `exchange`) to load from a pretrained or finetuned model, without heads."""
        return ("tokenizer", "blocks")

    def forward(self, x: Tensor) -> Tensor:
        """Return normalized tokens (B, P + L, D), prefix tokens first."""
        tokens = self.tokenizer(x)
        return self.encode(tokens.values, tokens.positions)

    def encode(self, values: Tensor, positions: Tensor) -> Tensor:
        """Encode any subset of tokens (B, K, D) with positions (1 or B, K, D): normalized (B, P + K, D)."""
        x = self._start(values, positions)
        for block in self.blocks:
            x = self._run(block, self._place(x, positions))
        return self.norm(x)

    def forward_taps(self, x: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Return the tokens (B, L, D) after each of the blocks `taps` (0-based), without prefix or norm."""
        tokens = self.tokenizer(x)
        return self.encode_taps(tokens.values, tokens.positions, taps)

    def encode_taps(self, values: Tensor, positions: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Encode tokens (B, L, D) with positions (1 or B, L, D); returns the same as `forward_taps`."""
        x, after = self._start(values, positions), []
        for block in self.blocks:
            x = self._run(block, self._place(x, positions))
            after.append(x[:, self.num_prefix_tokens :])
        return [after[tap] for tap in taps]

    def _start(self, values: Tensor, positions: Tensor) -> Tensor:
        x = values if self.tokenizer.positions_every_block else values + positions
        prefix = self.tokenizer.prefix() if self.num_prefix_tokens else None
        return x if prefix is None else torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)

    def _place(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + positions if self.tokenizer.positions_every_block else x

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the layer groups of `timm.optim`'s layer decay: tokenizer, each block, the rest."""
        return {"stem": r"^tokenizer", "blocks": r"^blocks\.(\d+)"}

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, as in timm's `VisionTransformer`."""
        return {"tokenizer.cls_token", "tokenizer.dist_token", "tokenizer.pos_embed"}


def tokenizer_class(modality: str) -> type[Tokenizer]:
    """Import and return the tokenizer of a modality of the catalog.

    Raises:
        InputError: there is no such modality, or its tokenizer cannot be imported.
    """
    tokenizer: type[Tokenizer] = catalog.load(
        catalog.modality(modality).tokenizer, f"modality {modality}: tokenizer"
    )
    return tokenizer


def build_tokenizer(
    modality: str, *, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]
) -> Tokenizer:
    """Build the tokenizer of a modality; see its `build` for the settings.

    Raises:
        InputError: the modality is unknown, or the settings are inconsistent.
    """
    return tokenizer_class(modality).build(dim, input, settings)


def build_encoder(
    modality: str,
    *,
    input: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    backbone: Mapping[str, Any],
    drop_path: float = 0.0,
) -> Encoder:
    """Build an encoder.

    Args:
        modality: a modality of the catalog; see `m2pt.catalog.MODALITIES`.
        input: input settings of the dataset (image_size, frames, mel_bins, points, length, ...).
        tokenizer: patch_size, and distillation_token (image), tubelet_size (video) or stride and ast (audio);
            groups and group_size (pointcloud); nothing (text).
        backbone: dim, depth, num_heads, mlp_ratio, and norm_eps if it is not that of the modality's method.
        drop_path: stochastic depth rate of the last block.

    Raises:
        InputError: the modality is unknown, or the settings are inconsistent.
    """
    tokens = build_tokenizer(modality, dim=backbone["dim"], input=input, settings=tokenizer)
    return Encoder(tokens, **backbone, drop_path=drop_path)
