"""Token dropping in finetuning as in AudioMAE: training uses a part of the time steps and frequency rows."""

import torch
from torch import nn

from m2pt.errors import InputError
from m2pt.modalities.audio import AudioTokenizer
from m2pt.modalities.tokenizer import Tokenizer, Tokens, take
from m2pt.models.settings import TokenDrop


class TokenDropping(nn.Module):
    """Drops whole steps and rows of the token grid, drawn for each clip in training; none in evaluation.

    Of n steps int(n * (1 - share)) are kept, and of the rows likewise. Tokens keep their positions; the class
    token is never dropped. Draws from torch's global generator. Source: AudioMAE, `models_vit.py`.

    Args:
        grid: numbers of time steps and of frequency rows, or of rows and steps if `frequency_major`.
        time: share of the time steps to drop.
        frequency: share of the frequency rows to drop.
        frequency_major: whether tokens are in frequency-major instead of time-major order.

    Raises:
        InputError: no token would be left.
    """

    def __init__(
        self, grid: tuple[int, int], *, time: float, frequency: float, frequency_major: bool = False
    ) -> None:
        super().__init__()
        self.grid = grid
        axes = ("frequency", "time") if frequency_major else ("time", "frequency")
        shares = {"time": time, "frequency": frequency}
        self.kept = tuple(int(size * (1 - shares[axis])) for axis, size in zip(axes, grid, strict=True))
        if not all(self.kept):
            left = {axis: f"{kept} of {size}" for axis, kept, size in zip(axes, self.kept, grid, strict=True)}
            raise InputError(
                f"token_drop time {time} and frequency {frequency} leave {left['time']} time steps and "
                f"{left['frequency']} frequency rows; choose smaller shares"
            )

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the tokens that are kept, (B, K, D), with their positions."""
        if not self.training or self.kept == self.grid:
            return tokens
        outer, inner = (
            torch.rand(len(tokens.values), size, device=tokens.values.device).argsort(dim=1)[:, :kept]
            for size, kept in zip(self.grid, self.kept, strict=True)
        )
        index = (outer.unsqueeze(2) * self.grid[1] + inner.unsqueeze(1)).flatten(1)
        return tokens._replace(values=take(tokens.values, index), positions=take(tokens.positions, index))


def build_token_dropping(tokenizer: Tokenizer, shares: TokenDrop | None) -> nn.Module:
    """Build a module from `Tokens` to `Tokens` that drops these shares, or nothing for None.

    Raises:
        InputError: the modality is not audio, or no token would be left.
    """
    if shares is None:
        return nn.Identity()
    if not isinstance(tokenizer, AudioTokenizer):
        raise InputError("token_drop drops time steps and frequency rows: only audio has them; remove it")
    return TokenDropping(
        tokenizer.grid,
        time=shares.time,
        frequency=shares.frequency,
        frequency_major=tokenizer.frequency_major,
    )
