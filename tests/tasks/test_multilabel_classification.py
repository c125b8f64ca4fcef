"""Multi-label classification: the loss against numpy, mAP against its definition and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from m2pt.errors import InputError
from m2pt.tasks import evaluation
from m2pt.tasks.multilabel_classification import MultilabelClassification, mean_average_precision

CPU = torch.device("cpu")


class Fixed(nn.Module):
    """Passes its input through as logits and remembers whether it was in training mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.was_training = self.training
        return x


def defined_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Sum of precision times gain in recall over the distinct scores, by counting."""
    total, found_before = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accepted = scores >= threshold
        found = int(labels[accepted].sum())
        total += found / accepted.sum() * (found - found_before) / labels.sum()
        found_before = found
    return total


def random_lists(tied: bool, clips: int = 200, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    labels = (draw.random((clips, classes)) < draw.uniform(0.02, 0.6, classes)).astype(np.float32)
    labels[0] = 1
    scores = labels + draw.normal(0, 1.5, labels.shape)
    return torch.tensor(np.round(scores) if tied else scores, dtype=torch.float32), torch.tensor(labels)


def evaluate(scores: torch.Tensor, labels: torch.Tensor, batch: int = 64) -> dict[str, float]:
    loader = list(zip(scores.split(batch), labels.split(batch), strict=True))
    return evaluation.evaluate(MultilabelClassification(labels.shape[1]), Fixed(), loader, CPU)


@pytest.mark.parametrize("tied", [False, True])
def test_map_is_the_mean_of_average_precisions(tied: bool) -> None:
    scores, labels = random_lists(tied)
    columns = list(zip(scores.numpy().T, labels.numpy().T, strict=True))
    defined = [defined_average_precision(*column) for column in columns]
    library = [average_precision_score(labels, scores) for scores, labels in columns]
    found = evaluate(scores, labels)["map"]
    assert found == pytest.approx(100 * np.mean(defined), rel=1e-6)
    assert found == pytest.approx(100 * np.mean(library), rel=1e-6)


def test_map_of_a_hand_computed_list() -> None:
    """Class 0: hits at ranks 1 and 3. Class 1: two of three share the highest score, one of them a hit."""
    scores = torch.tensor([[4.0, 2.0], [3.0, 2.0], [2.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    first = (1 / 1 + 2 / 3) / 2
    second = (1 / 2 + 2 / 3) / 2
    assert mean_average_precision(scores, labels) == pytest.approx((first + second) / 2)
    assert evaluate(scores, labels)["map"] == pytest.approx(50 * (first + second))


def test_equal_scores_give_the_share_of_positives_in_any_order() -> None:
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    for order in (range(4), reversed(range(4))):
        moved = labels[list(order)]
        assert mean_average_precision(torch.zeros(4, 2), moved) == pytest.approx((1 / 4 + 2 / 4) / 2)


def test_a_class_without_a_positive_counts_0_with_a_warning() -> None:
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    with pytest.warns(UserWarning, match="No positive class"):
        assert mean_average_precision(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), labels) == 0.5


def test_top1_counts_clips_whose_highest_score_is_one_of_the_labels() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [0.0, 9.0, 1.0], [1.0, 0.0, 2.0], [5.0, 4.0, 3.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert evaluate(scores, labels, batch=3)["top1"] == pytest.approx(50)


def test_evaluation_is_in_evaluation_mode_and_needs_clips() -> None:
    task, model = MultilabelClassification(2), Fixed()
    batch = (torch.eye(2), torch.eye(2))
    assert evaluation.evaluate(task, model, [batch], CPU) == {"map": 100, "top1": 100}
    assert not model.was_training
    with pytest.raises(InputError, match="validation split is empty"):
        evaluation.evaluate(task, model, [], CPU)


def test_predictions_are_logits() -> None:
    logits = torch.randn(4, 3)
    assert torch.equal(MultilabelClassification(3).predict(Fixed(), (logits, torch.zeros(4, 3))), logits)


def test_the_loss_is_binary_cross_entropy_of_soft_labels() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(5, 4), torch.rand(5, 4)
    loss, logged = MultilabelClassification(4).loss(Fixed(), (logits, labels))
    chance, truth = 1 / (1 + np.exp(-logits.double().numpy())), labels.double().numpy()
    expected = -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance)).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logged == {}


def test_labels_that_are_not_multi_hot_are_rejected() -> None:
    with pytest.raises(InputError, match=r"multi-hot labels \(batch, 4\).*shape \(5,\).*several labels"):
        MultilabelClassification(4).loss(Fixed(), (torch.randn(5, 4), torch.zeros(5, dtype=torch.long)))
