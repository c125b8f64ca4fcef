"""Point clouds as tokens, as in Point-MAE: (B, N, 3) in the unit sphere."""

from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.modalities.settings import POINTCLOUD_NORM_EPS
from m2pt.modalities.tokenizer import Tokenizer, Tokens, random_split, take

ORIGIN = 1e-3
"""Squared distance from the origin within which `skip_origin` leaves points out."""


def farthest_points(points: Tensor, count: int, *, skip_origin: bool = False) -> Tensor:
    """Choose points by farthest-point sampling, starting from the first point.

    Args:
        points: (B, N, 3).
        count: number of points to choose, at most N.
        skip_origin: choose no point, other than the first, with |p|² <= 1e-3, as the kernel of
            `pointnet2_ops` that Point-MAE calls; the first point is repeated once no other is left.

    Returns:
        Indices (B, count), in the order chosen.
    """
    if points.is_meta:  # hundreds of steps, each dear for a meta tensor
        return torch.empty(len(points), count, dtype=torch.long, device=points.device)
    axes = points.permute(2, 0, 1).contiguous()  # one plane per coordinate: no reduction over three values
    distance = points.new_full(points.shape[:2], torch.inf)
    if skip_origin:
        distance[axes.square().sum(0) <= ORIGIN] = -1  # below all distances, and the minimum keeps it
    chosen = torch.zeros(len(points), 1, dtype=torch.long, device=points.device)
    order = [chosen]
    for _ in range(count - 1):
        last = axes.gather(2, chosen.expand(3, -1, -1))
        squares = (axes - last).square_()
        distance = torch.minimum(distance, squares[0].add_(squares[1]).add_(squares[2]))
        chosen = distance.argmax(dim=1, keepdim=True)
        order.append(chosen)
    return torch.cat(order, dim=1)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the Euclidean distances (B, M, N) between the points (B, M, 3) and (B, N, 3)."""
    # From differences: the expansion into a matrix product suffers from cancellation for close points.
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def nearest_points(points: Tensor, centers: Tensor, count: int) -> Tensor:
    """Return indices (B, G, count) of the points (B, N, 3) nearest each center (B, G, 3), nearest first."""
    return distances(centers, points).topk(count, largest=False).indices


def chamfer_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared distance to the nearest point, predicted to target plus target to predicted.

    Args:
        predicted: (X, S, 3), X point sets.
        target: (X, S, 3), the sets they are compared with.

    Returns:
        Scalar, Point-MAE's `cdl2`.
    """
    with torch.no_grad():  # gradients flow through the pairs found, not through the search
        distance = distances(predicted, target)
        nearest_target, nearest_predicted = distance.argmin(2), distance.argmin(1)
    forth = predicted - take(target, nearest_target)
    back = target - take(predicted, nearest_predicted)
    return forth.square().sum(-1).mean() + back.square().sum(-1).mean()


def position_network(dim: int) -> nn.Sequential:
    """Build Point-MAE's position embedding: 3 → 128 → GELU → dim."""
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))


class PointEmbed(nn.Module):
    """Mini-PointNet, from a group of points to one token; `hidden` is 128 in Point-MAE.

    Linear layers on points in rows replace the official convolutions of kernel size 1: the same function and
    batch statistics, but faster. Keys are the official ones; weights lack the trailing axis.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2 * hidden)
        )
        self.second_conv = nn.Sequential(
            nn.Linear(4 * hidden, 4 * hidden),
            nn.BatchNorm1d(4 * hidden),
            nn.ReLU(),
            nn.Linear(4 * hidden, dim),
        )

    def forward(self, groups: Tensor) -> Tensor:
        """Map (B, G, S, 3) to (B, G, D)."""
        batch, count, size, _ = groups.shape
        local = self.first_conv(groups.flatten(0, 2)).unflatten(0, (-1, size))
        whole = local.amax(1)
        # the official layer reads [whole, local]; its share of `whole` is the same for all points of a group
        mix = cast(nn.Linear, self.second_conv[0])
        from_whole, from_local = mix.weight.chunk(2, dim=1)
        mixed = functional.linear(local, from_local)
        mixed = mixed + functional.linear(whole, from_whole, mix.bias).unsqueeze(1)
        features = self.second_conv[1:](mixed.flatten(0, 1))
        return features.unflatten(0, (batch, count, size)).amax(2)


class PointCloudTokenizer(Tokenizer):
    """Groups of neighbors around farthest points; a network maps the group centers to positions.

    No class token, as in Point-MAE's pretraining and part segmentation. Source: Point-MAE, `Point_MAE.py`.
    """

    positions_every_block = True
    norm_eps = POINTCLOUD_NORM_EPS
    decoder_embedding = "none"
    decays_mask_token = False

    def __init__(
        self,
        dim: int,
        *,
        points: int,
        groups: int,
        group_size: int,
        hidden: int,
        skip_origin: bool = False,
    ) -> None:
        super().__init__()
        if max(groups, group_size) > points:
            raise InputError(
                f"tokenizer has {groups} groups of {group_size} out of {points} points: "
                "neither number may exceed the number of points"
            )
        self.num_tokens = groups
        self.group_size = group_size
        self.skip_origin = skip_origin
        self.target_dim = 3 * group_size
        self.patch_embed = PointEmbed(dim, hidden)
        self.pos_embed = position_network(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                self.init_linear(module.weight)
                nn.init.zeros_(module.bias)

    @classmethod
    def build(cls, dim: int, input: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """Build it from the tokenizer's settings and the input's `points`."""
        return cls(dim, points=input["points"], **settings)

    @classmethod
    def recognizes(cls, state: Mapping[str, Tensor]) -> bool:
        """Return whether a stored tokenizer is of this modality."""
        return "patch_embed.first_conv.0.weight" in state

    def init_linear(self, weight: Tensor) -> None:
        """Initialize with a truncated normal of standard deviation .02."""
        nn.init.trunc_normal_(weight, std=0.02)

    def group(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split (B, N, 3) into neighbors relative to their center (B, G, S, 3) and centers (B, G, 3)."""
        centers = take(x, farthest_points(x, self.num_tokens, skip_origin=self.skip_origin))
        index = nearest_points(x, centers, self.group_size)
        neighbors = take(x, index.flatten(1)).unflatten(1, (self.num_tokens, self.group_size))
        return neighbors - centers.unsqueeze(2), centers

    def forward(self, x: Tensor) -> Tokens:
        """Map (B, N, 3) to one token per group."""
        groups, centers = self.group(x)
        return Tokens(self.patch_embed(groups), self.pos_embed(centers), source=groups, centers=centers)

    def draw_mask(self, batch: int, ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw groups uniformly; int(ratio * groups) are masked (Point-MAE's `rand`)."""
        return random_split(batch, self.num_tokens, int(ratio * self.num_tokens), device)

    def target(self, source: Tensor, masked: Tensor) -> Tensor:
        """Return the centered neighbors of the masked groups, (B, M, 3 * group_size)."""
        return take(source.flatten(2), masked)

    def decoder_positions(self, dim: int) -> nn.Module:
        """Build a separate position network for the decoder."""
        return position_network(dim)

    def reconstruction_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the Chamfer distance of predicted and true neighbors; both (B, M, 3 * group_size)."""
        shape = (-1, self.group_size, 3)
        return chamfer_distance(predicted.reshape(shape), target.reshape(shape))
