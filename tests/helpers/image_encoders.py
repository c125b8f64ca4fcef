"""A tiny image encoder: what the tests of dense tasks build their models on."""

import torch

from m2pt.models.transformer import Encoder, build_encoder


def tiny_encoder(depth: int) -> Encoder:
    """Return an encoder of 32 x 32 images with 16 tokens, 16 wide; torch is seeded before."""
    torch.manual_seed(0)
    return build_encoder(
        "image",
        input={"image_size": 32},
        tokenizer={"patch_size": 8},
        backbone={"dim": 16, "depth": depth, "num_heads": 2, "mlp_ratio": 2},
    )
