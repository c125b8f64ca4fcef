from itertools import product

import numpy as np
import pytest
import torch
from image_encoders import tiny_encoder
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

from m2pt.errors import InputError
from m2pt.models.upernet import UPerNet, build_upernet
from m2pt.tasks import evaluation, semantic_segmentation

CPU = torch.device("cpu")


def tiny_model(num_classes: int = 3, **changes: object) -> UPerNet:
    encoder = tiny_encoder(depth=4)
    settings: dict[str, object] = {
        "taps": (0, 1, 2, 3),
        "channels": 16,
        "auxiliary_channels": 8,
        "window_stride": 20,
        "dropout": 0.0,
        **changes,
    }
    return build_upernet(encoder, num_classes=num_classes, image_size=32, freeze_backbone=False, **settings)


def random_maps(num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, num_classes, (4, 9, 7), generator=generator)
    predicted = torch.where(
        torch.rand(labels.shape, generator=generator) < 0.6,
        labels,
        torch.randint(0, num_classes, labels.shape, generator=generator),
    )
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return predicted, labels


def test_confusion_and_scores_agree_with_scikit_learn() -> None:
    predicted, labels = random_maps(5)
    confusion = semantic_segmentation.confusion_matrix(predicted, labels, 5)
    known = (labels != 255).numpy()
    truth, guess = labels.numpy()[known], predicted.numpy()[known]
    assert np.array_equal(confusion.numpy(), confusion_matrix(truth, guess, labels=range(5)))
    scores = semantic_segmentation.scores(confusion)
    assert scores["miou"] == pytest.approx(100 * jaccard_score(truth, guess, average="macro"))
    assert scores["pixel_accuracy"] == pytest.approx(100 * accuracy_score(truth, guess))


