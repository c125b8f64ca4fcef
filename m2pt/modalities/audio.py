"""Audio as tokens, as in AudioMAE: normalized log-mel spectrograms (B, 1, frames, mel bins)."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from m2pt.modalities.patches import PatchTokenizer, count_patches, has_kernel
from m2pt.modalities.tokenizer import Tokens


class AudioTokenizer(PatchTokenizer):
    """Patches of a spectrogram, overlapping if `stride` is less than `patch_size`.

    They are (time, frequency) and in time-major order as in AudioMAE, or with `ast` the other way round and
    after a class and a distillation token, as in AST, which trains the positions.

    AudioMAE's positions are fixed, in pretraining and in finetuning. It computes their table for the
    transposed grid, so that token (t, f) gets the coordinates of another token. The table built here follows
    the true grid; the official one is used with the official weights, because `pos_embed` is always loaded.
    """

    decoder_kinds: tuple[str, ...] = ("global", "windowed")
    distilled = "ast"

    def __init__(
        self,
        dim: int,
        *,
        frames: int,
        mel_bins: int,
        patch_size: int,
        stride: int,
        ast: bool = False,
    ) -> None:
        grid = (
            count_patches("frames", frames, patch_size, stride),
            count_patches("mel_bins", mel_bins, patch_size, stride),
        )
        super().__init__(
            dim,
            channels=1,
            grid=(grid[1], grid[0]) if ast else grid,
            patch_size=patch_size,
            stride=stride,
            distillation_token=ast,
        )
        self.frequency_major = ast
        if ast:
            self.decoder_kinds = ("global",)  # windows are shifted along the first axis, AudioMAE's time
        else:
            self.fix_positions()

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Build from the config's section `tokenizer` and the input's `frames`, `mel_bins`."""
        return cls(dim, frames=input["frames"], mel_bins=input["mel_bins"], **settings)

    def forward(self, x: Tensor) -> Tokens:
        """Map (B, 1, frames, mel bins) to tokens."""
        return super().forward(x.transpose(2, 3) if self.frequency_major else x)

    @classmethod
    def recognizes(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether a stored tokenizer is of this modality."""
        return has_kernel(state, 4, 1)
