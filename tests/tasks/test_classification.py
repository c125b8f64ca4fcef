"""Classification loss and accuracy against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from classification_tasks import classification, classification_loss
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from m2pt.errors import InputError
from m2pt.tasks import evaluation
from m2pt.tasks.target import largest_difference

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """A linear classifier of images (B, 3, 4, 4) that remembers its last input."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(48, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.clone()
        return self.linear(x.flatten(1))


def cross_entropy(logits: torch.Tensor, targets: np.ndarray) -> float:
    values = logits.detach().double().numpy()
    log_probability = values - np.log(np.exp(values).sum(1, keepdims=True))
    return float(-(targets * log_probability).sum(1).mean())


def smooth(labels: torch.Tensor, num_classes: int, smoothing: float) -> np.ndarray:
    return np.eye(num_classes)[labels] * (1 - smoothing) + smoothing / num_classes


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 4, 4, generator=generator)
    return images, torch.tensor([0, 3, 1, 2, 3, 4])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_plain_loss_is_smoothed_cross_entropy(batch, smoothing):
    model = Recorder(5)
    loss, logged = classification_loss(5, smoothing=smoothing)(model, batch)
    expected = cross_entropy(model(batch[0]), smooth(batch[1], 5, smoothing))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logged == {}


def test_mixup_blends_images_and_smoothed_labels_alike(batch):
    model, images = Recorder(5), batch[0].clone()
    np.random.seed(3)
    loss, _ = classification_loss(5, mixup=0.8, smoothing=0.1)(model, batch)
    # seen = share * image + (1 - share) * flipped: solve for the share
    apart, moved = (images - images.flip(0)).flatten(), (model.seen - images.flip(0)).flatten()
    share = float(apart @ moved / (apart @ apart))
    assert 0.1 < share < 0.9
    torch.testing.assert_close(model.seen, share * images + (1 - share) * images.flip(0))
    labels = batch[1]
    targets = share * smooth(labels, 5, 0.1) + (1 - share) * smooth(labels.flip(0), 5, 0.1)
    assert loss.item() == pytest.approx(cross_entropy(model(model.seen), targets), rel=1e-4)


def test_cutmix_counts_labels_by_area(batch):
    model, images = Recorder(5), batch[0].clone()
    np.random.seed(3)
    loss, _ = classification_loss(5, cutmix=1.0)(model, batch)
    own = (model.seen == images).float().mean().item()
    assert 0 < own < 1
    assert bool(((model.seen == images) | (model.seen == images.flip(0))).all())
    labels = batch[1]
    targets = own * smooth(labels, 5, 0) + (1 - own) * smooth(labels.flip(0), 5, 0)
    assert loss.item() == pytest.approx(cross_entropy(model(model.seen), targets), rel=1e-5)


def test_mixing_follows_numpys_global_generator(batch):
    model, mixing = Recorder(5), classification_loss(5, mixup=0.8, cutmix=1.0)
    losses = []
    for seed in (7, 7, 8):
        np.random.seed(seed)
        losses.append(mixing(model, (batch[0].clone(), batch[1]))[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_mixing_an_odd_batch_is_rejected(batch):
    with pytest.raises(InputError, match="even size, not 5"):
        classification_loss(5, mixup=0.8)(Recorder(5), (batch[0][:5], batch[1][:5]))


@pytest.mark.parametrize("num_classes", [4, 9])
def test_accuracy_is_scikit_learns_over_uneven_batches(num_classes):
    torch.manual_seed(0)
    model = Recorder(num_classes)
    images, labels = torch.randn(23, 3, 4, 4), torch.arange(23) % num_classes
    loader = list(zip(images.split(10), labels.split(10), strict=True))
    metrics = evaluation.evaluate(classification(num_classes), model, loader, CPU)
    logits = model(images).detach().numpy()
    expected = {"top1": 1, "top5": 5} if num_classes > 5 else {"top1": 1}
    assert set(metrics) == set(expected)
    for name, k in expected.items():
        score = top_k_accuracy_score(labels, logits, k=k, labels=np.arange(num_classes))
        assert metrics[name] == pytest.approx(100 * score)


def test_evaluation_does_not_change_batch_statistics():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 3))
    evaluation.evaluate(
        classification(3), model, [(torch.randn(4, 3, 4, 4), torch.zeros(4, dtype=torch.long))], CPU
    )
    assert model[1].num_batches_tracked == 0


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(InputError, match="empty"):
        evaluation.evaluate(classification(3), Recorder(3), [], CPU)


def test_the_difference_of_two_models_is_relative_to_the_largest_logit(batch):
    one, other = Recorder(5), Recorder(5)
    other.load_state_dict(one.state_dict())
    assert largest_difference(classification(5), one, other, [batch], CPU) == 0
    other.linear.bias.data[2] += 0.25
    expected = 0.25 / one(batch[0]).abs().max().item()
    assert largest_difference(classification(5), one, other, [batch], CPU) == pytest.approx(
        expected, rel=1e-4
    )
