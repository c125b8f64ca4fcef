"""Segmentation of point clouds: features of groups after several blocks, interpolated to every point.

Source: Point-MAE, `segmentation/models/pt.py`. Linear layers on points in rows replace its convolutions of
kernel size 1. A layer whose input is shared by many points, or interpolated from few groups, is applied
before that input is repeated or interpolated: the same function at a fraction of the cost.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.modalities.pointcloud import PointCloudTokenizer, distances
from m2pt.modalities.tokenizer import Tokenizer
from m2pt.models.settings import PartSegmenterSettings
from m2pt.models.transformer import Encoder, build_tokenizer

NEIGHBORS = 3


def interpolation_weights(points: Tensor, centers: Tensor) -> Tensor:
    """Return weights that interpolate features from the centers to the points, `weights @ features`.

    The three nearest centers of a point are weighted by their inverse squared distance (PointNet++'s feature
    propagation).

    Args:
        points: (B, N, 3).
        centers: (B, G, 3).

    Returns:
        (B, N, G), each row with at most three non-zero weights that sum to 1.
    """
    distance = distances(points, centers)
    nearest, index = distance.topk(min(NEIGHBORS, centers.shape[1]), largest=False)
    weights = 1 / (nearest.square() + 1e-8)
    weights = weights / weights.sum(2, keepdim=True)
    return torch.zeros_like(distance).scatter_(2, index, weights)


class JoiningLayer(nn.Module):
    """Linear, batch norm and ReLU on features of points joined with those of groups or of the cloud."""

    def __init__(self, own: int, other: int, width: int) -> None:
        super().__init__()
        self.widths = [own, other]
        self.linear = nn.Linear(own + other, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, own: Tensor, other: Tensor, weights: Tensor | None = None) -> Tensor:
        """Combine features.

        Args:
            own: (B, N, own), features of the points.
            other: (B, G, other), features of the groups, or (B, 1, other), features of the whole cloud.
            weights: (B, N, G) from `interpolation_weights`, or None for the whole cloud.

        Returns:
            (B, N, width).
        """
        for_own, for_other = self.linear.weight.split(self.widths, dim=1)
        there = functional.linear(other, for_other)
        here = functional.linear(own, for_own, self.linear.bias)
        mixed = here + (there if weights is None else weights @ there)
        return functional.relu(self.norm(mixed.flatten(0, 1)).view_as(mixed))


class Layers(nn.Sequential):
    """Linear, batch norm and ReLU for each pair of successive `widths`, on (B, N, C)."""

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to each point."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class SegmentationHead(nn.Module):
    """Segmentation head, from features of groups to logits of points.

    Args:
        dim: channels of a group's features, all taps together.
        num_classes: number of logits per point.
        num_categories: number of categories of clouds; 0 if all have the same.
        label_dim: width of the branch for the category.
        propagation_dims: widths of the layers on interpolated features.
        hidden_dims: widths of the layers on these and the features of the whole cloud.
        dropout: dropout after the first hidden layer.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_classes: int,
        num_categories: int,
        label_dim: int,
        propagation_dims: Sequence[int],
        hidden_dims: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_categories = num_categories
        whole = 2 * dim
        if num_categories:
            whole += label_dim
            self.label = nn.Sequential(
                nn.Linear(num_categories, label_dim, bias=False), nn.BatchNorm1d(label_dim), nn.LeakyReLU(0.2)
            )
        self.propagate = JoiningLayer(3, dim, propagation_dims[0])
        self.propagated = Layers(propagation_dims)
        self.join = JoiningLayer(propagation_dims[-1], whole, hidden_dims[0])
        self.dropout = nn.Dropout(dropout)
        self.hidden = Layers(hidden_dims)
        self.classify = nn.Linear(hidden_dims[-1], num_classes)

    def forward(
        self, points: Tensor, centers: Tensor, features: Tensor, category: Tensor | None = None
    ) -> Tensor:
        """Classify points.

        Args:
            points: (B, N, 3).
            centers: (B, G, 3), centers of the groups.
            features: (B, G, dim), features of the groups.
            category: (B,) integers, if `num_categories` > 0.

        Returns:
            Logits (B, N, num_classes).
        """
        local = self.propagate(points, features, interpolation_weights(points, centers))
        whole = [features.amax(1), features.mean(1)]
        if self.num_categories:
            one_hot = functional.one_hot(cast(Tensor, category), self.num_categories)
            whole.append(self.label(one_hot.to(features.dtype)))
        joined = self.join(self.propagated(local), torch.cat(whole, dim=1).unsqueeze(1))
        return self.classify(self.hidden(self.dropout(joined)))


class PartSegmenter(Encoder):
    """A point cloud encoder and a `SegmentationHead` on the normalized tokens after the blocks `taps`.

    All taps share one norm, initialized from the pretrained encoder as in Point-MAE.

    Raises:
        InputError: the encoder is not one of point clouds, or the taps are not ascending block numbers up
            to the last block (later blocks would be unused).
    """

    def __init__(
        self, tokenizer: Tokenizer, *, taps: Sequence[int], dim: int, head: Mapping[str, Any], **body: Any
    ) -> None:
        super().__init__(tokenizer, dim=dim, **body)
        if not isinstance(tokenizer, PointCloudTokenizer):
            raise InputError(
                "part segmentation needs an encoder of point clouds, but this one is of another modality"
            )
        last = len(self.blocks) - 1
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] != last:
            raise InputError(
                f"model.taps: {list(taps)} must be ascending block numbers that end with the last, {last}"
            )
        self.taps = list(taps)
        self.head = SegmentationHead(len(taps) * dim, **head)

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """Parts (see `exchange`) to load from a pretrained encoder, without the head."""
        return ("tokenizer", "blocks", "norm")

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        """Return logits (B, N, num_classes) for points (B, N, 3) of clouds of the categories (B,)."""
        tokens = self.tokenizer(points)
        taps = self.encode_taps(tokens.values, tokens.positions, self.taps)
        features = self.norm(torch.stack(taps, dim=2)).flatten(2)
        return self.head(points, cast(Tensor, tokens.centers), features, category)


def build_part_segmenter(
    modality: str,
    *,
    input: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
    num_categories: int = 0,
    **settings: Any,
) -> PartSegmenter:
    """Build a part segmenter.

    Args:
        modality: pointcloud.
        input: as for `build_encoder`.
        tokenizer: as for `build_encoder`; no weight depends on the number of groups, so it may differ from
            that of pretraining.
        backbone: as for `build_encoder`.
        num_classes: number of logits per point.
        num_categories: 16 for ShapeNetPart; 0 for PartNet, which has a network for each category.
        **settings: fields of `PartSegmenterSettings`; `label_dim` is unused without categories.

    Raises:
        InputError: another modality, or inconsistent settings.
    """
    tokens = build_tokenizer(modality, dim=backbone["dim"], input=input, settings=tokenizer)
    chosen = PartSegmenterSettings(**settings)
    head = {
        "num_classes": num_classes,
        "num_categories": num_categories,
        "label_dim": chosen.label_dim,
        "propagation_dims": chosen.propagation_dims,
        "hidden_dims": chosen.hidden_dims,
        "dropout": chosen.dropout,
    }
    return PartSegmenter(tokens, taps=chosen.taps, head=head, drop_path=chosen.drop_path, **backbone)
