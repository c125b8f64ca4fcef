"""Point cloud segmentation: the head compared with chains of convolutions, taps, gradients."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.part_segmentation import (
    PartSegmenter,
    SegmentationHead,
    build_part_segmenter,
    interpolation_weights,
)
from m2pt.models.transformer import build_encoder
from m2pt.pathway import attach, merge, scales
from m2pt.tasks.part_segmentation import PartSegmentation

BODY = {"dim": 16, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0}
TOKENS = {"input": {"points": 40}, "tokenizer": {"groups": 6, "group_size": 8, "hidden": 4}}
HEAD = {"propagation_dims": [12, 10], "hidden_dims": [9, 7], "dropout": 0.5}


def segmenter(**changes: object) -> PartSegmenter:
    torch.manual_seed(0)
    settings = {"num_classes": 5, "num_categories": 3, "label_dim": 6, "taps": [0, 2, 3], **HEAD, **changes}
    return build_part_segmenter("pointcloud", **TOKENS, backbone=BODY, **settings)


def clouds(count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 40, 3, generator=generator), torch.arange(count) % 3


def test_interpolation_is_the_inverse_distance_mean_of_the_three_nearest() -> None:
    draw = np.random.default_rng(0)
    points, centers, features = (
        draw.normal(size=(2, 30, 3)),
        draw.normal(size=(2, 8, 3)),
        draw.normal(size=(2, 8, 5)),
    )
    weights = interpolation_weights(torch.tensor(points), torch.tensor(centers))
    carried = (weights @ torch.tensor(features)).numpy()
    assert (weights.count_nonzero(dim=2) == 3).all()
    for sample in range(2):
        distance, index = KDTree(centers[sample]).query(points[sample], k=3)
        share = 1 / distance**2
        expected = (features[sample][index] * share[..., None]).sum(1) / share.sum(1, keepdims=True)
        np.testing.assert_allclose(carried[sample], expected, rtol=1e-5, atol=1e-6)


def test_a_point_on_a_center_takes_its_features_and_few_centers_suffice() -> None:
    centers = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    weights = interpolation_weights(torch.tensor([[[1.0, 0, 0], [0.5, 0, 0]]]), centers)
    torch.testing.assert_close(weights, torch.tensor([[[0.0, 1], [0.5, 0.5]]]))


def convolution(linear: nn.Module) -> nn.Conv1d:
    """The convolution of kernel size 1 with the weights of a linear layer."""
    made = nn.Conv1d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    made.load_state_dict(
        {key: v.unsqueeze(2) if v.ndim == 2 else v for key, v in linear.state_dict().items()}
    )
    return made


def official_head(
    head: SegmentationHead, points: Tensor, centers: Tensor, features: Tensor, category: Tensor
) -> Tensor:
    """Everything repeated for every point and joined before each layer, channels first; batch statistics."""

    def layer(x: Tensor, linear: nn.Module) -> Tensor:
        return functional.relu(functional.batch_norm(convolution(linear)(x), None, None, training=True))

    size = points.shape[1]
    interpolated = interpolation_weights(points, centers) @ features
    local = layer(torch.cat([points, interpolated], dim=2).transpose(1, 2), head.propagate.linear)
    local = layer(local, head.propagated[0])
    one_hot = torch.eye(3)[category].unsqueeze(2)
    label = convolution(head.label[0])(one_hot)
    label = functional.leaky_relu(functional.batch_norm(label, None, None, training=True), 0.2)
    whole = [features.max(1).values.unsqueeze(2), features.mean(1).unsqueeze(2), label]
    x = torch.cat([local, *(part.expand(-1, -1, size) for part in whole)], dim=1)
    x = layer(layer(x, head.join.linear), head.hidden[0])
    return convolution(head.classify)(x).transpose(1, 2)


def test_the_head_is_the_official_chain_of_convolutions() -> None:
    torch.manual_seed(0)
    head = SegmentationHead(
        24,
        num_classes=5,
        num_categories=3,
        label_dim=6,
        propagation_dims=[12, 10],
        hidden_dims=[9, 7],
        dropout=0.0,
    )
    points, category = clouds()
    centers, features = points[:, :6], torch.randn(3, 6, 24)
    expected = official_head(head, points, centers, features, category)
    torch.testing.assert_close(head(points, centers, features, category), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dim", "joined", "first"), [(384, 3392, 1155), (768, 5696, 2307)])
def test_the_published_sizes_of_the_head(dim: int, joined: int, first: int) -> None:
    with torch.device("meta"):
        head = SegmentationHead(
            3 * dim,
            num_classes=50,
            num_categories=16,
            label_dim=64,
            propagation_dims=[4 * dim, 1024],
            hidden_dims=[512, 256],
            dropout=0.5,
        )
    sizes = [tuple(layer.weight.shape) for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(64, 16), (4 * dim, first), (1024, 4 * dim), (512, joined), (256, 512), (50, 256)]


def test_the_head_reads_normalized_tokens_of_the_taps() -> None:
    model = segmenter().eval()
    points, category = clouds()
    after: list[Tensor] = []
    for tap in (0, 2, 3):
        model.blocks[tap].register_forward_hook(lambda block, given, out: after.append(out))
    logits = model(points, category)
    assert logits.shape == (3, 40, 5)
    features = torch.cat([model.norm(tap) for tap in after], dim=2)
    centers = model.tokenizer(points).centers
    torch.testing.assert_close(logits, model.head(points, centers, features, category))


def test_gradients_reach_every_tap_and_every_parameter() -> None:
    model = segmenter(drop_path=0.1).train()
    points, category = clouds()
    model(points, category).square().sum().backward()
    features = torch.randn(3, 6, 48, requires_grad=True)
    model.head(points, points[:, :6], features, category).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert (features.grad.unflatten(2, (3, 16)).abs().sum((0, 1, 3)) > 0).all()


def test_the_category_changes_the_logits_and_is_optional_for_one_category() -> None:
    points, category = clouds()
    model = segmenter().eval()
    assert not torch.allclose(model(points, category), model(points, (category + 1) % 3))
    alone = segmenter(num_categories=0, label_dim=0).eval()
    assert not any(name.startswith("head.label") for name in alone.state_dict())
    assert alone(points).shape == (3, 40, 5)


def test_a_merged_segmenter_equals_the_attached_one_without_pathways() -> None:
    plain = segmenter().eval()
    attached = segmenter().eval()
    auxiliary = build_encoder("image", input={"image_size": 8}, tokenizer={"patch_size": 4}, backbone=BODY)
    attach(attached.blocks, auxiliary.blocks, scale_init=0.3)
    points, category = clouds()
    before = attached(points, category)
    assert len(scales(attached)) == 16 and not torch.allclose(before, plain(points, category), atol=1e-3)
    merged = merge(attached)
    torch.testing.assert_close(merged(points, category), before, atol=1e-5, rtol=1e-5)
    assert list(merged.state_dict()) == list(plain.state_dict())


def test_a_pretrained_encoder_with_other_groups_loads_all_but_the_head() -> None:
    encoder = build_encoder(
        "pointcloud",
        input={"points": 30},
        tokenizer={"groups": 4, "group_size": 5, "hidden": 4},
        backbone=BODY,
    )
    nn.init.normal_(encoder.norm.weight)
    model = segmenter()
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    state = to_exchange(encoder.state_dict())
    load_exchange(model, state, parts=model.pretrained_parts)
    assert all(torch.equal(value, to_exchange(model.state_dict())[name]) for name, value in state.items())
    assert all(torch.equal(value, model.head.state_dict()[name]) for name, value in head.items())


@pytest.mark.parametrize("taps", [[], [2, 0, 3], [0, 0, 3], [0, 1], [1, 4], [-1, 3]])
def test_taps_are_ascending_and_end_with_the_last_block(taps: list[int]) -> None:
    with pytest.raises(InputError, match=r"model\.taps: .* end with the last, 3"):
        segmenter(taps=taps)


def test_an_encoder_of_images_is_rejected() -> None:
    with pytest.raises(InputError, match="needs an encoder of point clouds"):
        build_part_segmenter(
            "image",
            input={"image_size": 8},
            tokenizer={"patch_size": 4},
            backbone=BODY,
            num_classes=5,
            taps=[3],
            **HEAD,
        )


def test_training_learns_to_separate_halves_of_a_cloud() -> None:
    points = torch.randn(8, 40, 3, generator=torch.Generator().manual_seed(0))
    labels = (points[..., 0] > 0).long()
    model = segmenter(num_classes=2, num_categories=0, label_dim=0, dropout=0.0)
    task = PartSegmentation({"A": range(0, 2), "B": range(2, 5)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = [points, None, labels]
    history = []
    for _ in range(30):
        value, _ = task.loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
    assert history[-1] < 0.3 * history[0]
