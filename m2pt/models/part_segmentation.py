"""Segmentation of a point cloud: features of the groups after several blocks, carried to every point.

Source: Point-MAE, `segmentation/models/pt.py`. Linear layers on points in rows stand for its convolutions of
kernel 1. Where a layer reads what many points share, or what is interpolated from few groups, it is applied
before that is repeated or interpolated: the same function, for a fraction of the work.
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
from m2pt.models.transformer import Encoder, build_tokenizer

NEIGHBOURS = 3


def interpolation_weights(points: Tensor, centres: Tensor) -> Tensor:
    """Weights that carry features of the centres to the points: `weights @ features`.

    A point takes from its three nearest centres, in inverse proportion to the squared distance (PointNet++'s
    feature propagation).

    Args:
        points: (B, N, 3).
        centres: (B, G, 3).

    Returns:
        (B, N, G), each row with at most three weights, of sum 1.
    """
    distance = distances(points, centres)
    nearest, index = distance.topk(min(NEIGHBOURS, centres.shape[1]), largest=False)
    weights = 1 / (nearest.square() + 1e-8)
    weights = weights / weights.sum(2, keepdim=True)
    return torch.zeros_like(distance).scatter_(2, index, weights)


class JoiningLayer(nn.Module):
    """Linear, batch norm and ReLU on what points have of their own, joined with what they get elsewhere."""

    def __init__(self, own: int, other: int, width: int) -> None:
        super().__init__()
        self.widths = [own, other]
        self.linear = nn.Linear(own + other, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, own: Tensor, other: Tensor, weights: Tensor | None = None) -> Tensor:
        """Join features.

        Args:
            own: (B, N, own), of the points.
            other: (B, G, other), of the groups, or (B, 1, other), of the whole cloud.
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
    """Linear, batch norm and ReLU, as often as there are pairs of neighbours in `widths`; (B, N, C)."""

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Treat all points of all clouds alike."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class SegmentationHead(nn.Module):
    """From the features of groups to logits of points.

    Args:
        dim: channels of a group's features, all taps together.
        num_classes: number of logits per point.
        num_categories: categories that a cloud may have; 0 if it is always the same.
        label_dim: width of the category's branch.
        propagation_dims: widths of the layers on interpolated features.
        hidden_dims: widths of the layers on those together with the features of the whole cloud.
        dropout: after the first hidden layer.
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
        self, points: Tensor, centres: Tensor, features: Tensor, category: Tensor | None = None
    ) -> Tensor:
        """Classify points.

        Args:
            points: (B, N, 3).
            centres: (B, G, 3), of the groups.
            features: (B, G, dim), of the groups.
            category: (B,) integers, if the head knows categories.

        Returns:
            Logits (B, N, num_classes).
        """
        local = self.propagate(points, features, interpolation_weights(points, centres))
        whole = [features.amax(1), features.mean(1)]
        if self.num_categories:
            one_hot = functional.one_hot(cast(Tensor, category), self.num_categories)
            whole.append(self.label(one_hot.to(features.dtype)))
        joined = self.join(self.propagated(local), torch.cat(whole, dim=1).unsqueeze(1))
        return self.classify(self.hidden(self.dropout(joined)))


class PartSegmenter(Encoder):
    """A point cloud encoder and a `SegmentationHead` on the normalised tokens after the blocks `taps`.

    One norm serves all taps, and as in Point-MAE it starts from the pretrained encoder's.

    Raises:
        InputError: the tokenizer is not one of point clouds, or the taps are not ascending numbers of blocks
            of which the last is the last block: the blocks after it would be of no use.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, taps: Sequence[int], dim: int, head: Mapping[str, Any], **body: Any
    ) -> None:
        super().__init__(tokenizer, dim=dim, **body)
        if not isinstance(tokenizer, PointCloudTokenizer):
            raise InputError(
                "part segmentation needs an encoder of point clouds; this one is of another kind"
            )
        last = len(self.blocks) - 1
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] != last:
            raise InputError(
                f"model.taps: {list(taps)} must be ascending numbers of blocks and end with the last, {last}"
            )
        self.taps = list(taps)
        self.head = SegmentationHead(len(taps) * dim, **head)

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """The parts (see `exchange`) that a pretrained encoder provides; the head starts anew."""
        return ("tokenizer", "blocks", "norm")

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        """Return logits (B, N, num_classes) for points (B, N, 3) of clouds of the categories (B,)."""
        tokens = self.tokenizer(points)
        taps = self.encode_taps(tokens.values, tokens.positions, self.taps)
        features = self.norm(torch.stack(taps, dim=2)).flatten(2)
        return self.head(points, cast(Tensor, tokens.centres), features, category)


def build_part_segmenter(
    modality: str,
    *,
    input: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
    taps: Sequence[int],
    propagation_dims: Sequence[int],
    hidden_dims: Sequence[int],
    dropout: float,
    num_categories: int = 0,
    label_dim: int = 0,
    drop_path: float = 0.0,
) -> PartSegmenter:
    """Make a part segmenter.

    Args:
        modality: pointcloud.
        input, tokenizer, backbone: as for `build_encoder`. The number of groups changes no weight, so that it
            may differ from pretraining's.
        num_classes: number of logits per point.
        taps: 0-based numbers of the blocks whose tokens are used; 3, 7, 11 in Point-MAE.
        propagation_dims: 4 times the encoder's width, then 1024 in Point-MAE.
        hidden_dims: 512, 256 in Point-MAE.
        dropout: .5 in Point-MAE.
        num_categories: 16 for ShapeNetPart, 0 for PartNet, whose networks know one category each.
        label_dim: 64 in Point-MAE.
        drop_path: stochastic depth rate of the last block; .1 in Point-MAE.

    Raises:
        InputError: unknown modality, or settings that do not fit each other.
    """
    made = build_tokenizer(modality, dim=backbone["dim"], input=input, settings=tokenizer)
    head = {
        "num_classes": num_classes,
        "num_categories": num_categories,
        "label_dim": label_dim,
        "propagation_dims": propagation_dims,
        "hidden_dims": hidden_dims,
        "dropout": dropout,
    }
    return PartSegmenter(made, taps=taps, head=head, drop_path=drop_path, **backbone)
