"""Segmentation of point clouds: the net against chains of convolutions, its metrics against plain loops."""

from collections.abc import Iterator
from pathlib import Path

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
from m2pt.schema.base import read_yaml, validate
from m2pt.schema.pointcloud_recipes import PartSegmentation as PartRecipe
from m2pt.schema.pointcloud_recipes import PointSegmentation as PointRecipe
from m2pt.schema.pointcloud_recipes import check_taps
from m2pt.tasks import evaluation
from m2pt.tasks.part_segmentation import PartSegmentation
from m2pt.tasks.point_segmentation import PointSegmentation

CPU = torch.device("cpu")
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
    points, centres, features = (
        draw.normal(size=(2, 30, 3)),
        draw.normal(size=(2, 8, 3)),
        draw.normal(size=(2, 8, 5)),
    )
    weights = interpolation_weights(torch.tensor(points), torch.tensor(centres))
    carried = (weights @ torch.tensor(features)).numpy()
    assert (weights.count_nonzero(dim=2) == 3).all()
    for sample in range(2):
        distance, index = KDTree(centres[sample]).query(points[sample], k=3)
        share = 1 / distance**2
        expected = (features[sample][index] * share[..., None]).sum(1) / share.sum(1, keepdims=True)
        np.testing.assert_allclose(carried[sample], expected, rtol=1e-5, atol=1e-6)


def test_a_point_on_a_centre_takes_its_features_and_few_centres_suffice() -> None:
    centres = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    weights = interpolation_weights(torch.tensor([[[1.0, 0, 0], [0.5, 0, 0]]]), centres)
    torch.testing.assert_close(weights, torch.tensor([[[0.0, 1], [0.5, 0.5]]]))


def convolution(linear: nn.Module) -> nn.Conv1d:
    """The convolution of kernel 1 with the weights of a linear layer."""
    made = nn.Conv1d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    made.load_state_dict(
        {key: v.unsqueeze(2) if v.ndim == 2 else v for key, v in linear.state_dict().items()}
    )
    return made


def official_head(
    head: SegmentationHead, points: Tensor, centres: Tensor, features: Tensor, category: Tensor
) -> Tensor:
    """Everything repeated for every point and joined before each layer, channels first; batch statistics."""

    def layer(x: Tensor, linear: nn.Module) -> Tensor:
        return functional.relu(functional.batch_norm(convolution(linear)(x), None, None, training=True))

    size = points.shape[1]
    interpolated = interpolation_weights(points, centres) @ features
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
    centres, features = points[:, :6], torch.randn(3, 6, 24)
    expected = official_head(head, points, centres, features, category)
    torch.testing.assert_close(head(points, centres, features, category), expected, atol=1e-5, rtol=1e-4)


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


def test_the_net_reads_normalised_tokens_after_the_blocks_of_the_taps() -> None:
    model = segmenter().eval()
    points, category = clouds()
    after: list[Tensor] = []
    for tap in (0, 2, 3):
        model.blocks[tap].register_forward_hook(lambda block, given, out: after.append(out))
    logits = model(points, category)
    assert logits.shape == (3, 40, 5)
    features = torch.cat([model.norm(tap) for tap in after], dim=2)
    centres = model.tokenizer(points).centres
    torch.testing.assert_close(logits, model.head(points, centres, features, category))


def test_gradients_reach_every_tap_and_every_parameter() -> None:
    model = segmenter(drop_path=0.1).train()
    points, category = clouds()
    model(points, category).square().sum().backward()
    features = torch.randn(3, 6, 48, requires_grad=True)
    model.head(points, points[:, :6], features, category).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert (features.grad.unflatten(2, (3, 16)).abs().sum((0, 1, 3)) > 0).all()


def test_the_category_tells_and_is_not_asked_of_a_net_for_one_category() -> None:
    points, category = clouds()
    model = segmenter().eval()
    assert not torch.allclose(model(points, category), model(points, (category + 1) % 3))
    alone = segmenter(num_categories=0, label_dim=0).eval()
    assert not any(name.startswith("head.label") for name in alone.state_dict())
    assert alone(points).shape == (3, 40, 5)


