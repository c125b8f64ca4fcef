"""A small timm ViT with its images and its training: what the pathway's tests attach to each other."""

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def vit(depth: int = 2, dim: int = 24, seed: int = 0) -> timm.models.VisionTransformer:
    """A timm ViT of 32x32 images with 16 tokens, all of its matrices random."""
    torch.manual_seed(seed)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=dim, depth=depth, num_heads=2, num_classes=5, global_pool="avg"
    )


def images(batch: int = 3, seed: int = 9) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        F.cross_entropy(model(images(seed=step)), torch.tensor([0, 1, 2])).backward()
        optimizer.step()


def parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    return dict(layer.named_parameters())
