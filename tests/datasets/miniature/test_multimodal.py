"""The miniatures with several modalities: same bytes, disjoint splits, no problems, paired by class."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from m2pt.datasets import avmnist, cremad, urfunny
from m2pt.datasets.miniature import avmnist as avmnist_miniature
from m2pt.datasets.miniature import cremad as cremad_miniature
from m2pt.datasets.miniature import urfunny as urfunny_miniature
from m2pt.datasets.miniature.spectra import log_spectrogram
from m2pt.datasets.miniature.staging import RECORD
from m2pt.datasets.miniature.urfunny import word_features
from m2pt.errors import InputError

REPOSITORY = Path(__file__).parents[3]

MODULES: dict[str, tuple[Any, Any]] = {
    "avmnist": (avmnist, avmnist_miniature),
    "cremad": (cremad, cremad_miniature),
    "urfunny": (urfunny, urfunny_miniature),
}
SIZES: dict[str, dict[str, Any]] = {
    "avmnist": {"train": 100, "test": 40, "side": 16},
    "cremad": {"train": 60, "test": 24, "size": 32, "seconds": 0.25},
    "urfunny": {"train": 20, "valid": 6, "test": 10},
}
COUNTS = {
    "avmnist": {"train": 90, "val": 10, "test": 40},
    "cremad": {"train": 54, "val": 6, "test": 24},
    "urfunny": {"train": 20, "val": 6, "test": 10},
}
CLASSES = {"avmnist": 10, "cremad": 6, "urfunny": 2}
INPUTS: dict[str, dict[str, Any]] = {
    "avmnist": {"audio_size": 16, "held_out": 0.2},
    "cremad": {
        "image_size": 32,
        "sample_rate": 8000,
        "seconds": 0.25,
        "n_fft": 128,
        "hop": 64,
        "held_out": 0.2,
    },
    "urfunny": {"text": 24, "audio": 16, "video": 32},
}


@pytest.fixture(scope="module", params=list(SIZES))
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def root(layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multimodal") / layout
    MODULES[layout][1].build(root, seed=1, **SIZES[layout])
    return root


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def samples(layout: str, root: Path, split: str) -> list[tuple[dict[str, torch.Tensor], int]]:
    reader = MODULES[layout][0].Reader(root, split, num_classes=CLASSES[layout], **INPUTS[layout])
    items = [reader[index] for index in range(len(reader))]
    return [
        ({name: each["values"] if isinstance(each, dict) else each for name, each in inputs.items()}, label)
        for inputs, label in items
    ]


def test_the_same_seed_gives_the_same_bytes(layout: str, root: Path, tmp_path: Path) -> None:
    MODULES[layout][1].build(tmp_path / "again", seed=1, **SIZES[layout])
    assert digests(tmp_path / "again") == digests(root)
    assert not list(tmp_path.glob(".*")), "nothing temporary is left"
    MODULES[layout][1].build(tmp_path / "again", seed=2, **SIZES[layout])
    assert digests(tmp_path / "again") != digests(root)


def test_the_dataset_is_sound_and_complete(layout: str, root: Path) -> None:
    module = MODULES[layout][0]
    assert module.check(root, num_classes=CLASSES[layout], full=True) == []
    assert module.counts(root) == COUNTS[layout]
    assert len(module.classes(root)) == CLASSES[layout]
    assert set(module.files(root)) | {root / RECORD} == {path for path in root.rglob("*") if path.is_file()}


def test_the_splits_share_neither_sources_nor_samples(layout: str, root: Path) -> None:
    sources = json.loads((root / RECORD).read_text())["sources"]
    lists = [set(names) for names in sources.values()]
    assert all(lists) and len(set.union(*lists)) == sum(map(len, lists))
    for modality in samples(layout, root, "val")[0][0]:
        contents = [
            {inputs[modality].numpy().tobytes() for inputs, _ in samples(layout, root, split)}
            for split in ("train", "val", "test")
        ]
        assert all(contents) and len(set.union(*contents)) == sum(map(len, contents))


def test_every_sample_is_finite_and_not_constant_and_classes_are_balanced(layout: str, root: Path) -> None:
    for split in ("train", "val", "test"):
        items = samples(layout, root, split)
        for inputs, _ in items:
            for values in inputs.values():
                assert values.dtype == torch.float32 and values.isfinite().all() and values.std() > 0.02
        labels = np.bincount([label for _, label in items], minlength=CLASSES[layout])
        assert labels.min() == labels.max() > 0


@pytest.mark.parametrize(
    ("layout", "modality"), [("avmnist", "image"), ("avmnist", "audio")], indirect=["layout"]
)
def test_both_modalities_carry_the_class(layout: str, modality: str, tmp_path: Path) -> None:
    """The nearest class mean of the training samples is right more often than by chance, by five sigma."""
    avmnist_miniature.build(tmp_path / "a", seed=0, train=400, test=200, side=16)
    train, test = (samples("avmnist", tmp_path / "a", split) for split in ("train", "test"))
    means = torch.stack(
        [torch.stack([inputs[modality] for inputs, label in train if label == k]).mean(0) for k in range(10)]
    )
    distances = torch.stack([(inputs[modality] - means).square().flatten(1).sum(1) for inputs, _ in test])
    hits = distances.argmin(1).eq(torch.tensor([label for _, label in test])).float().mean()
    assert hits > 0.1 + 5 * (0.1 * 0.9 / 200) ** 0.5


def test_noise_roughens_images_and_fills_the_pauses_of_sounds(tmp_path: Path) -> None:
    images, sounds = [], []
    for noise in (0.0, 1.0):
        root = tmp_path / str(noise)
        noises = {"image_noise": noise, "audio_noise": noise}
        avmnist_miniature.build(root, seed=0, train=100, test=20, side=16, **noises)
        images.append(np.load(root / "image/test_data.npy").reshape(20, 28, 28).astype(float))
        sounds.append(np.load(root / "audio/test_data.npy"))
    assert images[0][:, 0, 0].std() == 0 and images[1][:, 0, 0].std() > 30, "the corner has no digit"
    assert (sounds[0] == 0).mean() > 5 * (sounds[1] == 0).mean(), "black is silence"


@pytest.mark.parametrize("frequency", [500, 2000])
def test_a_tone_is_in_the_bin_of_its_frequency(frequency: float) -> None:
    sound = np.sin(2 * np.pi * frequency * np.arange(8000) / 16_000).astype(np.float32)
    levels = log_spectrogram(sound, rate=16_000, bins=32, steps=10)
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    width = (mel(8000) - mel(20)) / 33
    expected = (mel(frequency) - mel(20)) / width - 1
    assert levels.shape == (32, 10) and levels.max() == 0
    assert np.abs(levels.argmax(axis=0) - expected).max() <= 1


def test_words_are_told_apart_by_their_features() -> None:
    words = ["estimator", "cluster", "kernel", "the", "a"]
    features = np.array([word_features(word) for word in words])
    assert features.shape == (5, 24) and set(np.unique(features)) == {-1, 1}
    assert len({tuple(row) for row in features}) == 5
    assert word_features("kernel") == tuple(features[2])


def test_more_text_than_there_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"have \d+ paragraphs for label \d of train, not"):
        urfunny_miniature.build(tmp_path / "a", seed=0, train=100_000)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("recipe", ["avmnist_late", "avmnist_early", "cremad_late", "cremad_early"])
def test_the_recipes_hold_out_the_share_whose_sources_are_apart(recipe: str) -> None:
    settings = yaml.safe_load((REPOSITORY / f"config/recipes/mini/{recipe}.yaml").read_text())
    build = MODULES[recipe.split("_")[0]][1].build
    assert settings["input"]["held_out"] == inspect.signature(build).parameters["held_out"].default
