"""Log-mel spectrograms: (B, 1, frames, mel bins), normalised, as AudioMAE treats them."""

from collections.abc import Mapping
from typing import Any, Self

from m2pt.modalities.patches import PatchTokenizer, count_patches


class AudioTokenizer(PatchTokenizer):
    """Patches of a spectrogram in time-major order, overlapping if `stride` is less than `patch_size`.

    Positions are fixed in pretraining and in finetuning. The official table is computed for the transposed
    grid, so that token (t, f) gets another token's coordinates; a table made here follows the true grid, and
    the official one comes with the official weights, because `pos_embed` is always loaded.
    """

    def __init__(self, dim: int, *, frames: int, mel_bins: int, patch_size: int, stride: int) -> None:
        grid = (
            count_patches("frames", frames, patch_size, stride),
            count_patches("mel_bins", mel_bins, patch_size, stride),
        )
        super().__init__(dim, channels=1, grid=grid, patch_size=patch_size, stride=stride)
        self.fix_positions()

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Settings: `patch_size`, `stride`; from the input: `frames`, `mel_bins`."""
        return cls(dim, frames=input["frames"], mel_bins=input["mel_bins"], **settings)
