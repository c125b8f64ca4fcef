"""Attention over a grid of tokens as in ViTDet's backbone: within windows, with relative positions."""

from collections.abc import Collection
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.models.exchange import RELATIVE
from m2pt.models.transformer import Encoder


class GridAttention(nn.Module):
    """Attention of tokens in row-major order, without prefix tokens; `qkv` and `proj` are those of `plain`.

    Windows are padded with zeros at the right and the bottom, which take part in the attention. With relative
    positions q·(R_row + R_column) is added to the logits, with q before it is scaled. Source: Li et al. 2022,
    detectron2 `modeling/backbone/vit.py` and `utils.py`.

    Args:
        plain: the attention to replace.
        grid: rows and columns of tokens.
        window: side of the windows in tokens; 0 attends to all.
        relative_positions: whether to add them.
    """

    def __init__(
        self, plain: Attention, *, grid: tuple[int, int], window: int, relative_positions: bool
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = plain.num_heads, plain.head_dim
        self.grid, self.window = grid, window
        self.qkv, self.proj = plain.qkv, plain.proj
        self.rel_pos_h: nn.Parameter | None
        self.rel_pos_w: nn.Parameter | None
        sizes = (window, window) if window else grid
        for name, size in zip(RELATIVE, sizes, strict=True):
            table = nn.Parameter(torch.zeros(2 * size - 1, self.head_dim)) if relative_positions else None
            self.register_parameter(name, table)

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Map (B, rows * columns, D) to the same shape."""
        x = x.unflatten(1, self.grid)
        if not self.window:
            return self._attend(x).flatten(1, 2)
        windows = into_windows(x, self.window)
        return from_windows(self._attend(windows), self.window, self.grid).flatten(1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Attend within each grid (B, h, w, D)."""
        height, width = x.shape[1:3]
        qkv = self.qkv(x.flatten(1, 2)).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = None
        if self.rel_pos_h is not None and self.rel_pos_w is not None:
            on_grid = q.unflatten(2, (height, width))
            rows = torch.einsum("bnhwd,hkd->bnhwk", on_grid, _differences(self.rel_pos_h, height))
            columns = torch.einsum("bnhwd,wkd->bnhwk", on_grid, _differences(self.rel_pos_w, width))
            bias = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(4).flatten(2, 3)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).flatten(2)).unflatten(1, (height, width))


def _differences(table: Tensor, size: int) -> Tensor:
    """Return (size, size, d): the row of the table for each pair of places, query first."""
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + size - 1]


def into_windows(x: Tensor, side: int) -> Tensor:
    """Cut (B, h, w, D) into (B * windows, side, side, D), padded with zeros."""
    height, width = x.shape[1:3]
    x = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(0, 2)


def from_windows(windows: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Undo `into_windows` of a grid of (h, w) tokens."""
    down, across = (-(-length // side) for length in grid)
    x = windows.unflatten(0, (-1, down, across)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return x[:, : grid[0], : grid[1]]


def attend_on_grid(
    encoder: Encoder,
    grid: tuple[int, int],
    *,
    window: int,
    global_blocks: Collection[int],
    relative_positions: bool,
) -> None:
    """Give the blocks of an image encoder attention on the grid, in place, and drop the class token.

    Args:
        encoder: the encoder.
        grid: rows and columns of tokens.
        window: side of the windows in tokens.
        global_blocks: 0-based blocks that attend to all tokens.
        relative_positions: whether they have relative positions.

    Raises:
        InputError: the encoder has no such block.
    """
    depth = len(encoder.blocks)
    if unknown := [number for number in global_blocks if not 0 <= number < depth]:
        raise InputError(f"model.global_blocks: there is no block {unknown[0]}; they are 0 to {depth - 1}.")
    encoder.drop_prefix()
    for number, block in enumerate(encoder.blocks):
        own = 0 if number in global_blocks else window
        plain: Any = block.attn
        block.attn = GridAttention(plain, grid=grid, window=own, relative_positions=relative_positions)