def test_a_merged_segmenter_is_the_attached_one_without_the_pathways() -> None:
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


def test_a_pretrained_encoder_with_other_groups_gives_all_but_the_head() -> None:
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


def test_only_point_clouds_are_segmented() -> None:
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


class Fixed(nn.Module):
    """Gives the same logits, batch after batch, whatever it is asked."""

    def __init__(self, batches: list[Tensor]) -> None:
        super().__init__()
        self.batches: Iterator[Tensor] = iter(batches)

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        return next(self.batches)


def one_hot(parts: list[list[int]], number: int) -> Tensor:
    return functional.one_hot(torch.tensor(parts), number).float()


TWO = {"A": range(0, 2), "B": range(2, 5)}


def evaluate_parts(logits: list[Tensor], labels: list[Tensor]) -> dict[str, float]:
    loader = [[torch.zeros(*label.shape, 3), torch.zeros(len(label)).long(), label] for label in labels]
    return evaluation.evaluate(PartSegmentation(TWO), Fixed(logits), loader, CPU)


def test_miou_of_hand_made_shapes() -> None:
    """The first shape has IoU 2/3 and 1/2; the second 3/4, 0 for a part only predicted, 1 if absent."""
    labels = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2], [3, 3, 4, 4]])
    predicted = one_hot([[0, 0, 0, 1], [2, 2, 2, 3], [3, 3, 4, 4]], 5)
    scores = evaluate_parts([predicted[:2], predicted[2:]], [labels[:2], labels[2:]])
    first, second, third = (2 / 3 + 1 / 2) / 2, (3 / 4 + 0 + 1) / 3, 1
    assert scores["miou_instance"] == pytest.approx(100 * (first + second + third) / 3)
    assert scores["miou_class"] == pytest.approx(100 * (first + (second + third) / 2) / 2)
    assert scores["point_accuracy"] == pytest.approx(100 * 10 / 12)


def test_a_part_absent_from_truth_and_prediction_counts_1() -> None:
    scores = evaluate_parts([one_hot([[2, 2]], 5)], [torch.tensor([[2, 2]])])
    assert scores == {"miou_class": 100, "miou_instance": 100, "point_accuracy": 100}


def test_the_choice_is_among_the_parts_of_the_true_category() -> None:
    logits = torch.tensor([[[9.0, 9, -5, -7, -6], [9, 9, -7, -5, -6]]])
    scores = evaluate_parts([logits], [torch.tensor([[2, 3]])])
    assert scores["miou_instance"] == 100


def test_a_tie_goes_to_the_part_of_the_lower_number() -> None:
    scores = evaluate_parts([torch.zeros(1, 2, 5)], [torch.tensor([[2, 3]])])
    assert scores["miou_instance"] == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)


