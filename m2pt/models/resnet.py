"""ResNet-18 as an encoder: torchvision's blocks and keys, for any channels, any width, or frames."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from m2pt.errors import InputError


class ResNet18(nn.Module):
    """ResNet-18 without classifier (He et al. 2016, table 1).

    At width 64 with 3 channels and the standard stem, the keys are those of torchvision's `resnet18` but for
    `fc`, so that its weights load. Convolutions start Kaiming-normal in fan-out mode, as torchvision's do.

    A clip (B, C, T, H, W) is encoded frame by frame, and the features are averaged over the frames; batch
    norms then see B * T pictures. Source: OGM-GE, `models/basic_model.py`, which AGM follows.

    Args:
        in_channels: channels of the input.
        width: channels of the first stage.
        stem: "standard", 7x7 with stride 2 and a max-pool; or "small", 3x3 with stride 1 and no pool.

    Raises:
        InputError: the stem is unknown.
    """

    def __init__(
        self, in_channels: int, *, width: int = 64, stem: Literal["standard", "small"] = "standard"
    ) -> None:
        super().__init__()
        if stem not in ("standard", "small"):
            raise InputError(f"stem {stem!r} is unknown: choose standard or small")
        self.in_channels = in_channels
        self.embed_dim = 8 * width
        if stem == "standard":
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) or (B, C, T, H, W) to features (B, 8 * width).

        Raises:
            InputError: the input has another number of axes or channels, or no frame.
        """
        if x.dim() not in (4, 5) or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            raise InputError(
                f"a ResNet-18 of {self.in_channels} channels cannot encode an input of shape "
                f"{tuple(x.shape)}; give (B, {self.in_channels}, H, W), or (B, {self.in_channels}, T, H, W) "
                "for frames"
            )
        if x.dim() == 4:
            return self._encode(x)
        frames = x.transpose(1, 2)
        return self._encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(dim=1)

    def _encode(self, x: Tensor) -> Tensor:
        x = self.conv1(x).contiguous(
            memory_format=torch.channels_last
        )  # faster, if it is narrow by a quarter
        x = self.maxpool(self.relu(self.bn1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)


def _stage(in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    """Build two blocks, the first with a projection shortcut if the shape changes."""
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    return nn.Sequential(BasicBlock(in_channels, channels, stride, shortcut), BasicBlock(channels, channels))
