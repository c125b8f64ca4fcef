"""Patches of a 2-D plane, shared by images and spectrograms."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.positions import PositionTable, sincos_2d
from m2pt.modalities.tokenizer import Tokenizer, Tokens, random_split, take


def count_patches(name: str, size: int, patch: int, stride: int) -> int:
    """Count the patches along one axis. Overlapping ones may leave a remainder, as in AST and AudioMAE.

    Raises:
        InputError: no patch fits, patches leave gaps, or patches without overlap do not fill the axis.
    """
    if size < patch or stride > patch or (stride == patch and size % patch):
        raise InputError(
            f"{name} {size} cannot be cut into patches of {patch} at stride {stride}: "
            f"choose a multiple of {patch}, or a smaller stride"
        )
    return (size - patch) // stride + 1


def center(values: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the mean over the last axis and return the unbiased variance, (..., 1), as well."""
    centered = values - values.mean(dim=-1, keepdim=True)
    # two passes: `torch.var_mean` is seven times slower on a CPU
    return centered, centered.square().sum(dim=-1, keepdim=True) / (values.shape[-1] - 1)


def has_kernel(state: Mapping[str, Tensor], axes: int, channels: int) -> bool:
    """Return whether the kernel of a stored `PatchEmbed` has so many axes and input channels."""
    kernel = state.get("patch_embed.proj.weight")
    return kernel is not None and (kernel.ndim, kernel.shape[1]) == (axes, channels)


class PatchEmbed(nn.Module):
    """A strided convolution that maps patches linearly; keys `proj.weight`, `proj.bias` as in timm."""

    def __init__(self, proj: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to (B, L, D), row-major over the patch grid."""
        return self.proj(x).flatten(2).transpose(1, 2)


class PatchTokenizer(Tokenizer):
    """Square patches, a class token, 2-D sine-cosine positions, and MAE's objective.

    Keys are those of timm's `VisionTransformer`: `cls_token`, `pos_embed` (its first rows belong to the
    prefix and start at zero), `patch_embed.proj.*`, and `dist_token` in DeiT and AST.
    Source: MAE, `models_mae.py`.
    """

    distilled: ClassVar[str] = "distillation_token"
    """Setting that adds a distillation token."""

    def __init__(
        self,
        dim: int,
        *,
        channels: int,
        grid: tuple[int, int],
        patch_size: int,
        stride: int,
        distillation_token: bool = False,
    ) -> None:
        super().__init__()
        self.num_prefix_tokens = 2 if distillation_token else 1
        self.grid = grid
        self.patch_size = patch_size
        self.stride = stride
        self.num_tokens = grid[0] * grid[1]
        self.target_dim = self.standardized_dim = patch_size * patch_size * channels
        self.patch_embed = PatchEmbed(nn.Conv2d(channels, dim, patch_size, stride))
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(dim, -1))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.normal_(self.cls_token, std=0.02)
        self.dist_token = nn.Parameter(torch.empty(1, 1, dim)) if distillation_token else None
        if self.dist_token is not None:
            nn.init.normal_(self.dist_token, std=0.02)
        table = torch.cat([torch.zeros(self.num_prefix_tokens, dim), sincos_2d(dim, grid)])
        self.pos_embed = nn.Parameter(table.unsqueeze(0))

    def fix_positions(self) -> None:
        """Freeze the sine-cosine table."""
        self.pos_embed.requires_grad_(False)

    def prefix(self) -> Tensor:
        """Return class and distillation token with their rows of the position table added, (1, P, D)."""
        tokens = (
            self.cls_token if self.dist_token is None else torch.cat([self.cls_token, self.dist_token], 1)
        )
        return tokens + self.pos_embed[:, : self.num_prefix_tokens]

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state, whose prefix must be this one's.

        Raises:
            InputError: it has no class token; or a distillation token, and this tokenizer has none, or the
                other way round.
        """
        if "cls_token" not in state and "patch_embed.proj.weight" in state:
            raise InputError(
                "its model has no class token, which targets of its modality have: use it as an auxiliary "
                "only"
            )
        if "cls_token" in state and ("dist_token" in state) != (self.dist_token is not None):
            has, value = ("has a", "true") if "dist_token" in state else ("has no", "false")
            raise InputError(
                f"it {has} distillation token: set {self.distilled}: {value} in the tokenizer section of its "
                "modality, or use it as an auxiliary only"
            )
        return dict(state)

    def forward(self, x: Tensor) -> Tokens:
        """Map (B, C, H, W) to H/patch * W/patch tokens, row-major."""
        return Tokens(self.patch_embed(x), self.pos_embed[:, self.num_prefix_tokens :], source=x)

    def draw_mask(self, batch: int, ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw patches uniformly; int(L * (1 - ratio)) remain visible."""
        visible = int(self.num_tokens * (1 - ratio))
        return random_split(batch, self.num_tokens, self.num_tokens - visible, device)

    def patches(self, x: Tensor) -> Tensor:
        """Cut (B, C, H, W) into (B, L, patch * patch * C): row, column, channel, the last fastest."""
        cut = x.unfold(2, self.patch_size, self.stride).unfold(3, self.patch_size, self.stride)
        return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)

    def target(self, source: Tensor, masked: Tensor) -> Tensor:
        """Return the masked patches, each with mean 0 and unbiased variance 1 (`norm_pix_loss`)."""
        patches = take(self.patches(source), masked)
        centered, variance = center(patches)
        return centered / (variance + 1e-6).sqrt()

    def decoder_positions(self, dim: int) -> nn.Module:
        """Return the sine-cosine table at the decoder's width, without a row for the class token."""
        return PositionTable(sincos_2d(dim, self.grid))
