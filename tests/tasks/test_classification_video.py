"""Video classification: mixing, batches and multi-view accuracy, against loops over single views."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from classification_tasks import classification
from scipy.special import softmax
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torch.nn import functional

from m2pt.config.recipes import task_recipe
from m2pt.config.strict import validate
from m2pt.datasets import kinetics
from m2pt.datasets.augmentations import MultiView
from m2pt.datasets.images import MEAN, STD
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.models.classifier import build_classifier
from m2pt.tasks import evaluation
from m2pt.training.loading import evaluation_loader
from m2pt.training.settings import TrainingSettings

CPU = torch.device("cpu")
INPUT = {"frames": 4, "stride": 2, "image_size": 16}
RECIPES = sorted(Path("config/recipes").glob("*/kinetics_tune.yaml"))


class Recorder(nn.Module):
    """A linear classifier of clips (B, 3, 2, 4, 4) that remembers its last input."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(96, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.clone()
        return self.linear(x.flatten(1))


class Given(nn.Module):
    """The first values of a clip (B, 3, T, H, W) are its logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, : self.classes]


def clips_of(logits: torch.Tensor) -> torch.Tensor:
    """Clips (..., 3, 1, 2, 2) of which `Given` makes these logits (..., at most 12)."""
    return functional.pad(logits, (0, 12 - logits.shape[-1])).unflatten(-1, (3, 1, 2, 2))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    clips = torch.randn(6, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    return clips, torch.tensor([0, 3, 1, 2, 3, 4])


def cross_entropy(logits: torch.Tensor, targets: np.ndarray) -> float:
    return float(-(targets * np.log(softmax(logits.detach().double().numpy(), axis=1))).sum(1).mean())


def test_the_loss_is_smoothed_cross_entropy(batch):
    model = Recorder()
    loss, logged = classification(5, smoothing=0.1).loss(model, batch)
    expected = cross_entropy(model(batch[0]), np.eye(5)[batch[1]] * 0.9 + 0.1 / 5)
    assert loss.item() == pytest.approx(expected, rel=1e-5) and logged == {}


def test_mixup_blends_whole_clips(batch):
    model, clips = Recorder(), batch[0].clone()
    np.random.seed(3)
    loss, _ = classification(5, mixup=0.8).loss(model, batch)
    apart, moved = (clips - clips.flip(0)).flatten(), (model.seen - clips.flip(0)).flatten()
    share = float(apart @ moved / (apart @ apart))
    assert 0.1 < share < 0.9
    torch.testing.assert_close(model.seen, share * clips + (1 - share) * clips.flip(0))
    labels = np.eye(5)[batch[1]]
    targets = share * labels + (1 - share) * labels[::-1]
    assert loss.item() == pytest.approx(cross_entropy(model(model.seen), targets), rel=1e-4)


def test_cutmix_cuts_the_same_rows_and_columns_from_all_frames(batch):
    boxes = set()
    for seed in range(8):
        model, clips = Recorder(), batch[0].clone()
        np.random.seed(seed)
        loss, _ = classification(5, cutmix=1.0).loss(model, (clips.clone(), batch[1]))
        foreign = model.seen != clips
        assert bool((~foreign | (model.seen == clips.flip(0))).all())
        box = foreign[0, 0, 0]
        assert torch.equal(foreign, box.expand_as(foreign)), "every clip, channel and frame"
        own = 1 - box.float().mean().item()
        labels = np.eye(5)[batch[1]]
        targets = own * labels + (1 - own) * labels[::-1]
        assert loss.item() == pytest.approx(cross_entropy(model(model.seen), targets), rel=1e-5)
        boxes.add(tuple(box.flatten().tolist()))
    assert len(boxes) > 4


def test_repeated_samples_become_a_larger_batch():
    collate = classification(5).collate
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 1, 2, 2)
    inputs, labels = collate([[(clips[0], 2), (clips[1], 2)], [(clips[2], 4), (clips[3], 4)]])
    assert torch.equal(inputs, clips) and labels.tolist() == [2, 2, 4, 4]
    inputs, labels = collate([(clips[0], 2), (clips[2], 4)])
    assert torch.equal(inputs, clips[[0, 2]]) and labels.tolist() == [2, 4]
    inputs, labels = collate([(clips[:2], 2), (clips[2:], 4)])
    assert torch.equal(inputs, clips.view(2, 2, 3, 1, 2, 2)) and labels.tolist() == [2, 4]


def test_views_are_predicted_as_if_each_were_alone(batch):
    model, task = Recorder(), classification(5)
    views = batch[0].view(2, 3, 3, 2, 4, 4)
    alone = torch.stack([model(views[:, view]) for view in range(3)], dim=1)
    assert alone.shape == (2, 3, 5)
    torch.testing.assert_close(task.predict(model, [views, batch[1][:2]]), alone)
    torch.testing.assert_close(task.predict(model, batch), alone.flatten(0, 1))


def test_probabilities_are_averaged_and_not_logits():
    """One view is very sure of class 0, two are rather for class 1."""
    logits = torch.tensor([[12.0, 0], [0, 2], [0, 2]])
    assert logits.mean(0).argmax() == 0 and softmax(logits.numpy(), axis=1).mean(0).argmax() == 1
    views = clips_of(logits).unsqueeze(0)
    assert evaluation.evaluate(classification(2), Given(2), [(views, torch.tensor([1]))], CPU) == {
        "top1": 100
    }
    assert evaluation.evaluate(classification(2), Given(2), [(views, torch.tensor([0]))], CPU) == {"top1": 0}


@pytest.mark.parametrize("num_classes", [4, 9])
@pytest.mark.parametrize("views", [1, 3])
def test_accuracy_is_scikit_learns_over_uneven_batches(num_classes, views):
    logits = 3 * torch.randn(23, views, num_classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(23) % num_classes
    inputs = clips_of(logits) if views > 1 else clips_of(logits[:, 0])
    loader = list(zip(inputs.split(10), labels.split(10), strict=True))
    metrics = evaluation.evaluate(classification(num_classes), Given(num_classes), loader, CPU)
    scores = softmax(logits.double().numpy(), axis=2).mean(1)
    expected = {"top1": 1, "top5": 5} if num_classes > 5 else {"top1": 1}
    assert set(metrics) == set(expected)
    for name, k in expected.items():
        score = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(num_classes))
        assert metrics[name] == pytest.approx(100 * score)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(InputError, match="empty"):
        evaluation.evaluate(classification(2), Given(2), [], CPU)


def decoded(path: Path) -> torch.Tensor:
    """All frames of a video, float64 (N, 3, H, W) in [0, 1]."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).double() / 255


