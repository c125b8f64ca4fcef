"""Point groups, tokens and Chamfer distance against brute force, convolutions and scipy."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import nn

from m2pt.errors import InputError
from m2pt.modalities.pointcloud import (
    PointCloudTokenizer,
    PointEmbed,
    chamfer_distance,
    farthest_points,
    nearest_points,
)


@pytest.fixture
def cloud() -> torch.Tensor:
    return torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(0))


def test_farthest_points_equal_brute_force(cloud):
    chosen = farthest_points(cloud, 12)
    for sample, points in enumerate(cloud.double().numpy()):
        expected = [0]
        while len(expected) < 12:
            to_chosen = np.linalg.norm(points[:, None] - points[expected], axis=2).min(axis=1)
            expected.append(int(to_chosen.argmax()))
        assert chosen[sample].tolist() == expected


def test_points_without_values_give_indices_of_the_same_shape(cloud):
    real, meta = farthest_points(cloud, 12), farthest_points(cloud.to("meta"), 12)
    assert (meta.shape, meta.dtype, meta.device.type) == (real.shape, real.dtype, "meta")


@pytest.mark.parametrize("near", [0, 20, 58, 60])
def test_points_near_the_origin_are_skipped_as_by_the_official_kernel(cloud, near):
    """The kernel's loop: a point with |p|^2 <= 1e-3 is passed over, and its distances are never written."""
    points = cloud.clone()
    points[:, torch.randperm(60)[:near]] *= 0.005
    chosen = farthest_points(points, 12, skip_origin=True)
    for sample, own in enumerate(points.double().numpy()):
        distance, expected = np.full(60, 1e10), [0]
        while len(expected) < 12:
            best, best_index = -1.0, 0
            for index, point in enumerate(own):
                if point @ point <= 1e-3:
                    continue
                distance[index] = min(distance[index], np.sum((point - own[expected[-1]]) ** 2))
                if distance[index] > best:
                    best, best_index = distance[index], index
            expected.append(best_index)
        assert chosen[sample].tolist() == expected
        assert near < 60 or set(expected) == {0}


def test_nearest_points_equal_a_kd_tree(cloud):
    centers = cloud[:, :7] + 0.01
    found = nearest_points(cloud, centers, 5)
    for sample in range(3):
        _, expected = KDTree(cloud[sample].numpy()).query(centers[sample].numpy(), k=5)
        np.testing.assert_array_equal(found[sample], expected)


def test_nearest_points_are_exact_far_from_the_origin():
    points = torch.tensor([[[1000.0, 0, 0], [1000.0, 2**-10, 0], [1000.0, 2**-9, 0]]])
    assert nearest_points(points, points[:, 2:], 3).tolist() == [[[2, 1, 0]]]


def test_groups_are_relative_to_their_centers(cloud):
    tokenizer = PointCloudTokenizer(8, points=60, groups=6, group_size=4, hidden=128)
    groups, centers = tokenizer.group(cloud)
    for sample in range(3):
        tree = KDTree(cloud[sample].numpy())
        for group in range(6):
            _, index = tree.query(centers[sample, group].numpy(), k=4)
            expected = cloud[sample].numpy()[index] - centers[sample, group].numpy()
            np.testing.assert_allclose(groups[sample, group], expected, atol=1e-6)
            assert not groups[sample, group, 0].any()


def test_embedding_is_the_official_chain_of_convolutions():
    torch.manual_seed(0)
    embed = PointEmbed(10, hidden=4)
    groups = torch.randn(2, 5, 6, 3)
    convolutions = nn.ModuleDict(
        {
            "first": nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 8, 1)),
            "second": nn.Sequential(
                nn.Conv1d(16, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 10, 1)
            ),
        }
    )
    for name in ("first", "second"):
        state = getattr(embed, f"{name}_conv").state_dict()
        convolutions[name].load_state_dict(
            {key: value.unsqueeze(-1) if value.ndim == 2 else value for key, value in state.items()}
        )
    local = convolutions["first"](groups.flatten(0, 1).transpose(1, 2))
    whole = local.max(dim=2, keepdim=True).values.expand_as(local)
    expected = convolutions["second"](torch.cat([whole, local], dim=1)).max(dim=2).values.view(2, 5, 10)
    torch.testing.assert_close(embed(groups), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embed.second_conv[1].running_var, convolutions["second"][1].running_var)


def test_default_embedding_has_the_official_sizes():
    sizes = [layer.weight.shape for layer in PointEmbed(384, 128).modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(128, 3), (256, 128), (512, 512), (384, 512)]


def test_chamfer_distance_equals_nearest_neighbor_queries():
    torch.manual_seed(0)
    predicted, target = torch.randn(4, 7, 3), torch.randn(4, 9, 3)
    forth = [KDTree(t).query(p)[0] ** 2 for p, t in zip(predicted.numpy(), target.numpy(), strict=True)]
    back = [KDTree(p).query(t)[0] ** 2 for p, t in zip(predicted.numpy(), target.numpy(), strict=True)]
    expected = np.mean(forth) + np.mean(back)
    assert chamfer_distance(predicted, target).item() == pytest.approx(expected, rel=1e-5)


def test_chamfer_gradient_equals_finite_differences():
    torch.manual_seed(0)
    predicted = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda points: chamfer_distance(points, target), predicted)


def test_38_of_64_groups_are_masked():
    tokenizer = PointCloudTokenizer(8, points=1024, groups=64, group_size=32, hidden=128)
    visible, masked = tokenizer.draw_mask(3, 0.6, torch.device("cpu"))
    assert visible.shape == (3, 26)
    assert masked.shape == (3, 38)


def test_target_is_the_masked_groups(cloud):
    tokenizer = PointCloudTokenizer(8, points=60, groups=6, group_size=4, hidden=128)
    tokens = tokenizer(cloud)
    masked = torch.tensor([[5, 1], [0, 2], [3, 4]])
    target = tokenizer.target(tokens.source, masked).view(3, 2, 4, 3)
    for sample in range(3):
        np.testing.assert_array_equal(target[sample], tokens.source[sample].numpy()[masked[sample]])


def test_more_groups_than_points_are_rejected():
    with pytest.raises(InputError, match="32 groups of 4 out of 20 points"):
        PointCloudTokenizer(8, points=20, groups=32, group_size=4, hidden=128)
