"""Video clips as tokens, as in VideoMAE: (B, 3, T, H, W), normalized with the ImageNet statistics."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from m2pt.modalities.patches import PatchEmbed, center, count_patches, has_kernel
from m2pt.modalities.positions import PositionTable, sinusoid_1d
from m2pt.modalities.tokenizer import Tokenizer, Tokens, random_split, take


class VideoTokenizer(Tokenizer):
    """Cubes of `tubelet_size` frames, with a fixed sinusoid table and tube masking, without class token.

    Source: VideoMAE, `modeling_pretrain.py`, `masking_generator.py`, `engine_for_pretraining.py`.
    """

    decoder_embedding = "linear_without_bias"
    decays_mask_token = False
    positions: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, *, frames: int, image_size: int, patch_size: int, tubelet_size: int) -> None:
        super().__init__()
        side = count_patches("image_size", image_size, patch_size, patch_size)
        self.grid = (count_patches("frames", frames, tubelet_size, tubelet_size), side, side)
        self.cube = (tubelet_size, patch_size, patch_size)
        self.num_tokens = self.grid[0] * side * side
        self.standardized_dim = tubelet_size * patch_size * patch_size
        self.target_dim = 3 * self.standardized_dim
        self.patch_embed = PatchEmbed(nn.Conv3d(3, dim, self.cube, self.cube))
        # fixed, hence not part of the state: a table of another length is computed, never loaded
        self.register_buffer("positions", sinusoid_1d(dim, self.num_tokens).unsqueeze(0), persistent=False)
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(values).unsqueeze(1), persistent=False)

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Build from the settings `patch_size`, `tubelet_size` and the input's `frames`, `image_size`."""
        return cls(dim, frames=input["frames"], image_size=input["image_size"], **settings)

    @classmethod
    def recognizes(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether a stored tokenizer is of this modality."""
        return has_kernel(state, 5, 3)

    def forward(self, x: Tensor) -> Tokens:
        """Map (B, 3, T, H, W) to T/tubelet * H/patch * W/patch tokens, time-major."""
        return Tokens(self.patch_embed(x), self.positions, source=x)

    def draw_mask(self, batch: int, ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw tubes: the same int(ratio * places) places are masked at every time step."""
        times, rows, columns = self.grid
        places = rows * columns
        offset = torch.arange(times, device=device).view(1, times, 1) * places
        visible, masked = random_split(batch, places, int(ratio * places), device)
        return (visible.unsqueeze(1) + offset).flatten(1), (masked.unsqueeze(1) + offset).flatten(1)

    def cubes(self, x: Tensor) -> Tensor:
        """Cut (B, 3, T, H, W) into (B, L, 3, tubelet * patch * patch)."""
        for axis, size in enumerate(self.cube, start=2):
            x = x.unfold(axis, size, size)
        return x.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(5).flatten(1, 3)

    def target(self, source: Tensor, masked: Tensor) -> Tensor:
        """Return the masked cubes of the pixels in [0, 1], each channel of a cube with mean 0 and variance 1.

        Returns:
            (B, M, tubelet * patch * patch * 3), channel fastest.
        """
        pixels = take(self.cubes(source), masked) * self.std + self.mean
        centered, variance = center(pixels)
        return (centered / (variance.sqrt() + 1e-6)).transpose(2, 3).flatten(2)

    def decoder_positions(self, dim: int) -> nn.Module:
        """Return the sinusoid table at the decoder's width."""
        return PositionTable(sinusoid_1d(dim, self.num_tokens))