def test_multi_view_evaluation_is_a_loop_over_single_views(built):
    """Each of the 2 x 3 views of a video is decoded, scaled, cut and classified by itself."""
    root = built("kinetics", train=8, val=8, frames=24, size=24)
    mean, std = (torch.tensor(values).double().view(3, 1, 1, 1) for values in (MEAN, STD))
    torch.manual_seed(0)
    model = build_classifier(
        "video",
        input=INPUT,
        tokenizer={"patch_size": 8, "tubelet_size": 2},
        backbone={"dim": 16, "depth": 1, "num_heads": 2},
        num_classes=8,
        pool="avg",
        head="linear",
    ).eval()
    nn.init.normal_(model.head.weight)
    scores, labels = [], []
    for line in (root / "val.csv").read_text().splitlines():
        name, label = line.split()
        probabilities = []
        for start in (0, 8):  # 24 frames: 12 kept, windows of 4
            for left in (0, 2, 5):  # 24 x 32 pixels: 16 x 21 scaled
                kept = decoded(root / name)[::2][start : start + 4]
                scaled = functional.interpolate(kept, (16, 21), mode="bilinear", antialias=True)
                clip = (scaled[..., left : left + 16].transpose(0, 1) - mean) / std
                with torch.no_grad():
                    logits = model(clip.unsqueeze(0).float())[0]
                probabilities.append(softmax(logits.double().numpy()))
        scores.append(np.mean(probabilities, axis=0))
        labels.append(int(label))
    reader = kinetics.Reader(root, "val", num_classes=8, **INPUT, views=MultiView(clips=2, crops=3))
    task = classification(8)
    loader = evaluation_loader(reader, 3, 0, task.collate)
    with torch.no_grad():
        predicted = torch.cat([task.predict(model, batch) for batch in loader]).softmax(-1).mean(1)
    np.testing.assert_allclose(predicted, scores, atol=5e-3)  # the reader scales uint8, which rounds
    metrics = evaluation.evaluate(task, model, loader, CPU)
    for metric, k in (("top1", 1), ("top5", 5)):
        score = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(8))
        assert metrics[metric] == pytest.approx(100 * score)


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_recipes_fit_the_reader_and_the_task(path, built):
    recipe = validate(task_recipe("classification", "kinetics"), read_yaml(path), str(path))
    root = built("kinetics", train=8, val=8, frames=12, size=24)
    settings = {"num_classes": 8, **INPUT}
    train = kinetics.Reader(root, "train", **settings, augmentation=recipe.augmentation)
    val = kinetics.Reader(root, "val", **settings, views=recipe.evaluation)
    task = classification(8, **recipe.mix.model_dump())
    inputs, labels = task.collate([train[0], train[1]])
    assert inputs.shape == (2 * recipe.augmentation.samples, 3, 4, 16, 16) and len(labels) == len(inputs)
    assert val[0][0].shape[0] == recipe.evaluation.clips * recipe.evaluation.crops
    assert task.loss(lambda x: x.flatten(1)[:, :8], (inputs, labels))[0].isfinite()


def test_the_papers_recipe_is_that_of_videomae():
    recipe = read_yaml(Path("config/recipes/paper/kinetics_tune.yaml"))
    settings = TrainingSettings(**recipe["training"])
    assert settings.effective_batch() == 384, "videos: their two repetitions do not count"
    assert settings.peak_lr() == pytest.approx(7.5e-4)


@pytest.mark.parametrize("change", [{"auto_augment": "augmix-m3"}, {"samples": 0}, {"flip": 0.5}])
def test_a_wrong_augmentation_is_refused(change):
    with pytest.raises(InputError, match=rf"augmentation\.{next(iter(change))}"):
        recipe = {"training": {"epochs": 1, "batch_size": 2, "lr": 1.0}, "augmentation": change}
        validate(task_recipe("classification", "kinetics"), recipe, "here.yaml")
