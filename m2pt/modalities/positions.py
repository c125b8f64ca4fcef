"""Fixed tables of position embeddings."""

import torch
from torch import Tensor, nn

from m2pt.errors import InputError

TEMPERATURE = 10000.0


def sincos_2d(dim: int, grid: tuple[int, int]) -> Tensor:
    """Return the sine-cosine table of a row-major grid of (rows, columns); MAE, `util/pos_embed.py`.

    The first half of the channels encodes the column, the second half the row; each half holds all sines,
    then all cosines.

    Returns:
        (rows * columns, dim).

    Raises:
        InputError: `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise InputError(
            f"backbone or decoder dim {dim} must be a multiple of 4 for 2-D sine-cosine positions"
        )
    rows, columns = grid
    frequency = TEMPERATURE ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float64).repeat(rows)
    angles = [torch.outer(position, frequency) for position in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()


def sinusoid_1d(dim: int, length: int) -> Tensor:
    """Return the sinusoid table of a sequence; VideoMAE, `modeling_finetune.py`.

    Even channels are sines, odd ones cosines.

    Returns:
        (length, dim).
    """
    channel = torch.arange(dim)
    frequency = TEMPERATURE ** -(2 * (channel // 2).double() / dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


class PositionTable(nn.Module):
    """A fixed table as a module, so that a decoder can have a table or a network."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table.unsqueeze(0), persistent=False)

    def forward(self, centers: Tensor | None) -> Tensor:
        """Return the table, (1, L, D), whatever the input."""
        return self.table
