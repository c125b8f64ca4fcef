"""AudioMAE's token dropping in finetuning: training sees a part of the time steps and frequency rows only."""

from collections.abc import Mapping

import torch
from torch import nn

from m2pt.errors import InputError
from m2pt.modalities.audio import AudioTokenizer
from m2pt.modalities.masking import take
from m2pt.modalities.tokenizer import Tokenizer, Tokens


class TokenDropping(nn.Module):
    """Leaves out whole steps and rows of the grid of tokens, drawn for each clip; in evaluation, nothing.

    Of n steps int(n * (1 - share)) stay, and likewise of the rows. Tokens keep their own positions; the class
    token is not among them. Draws from torch's global generator. Source: AudioMAE, `models_vit.py`.

    Args:
        grid: numbers of time steps and of frequency rows; tokens are in time-major order.
        time: share of the steps that is dropped.
        frequency: share of the rows that is dropped.

    Raises:
        InputError: nothing would be left.
    """

    def __init__(self, grid: tuple[int, int], *, time: float, frequency: float) -> None:
        super().__init__()
        self.grid = grid
        self.kept = (int(grid[0] * (1 - time)), int(grid[1] * (1 - frequency)))
        if not all(self.kept):
            raise InputError(
                f"token_drop time {time} and frequency {frequency} leave {self.kept[0]} of {grid[0]} time "
                f"steps and {self.kept[1]} of {grid[1]} frequency rows; choose smaller shares"
            )

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the tokens that stay, (B, K, D), with their positions."""
        if not self.training or self.kept == self.grid:
            return tokens
        steps, rows = (
            torch.rand(len(tokens.values), size, device=tokens.values.device).argsort(dim=1)[:, :kept]
            for size, kept in zip(self.grid, self.kept, strict=True)
        )
        index = (steps.unsqueeze(2) * self.grid[1] + rows.unsqueeze(1)).flatten(1)
        return tokens._replace(values=take(tokens.values, index), positions=take(tokens.positions, index))


def build_token_dropping(tokenizer: Tokenizer, shares: Mapping[str, float] | None) -> nn.Module:
    """Make a module from `Tokens` to `Tokens` that drops `shares` {time, frequency}, or for None nothing.

    Raises:
        InputError: tokens are not in a grid of time and frequency, or nothing would be left.
    """
    if shares is None:
        return nn.Identity()
    if not isinstance(tokenizer, AudioTokenizer):
        raise InputError("token_drop drops time steps and frequency rows: only audio has them, leave it out")
    return TokenDropping(tokenizer.grid, **shares)
