"""Decoders of masked autoencoders: from encoded visible tokens to predictions for the masked ones."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm
from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.tokenizer import take
from m2pt.models.transformer import build_blocks

MLP_RATIO = 4.0
WINDOW = 4


class Decoder(nn.Module, ABC):
    """Base of all decoders: embedding, mask token, positions, prediction.

    Visible tokens come first, masked ones last, each with its own position, so their order need not be
    restored. Predictions are made for masked tokens only.
    """

    def __init__(
        self,
        embed: nn.Module,
        positions: nn.Module,
        blocks: nn.ModuleList,
        *,
        dim: int,
        target_dim: int,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.positions = positions
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.blocks = blocks
        self.norm = LayerNorm(dim, eps=norm_eps)
        self.pred = nn.Linear(dim, target_dim)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for part in (self.embed, self.blocks, self.pred):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def forward(self, encoded: Tensor, centers: Tensor | None, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the masked tokens.

        Args:
            encoded: (B, P + K, D), prefix tokens first.
            centers: `Tokens.centers`.
            visible: indices (B, K).
            masked: indices (B, M).

        Returns:
            (B, M, target_dim).
        """
        num_visible = visible.shape[1]
        x = self.embed(encoded)
        prefix, x = x[:, :-num_visible], x[:, -num_visible:]
        x = torch.cat([x, self.mask_token.expand(*masked.shape, -1)], dim=1)
        order = torch.cat([visible, masked], dim=1)
        x = self.decode(prefix, x, take(self.positions(centers), order), order)
        return self.pred(self.norm(x[:, -masked.shape[1] :]))

    @abstractmethod
    def decode(self, prefix: Tensor, x: Tensor, positions: Tensor, order: Tensor) -> Tensor:
        """Run the blocks.

        Args:
            prefix: (B, P, D).
            x: (B, L, D), visible then masked tokens, without positions.
            positions: (B, L, D).
            order: (B, L), the index of each token.

        Returns:
            (B, any + M, D), the masked tokens last.
        """


class GlobalDecoder(Decoder):
    """Transformer blocks over all tokens: MAE, VideoMAE, Point-MAE and mode 0 of AudioMAE.

    `positions_every_block` adds the positions before each block, as Point-MAE does.
    """

    def __init__(
        self,
        embed: nn.Module,
        positions: nn.Module,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        target_dim: int,
        norm_eps: float,
        positions_every_block: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        blocks = build_blocks(dim, depth, num_heads, MLP_RATIO, drop_path, norm_eps)
        super().__init__(embed, positions, blocks, dim=dim, target_dim=target_dim, norm_eps=norm_eps)
        self.positions_every_block = positions_every_block

    def decode(self, prefix: Tensor, x: Tensor, positions: Tensor, order: Tensor) -> Tensor:
        """Attend to all tokens; prefix tokens, if any, have zero positions."""
        if self.positions_every_block:
            for block in self.blocks:
                x = block(x + positions)
            return x
        x = torch.cat([prefix, x + positions], dim=1)
        for block in self.blocks:
            x = block(x)
        return x


class WindowedDecoder(Decoder):
    """Swin v2 blocks over windows of 4 by 4 tokens, AudioMAE's mode 1 (`models_mae.py`, `timm_patch`).

    Every second block shifts its windows by two tokens along time, but not along frequency. The class token
    is dropped. The attention temperature starts at 1.

    Raises:
        InputError: windows do not tile the grid (time, frequency).
    """

    def __init__(
        self,
        embed: nn.Module,
        positions: nn.Module,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        target_dim: int,
        norm_eps: float,
        grid: tuple[int, int],
        drop_path: float = 0.0,
    ) -> None:
        if grid[0] % WINDOW or grid[1] % WINDOW:
            raise InputError(
                f"decoder.kind windowed needs a token grid in multiples of {WINDOW}, not {grid}: "
                "change frames, mel_bins, patch_size or stride, or choose kind global"
            )
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        blocks = nn.ModuleList(
            windowed_block(dim, num_heads, grid, shifted=index % 2 == 1, drop_path=rate, norm_eps=norm_eps)
            for index, rate in enumerate(rates)
        )
        super().__init__(embed, positions, blocks, dim=dim, target_dim=target_dim, norm_eps=norm_eps)
        self.grid = grid

    def decode(self, prefix: Tensor, x: Tensor, positions: Tensor, order: Tensor) -> Tensor:
        """Arrange the tokens on the grid, attend within windows, and restore `order`."""
        x = take(x + positions, order.argsort(dim=1)).unflatten(1, self.grid)
        for block in self.blocks:
            x = block(x)
        return take(x.flatten(1, 2), order)


def windowed_block(
    dim: int, num_heads: int, grid: tuple[int, int], *, shifted: bool, drop_path: float, norm_eps: float
) -> SwinTransformerV2CrBlock:
    """Build a Swin v2 block on (B, time, frequency, D), with AudioMAE's settings where timm differs."""
    norm_layer: Any = partial(LayerNorm, eps=norm_eps)
    block = SwinTransformerV2CrBlock(
        dim, num_heads, grid, (WINDOW, WINDOW), init_values=None, drop_path=drop_path, norm_layer=norm_layer
    )
    nn.init.zeros_(block.attn.logit_scale)
    block.attn.meta_mlp.drop1.p = 0.1
    if shifted and grid[0] > WINDOW:
        block.shift_size = (WINDOW // 2, 0)
        mask = block.get_attn_mask(device=torch.device("cpu"), dtype=torch.float32)
        block.register_buffer("attn_mask", mask, persistent=False)
    return block
