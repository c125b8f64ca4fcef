"""Losses and metrics of part segmentation (ShapeNetPart, PartNet) compared with plain loops."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.errors import InputError
from m2pt.tasks import evaluation
from m2pt.tasks.part_segmentation import PartSegmentation
from m2pt.tasks.point_segmentation import PointSegmentation

CPU = torch.device("cpu")


class Fixed(nn.Module):
    """Returns given logits, batch by batch, whatever its input."""

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


def test_miou_of_hand_computed_shapes() -> None:
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


def test_predictions_are_parts_of_the_true_category() -> None:
    logits = torch.tensor([[[9.0, 9, -5, -7, -6], [9, 9, -7, -5, -6]]])
    scores = evaluate_parts([logits], [torch.tensor([[2, 3]])])
    assert scores["miou_instance"] == 100


def test_ties_go_to_the_part_with_the_lower_number() -> None:
    scores = evaluate_parts([torch.zeros(1, 2, 5)], [torch.tensor([[2, 3]])])
    assert scores["miou_instance"] == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)


def loop_over_shapes(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Both mean IoUs, computed with sets of points."""
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


def test_miou_of_random_shapes_equals_a_loop() -> None:
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


def test_partnet_miou_pools_shapes_and_ignores_unlabeled_points() -> None:
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


def test_partnet_scores_of_random_shapes_equal_a_loop() -> None:
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


def test_the_partnet_loss_ignores_unlabeled_points_and_class_0() -> None:
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


def test_an_empty_or_unlabeled_split_is_an_error() -> None:
    with pytest.raises(InputError, match="the validation split is empty"):
        evaluation.evaluate(PartSegmentation(), Fixed([]), [], CPU)
    with pytest.raises(InputError, match="no labeled point"):
        evaluate_points([torch.zeros(1, 3, 4)], [torch.zeros(1, 3).long()])
    with pytest.raises(InputError, match="no labeled point"):
        evaluation.evaluate(PointSegmentation(), Fixed([]), [], CPU)
