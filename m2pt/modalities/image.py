"""Images as tokens, as in MAE: (B, 3, H, W), normalized with the ImageNet statistics."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from m2pt.errors import InputError
from m2pt.modalities.patches import PatchTokenizer, count_patches, has_kernel


class ImageTokenizer(PatchTokenizer):
    """Non-overlapping patches of a square image; positions are trainable unless fixed."""

    def __init__(
        self, dim: int, *, image_size: int, patch_size: int, distillation_token: bool = False
    ) -> None:
        side = count_patches("image_size", image_size, patch_size, patch_size)
        super().__init__(
            dim,
            channels=3,
            grid=(side, side),
            patch_size=patch_size,
            stride=patch_size,
            distillation_token=distillation_token,
        )

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Build from `patch_size` and perhaps `distillation_token`, and the input's `image_size`."""
        return cls(dim, image_size=input["image_size"], **settings)

    @classmethod
    def recognizes(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether a stored tokenizer is of this modality."""
        return has_kernel(state, 4, 3)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Interpolate positions trained at another (square) image size, bicubic without antialiasing.

        Source: MAE, `util/pos_embed.py`; timm's own default has antialiasing. A table without rows for the
        prefix (DeiT III) gets zeros there, which computes the same.

        Raises:
            InputError: the stored table does not belong to a square image, or the prefix is another.
        """
        state, prefix = super().adapt(state), self.num_prefix_tokens
        stored = state.get("pos_embed")
        if stored is None or stored.ndim != 3:
            return state
        if stored.shape[1] and math.isqrt(stored.shape[1]) ** 2 == stored.shape[1]:
            stored = torch.cat([torch.zeros_like(stored[:, :1]).expand(-1, prefix, -1), stored], dim=1)
        if stored.shape[1] == self.pos_embed.shape[1]:
            return {**state, "pos_embed": stored}
        side = math.isqrt(max(stored.shape[1] - prefix, 0))
        if side == 0 or side * side != stored.shape[1] - prefix:
            tokens = "a class token" if prefix == 1 else "two tokens"
            raise InputError(
                f"pos_embed has {stored.shape[1]} rows, which is not {tokens} plus a square grid: "
                "use the weights of an image model"
            )
        resampled = resample_abs_pos_embed(
            stored, list(self.grid), [side, side], num_prefix_tokens=prefix, antialias=False
        )
        return {**state, "pos_embed": resampled}