def test_class_in_neither_truth_nor_prediction_is_left_out_and_one_only_predicted_counts_0() -> None:
    labels, predicted = torch.tensor([0, 0, 0, 255]), torch.tensor([0, 0, 2, 1])
    scores = semantic_segmentation.scores(semantic_segmentation.confusion_matrix(predicted, labels, 4))
    assert scores["miou"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert scores["pixel_accuracy"] == pytest.approx(100 * 2 / 3)


class ByColor(nn.Module):
    """Predicts the class given by the first channel."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(images[:, 0].long(), 3).permute(0, 3, 1, 2).float()


def test_a_split_without_a_labeled_pixel_has_no_score() -> None:
    labels = torch.full((4, 4), 255)
    confusion = semantic_segmentation.confusion_matrix(torch.zeros_like(labels), labels, 3)
    with pytest.raises(InputError, match="no pixel of the validation split is labeled"):
        semantic_segmentation.SemanticSegmentation().summarize([confusion], None)


def test_evaluation_pools_all_pixels_and_resizes_predictions_to_the_labels() -> None:
    def sample(predicted: int, label: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return torch.full((3, *size), float(predicted)), label

    half = torch.zeros(8, 4, dtype=torch.int64)
    half[4:] = 2
    samples = [
        sample(0, half, (4, 2)),
        sample(1, torch.ones(2, 2, dtype=torch.int64), (2, 2)),
        sample(2, torch.full((4, 4), 2), (6, 6)),
    ]
    loader = DataLoader(samples, batch_size=2, collate_fn=semantic_segmentation.SemanticSegmentation.collate)  # type: ignore[arg-type]
    scores = evaluation.evaluate(semantic_segmentation.SemanticSegmentation(), ByColor(), loader, CPU)
    assert scores["miou"] == pytest.approx(100 * (16 / 32 + 4 / 4 + 16 / 32) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(100 * 36 / 52)


def test_loss_is_weighted_cross_entropy_averaged_over_all_pixels() -> None:
    weights = (0.2, 1.0, 3.0)
    model = tiny_model(class_weights=weights, auxiliary_weight=0.0).eval()
    images = [torch.randn(3, 32, 32) for _ in range(2)]
    labels = [torch.randint(0, 3, (32, 32)) for _ in range(2)]
    labels[0][:5] = 255
    value, parts = semantic_segmentation.SemanticSegmentation.loss(model, (images, labels))
    with torch.no_grad():
        logits = model(torch.stack(images)).double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for image, row, column in product(range(2), range(32), range(32)):
        label = int(labels[image][row, column])
        if label != 255:
            total -= weights[label] * np.log(probabilities[image, label, row, column])
    assert list(parts) == ["loss_decoder"]
    assert value.item() == pytest.approx(total / (2 * 32 * 32), rel=1e-5)


def test_crop_without_any_label_gives_no_nan() -> None:
    labels = [torch.full((32, 32), 255)] * 2
    value, _ = semantic_segmentation.SemanticSegmentation.loss(
        tiny_model().train(), ([torch.randn(3, 32, 32)] * 2, labels)
    )
    assert value.item() == 0


def test_auxiliary_head_adds_its_weighted_loss_in_training_only() -> None:
    batch = [torch.randn(3, 32, 32)] * 2, [torch.zeros(32, 32, dtype=torch.int64)] * 2
    light, heavy = (
        semantic_segmentation.SemanticSegmentation.loss(tiny_model(auxiliary_weight=weight).train(), batch)[1]
        for weight in (0.4, 0.8)
    )
    assert heavy["loss_auxiliary"].item() == pytest.approx(2 * light["loss_auxiliary"].item(), rel=1e-5)
    assert heavy["loss_decoder"].item() == pytest.approx(light["loss_decoder"].item(), rel=1e-5)
    evaluated = semantic_segmentation.SemanticSegmentation.loss(tiny_model().eval(), batch)[1]
    assert list(evaluated) == ["loss_decoder"]


def test_training_lowers_the_loss() -> None:
    model = tiny_model().train()
    image, label = torch.zeros(3, 32, 32), torch.zeros(32, 32, dtype=torch.int64)
    image[:, 8:24, 4:20], label[8:24, 4:20] = 2.0, 1
    batch = [image, image.flip(2)], [label, label.flip(1)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(60):
        value, _ = semantic_segmentation.SemanticSegmentation.loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
    assert history[-1] < 0.4 * history[0]


def test_all_four_levels_reach_the_output() -> None:
    # segmentation_models_pytorch's decoder ignores the first two features it is given
    model = tiny_model().train()
    batch = [torch.randn(3, 32, 32) for _ in range(3)], [torch.randint(0, 3, (32, 32)) for _ in range(3)]
    semantic_segmentation.SemanticSegmentation.loss(model, batch)[0].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    for level in model.decoder.feature_norms:
        assert level.weight.grad.abs().sum() > 0


class PerPixel(UPerNet):
    """Logits depend on the pixel alone, so windows must have no effect."""

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        assert images.shape[-2:] == (32, 32)
        return images.cumsum(1), None


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (50, 91), (20, 40), (8, 8)])
def test_sliding_window_covers_any_size(size: tuple[int, int]) -> None:
    model = tiny_model().eval()
    model.__class__ = PerPixel
    images = torch.randn(2, 3, *size)
    assert torch.allclose(model(images), images.cumsum(1), atol=1e-6)


def test_overlapping_windows_are_averaged() -> None:
    class Numbered(UPerNet):
        windows = 0

        def _logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
            Numbered.windows += 1
            return torch.full((1, 3, 32, 32), float(Numbered.windows)), None

    model = tiny_model().eval()
    model.__class__ = Numbered
    # 62 pixels, windows of 32 every 20: they start at 0, 20 and 30
    row = model(torch.zeros(1, 3, 32, 62))[0, 0, 0]
    starts = np.array([0, 20, 30])
    expected = [
        np.mean([number for number, start in enumerate(starts, 1) if start <= x < start + 32])
        for x in range(62)
    ]
    assert row.tolist() == pytest.approx(expected)


def test_class_weights_must_be_one_per_class() -> None:
    with pytest.raises(InputError, match="2 weights for 3 classes"):
        tiny_model(class_weights=(0.2, 1.0))


def test_windows_must_not_leave_gaps() -> None:
    with pytest.raises(InputError, match="window_stride: 33"):
        tiny_model(window_stride=33)