def loop_over_shapes(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Both mean IoU, written out with sets of points."""
    per_category: dict[str, list[float]] = {}
    for scores, truth in zip(logits, labels, strict=True):
        name, parts = next((name, parts) for name, parts in TWO.items() if truth[0] in parts)
        chosen = [max(parts, key=lambda part: scores[point, part]) for point in range(len(truth))]
        ious = []
        for part in parts:
            true = {point for point, value in enumerate(truth) if value == part}
            found = {point for point, value in enumerate(chosen) if value == part}
            ious.append(len(true & found) / len(true | found) if true | found else 1.0)
        per_category.setdefault(name, []).append(sum(ious) / len(ious))
    everything = [iou for values in per_category.values() for iou in values]
    means = [sum(values) / len(values) for values in per_category.values()]
    return sum(means) / len(means), sum(everything) / len(everything)


def test_miou_of_random_shapes_is_that_of_a_loop() -> None:
    draw = np.random.default_rng(0)
    owners = draw.integers(0, 2, 40)
    labels = np.stack([draw.integers(*((0, 2) if owner == 0 else (2, 5)), 6) for owner in owners])
    logits = draw.normal(size=(40, 6, 5)).round(0)  # rounded: many ties
    batches = [(torch.tensor(logits[i : i + 7]), torch.tensor(labels[i : i + 7])) for i in range(0, 40, 7)]
    scores = evaluate_parts([batch[0] for batch in batches], [batch[1] for batch in batches])
    by_class, by_instance = loop_over_shapes(logits, labels)
    assert scores["miou_class"] == pytest.approx(100 * by_class)
    assert scores["miou_instance"] == pytest.approx(100 * by_instance)


def test_the_loss_is_the_cross_entropy_over_all_parts() -> None:
    logits = torch.randn(2, 4, 5, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 1, 0], [2, 3, 4, 4]])
    value, others = PartSegmentation(TWO).loss(Fixed([logits]), [logits, labels[:, 0], labels])
    probability = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(2, keepdims=True)
    expected = -np.mean([np.log(probability[i, j, labels[i, j]]) for i in range(2) for j in range(4)])
    assert value.item() == pytest.approx(expected) and others == {}


def test_official_parts_are_the_default() -> None:
    task = PartSegmentation()
    assert task.members.shape == (16, 50) and task.members.sum(1).tolist()[:5] == [4, 2, 2, 4, 4]
    assert task.collate is None


def evaluate_points(logits: list[Tensor], labels: list[Tensor]) -> dict[str, float]:
    loader = [[torch.zeros(*label.shape, 3), label] for label in labels]
    return evaluation.evaluate(PointSegmentation(), Fixed(logits), loader, CPU)


def test_partnet_miou_pools_shapes_and_ignores_unlabelled_points() -> None:
    """Class 1: 3 of 4 points of both shapes; class 2: 1 of 3 (one predicted wrongly); class 3: nowhere."""
    labels = torch.tensor([[1, 1, 2, 0], [1, 2, 0, 0]])
    predicted = one_hot([[1, 1, 2, 3], [1, 1, 1, 2]], 4)
    scores = evaluate_points([predicted[:1], predicted[1:]], [labels[:1], labels[1:]])
    assert scores["miou"] == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    assert scores["shape_miou"] == pytest.approx(100 * (1 + (1 / 2 + 0) / 2) / 2)
    assert scores["point_accuracy"] == pytest.approx(100 * 4 / 5)


def test_class_0_is_never_predicted_and_a_class_that_is_only_predicted_counts_0() -> None:
    logits = torch.tensor([[[9.0, 1, 0, 0], [9, 0, 0, 1]]])
    scores = evaluate_points([logits], [torch.tensor([[1, 1]])])
    assert scores["miou"] == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert scores["point_accuracy"] == 50


def test_partnet_scores_of_random_shapes_are_those_of_a_loop() -> None:
    draw = np.random.default_rng(0)
    labels, logits = draw.integers(0, 4, (20, 5)), draw.normal(size=(20, 5, 4)).round(0)
    labels[3] = 0
    pooled = {part: [0, 0] for part in (1, 2, 3)}
    shapes, hits, known = [], 0, 0
    for scores, truth in zip(logits, labels, strict=True):
        chosen = [max((1, 2, 3), key=lambda part: row[part]) for row in scores]
        ious = []
        for part in (1, 2, 3):
            both = sum(t == c == part for t, c in zip(truth, chosen, strict=True))
            either = sum(t != 0 and part in (t, c) for t, c in zip(truth, chosen, strict=True))
            pooled[part] = [pooled[part][0] + both, pooled[part][1] + either]
            ious += [both / either] if either else []
        shapes += [np.mean(ious)] if ious else []
        hits += sum(t == c for t, c in zip(truth, chosen, strict=True))
        known += sum(t != 0 for t in truth)
    found = evaluate_points(
        [torch.tensor(logits[:11]), torch.tensor(logits[11:])],
        [torch.tensor(labels[:11]), torch.tensor(labels[11:])],
    )
    assert found["miou"] == pytest.approx(100 * np.mean([both / either for both, either in pooled.values()]))
    assert found["shape_miou"] == pytest.approx(100 * np.mean(shapes)) and len(shapes) == 19
    assert found["point_accuracy"] == pytest.approx(100 * hits / known)


def test_the_partnet_loss_leaves_out_unlabelled_points_and_class_0() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 0, 3], [0, 0, 2]])
    value, _ = PointSegmentation().loss(Fixed([logits]), [logits, labels])
    raw = logits.detach().numpy()
    share = np.exp(raw[..., 1:]) / np.exp(raw[..., 1:]).sum(2, keepdims=True)
    expected = -np.mean([np.log(share[i, j, labels[i, j] - 1]) for i, j in ((0, 0), (0, 2), (1, 2))])
    assert value.item() == pytest.approx(expected)
    value.backward()
    assert not logits.grad[labels == 0].any() and not logits.grad[..., 0].any()
    nothing, _ = PointSegmentation().loss(Fixed([logits]), [logits, torch.zeros_like(labels)])
    assert nothing.item() == 0


def test_there_must_be_something_to_evaluate() -> None:
    with pytest.raises(InputError, match="the validation split is empty"):
        evaluation.evaluate(PartSegmentation(), Fixed([]), [], CPU)
    with pytest.raises(InputError, match="no labelled point"):
        evaluate_points([torch.zeros(1, 3, 4)], [torch.zeros(1, 3).long()])
    with pytest.raises(InputError, match="no labelled point"):
        evaluation.evaluate(PointSegmentation(), Fixed([]), [], CPU)


def test_training_learns_to_tell_halves_of_a_cloud() -> None:
    points = torch.randn(8, 40, 3, generator=torch.Generator().manual_seed(0))
    labels = (points[..., 0] > 0).long()
    model, task = segmenter(num_classes=2, num_categories=0, label_dim=0, dropout=0.0), PartSegmentation(TWO)
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


RECIPES = [
    *Path("config/recipes").glob("*/shapenetpart*.yaml"),
    *Path("config/recipes").glob("*/partnet*.yaml"),
]


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_recipes_build_a_net(path: Path) -> None:
    recipe = validate(
        PartRecipe if "part_" in path.name else PointRecipe, read_yaml(path), str(path)
    ).model_dump()
    paper = path.parent.name == "paper"
    body = {"dim": 768 if paper else 96, "depth": 12 if paper else 6, "num_heads": 6}
    with torch.device("meta"):
        model = build_part_segmenter(
            "pointcloud",
            input=recipe["input"],
            tokenizer={**recipe["tokenizer"], "hidden": 128},
            backbone=body,
            num_classes=50,
            num_categories=16 if "shapenetpart" in path.name else 0,
            **recipe["model"],
        )
    assert model.taps == [body["depth"] * third // 3 - 1 for third in (1, 2, 3)]
    assert len(RECIPES) == 6


def test_recipes_are_checked_against_points_and_blocks() -> None:
    values = read_yaml(Path("config/recipes/mini/partnet_tune.yaml"))
    recipe = validate(PointRecipe, values, "x.yaml")
    check_taps("x.yaml", recipe, 6)
    with pytest.raises(InputError, match=r"x\.yaml: model\.taps = \[1, 3, 5\]: .* the last one 11"):
        check_taps("x.yaml", recipe, 12)
    with pytest.raises(InputError, match=r"tokenizer\.groups 16 exceeds input\.points 8"):
        validate(PointRecipe, {**values, "input": {"points": 8}}, "x.yaml")
    with pytest.raises(InputError, match="label_dim: unknown key"):
        validate(PointRecipe, {**values, "model": {**values["model"], "label_dim": 4}}, "x.yaml")
