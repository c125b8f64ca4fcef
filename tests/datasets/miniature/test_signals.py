"""The sound, video and point cloud miniatures: same bytes, disjoint splits, no problems, seeded samples."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rebuilt import assert_seed_decides_bytes
from torch.utils.data import DataLoader

from m2pt.config.architecture import AudioInput
from m2pt.datasets import audioset as audioset_layout
from m2pt.datasets.augmentations import ClipCropAugmentation, PointcloudAugmentation, WaveformAugmentation
from m2pt.datasets.base import SeededDataset
from m2pt.datasets.layouts import layout_module, miniature_module
from m2pt.datasets.miniature import kinetics as films
from m2pt.datasets.miniature.audioset import LABELS, labeled, split_notes
from m2pt.datasets.miniature.objects import CATEGORIES
from m2pt.datasets.miniature.shapes import Arc, Box, Cone, sample_surfaces
from m2pt.datasets.miniature.soundfont import Note, load_notes, play
from m2pt.datasets.miniature.staging import RECORD

SIZES = {
    "audioset": {"train": 64, "val": 64, "seconds": 0.3},
    "kinetics": {"train": 16, "val": 16, "frames": 8, "size": 32},
    "shapenet55": {"train": 20, "val": 10, "points": 256},
}
CLASSES = {"audioset": 12, "kinetics": 8, "shapenet55": 10}
INPUTS = {
    "audioset": {
        **AudioInput(frames=32).model_dump(),
        "augmentation": WaveformAugmentation(roll_magnitude=True),
    },
    "kinetics": {
        "frames": 4,
        "stride": 1,
        "image_size": 16,
        "augmentation": ClipCropAugmentation(crop_scales=(1, 0.75), hflip=0.5),
    },
    "shapenet55": {"points": 64, "augmentation": PointcloudAugmentation(scale=(0.5, 2), translate=0.2)},
}


@pytest.fixture(scope="module", params=list(SIZES))
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def root(layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("signals") / layout
    miniature_module(layout).build(root, seed=1, **SIZES[layout])
    return root


def reader(layout: str, root: Path, seed: int = 0, split: str = "train", **changes: object) -> SeededDataset:
    settings = {**INPUTS[layout], **changes}
    return layout_module(layout).Reader(root, split, num_classes=CLASSES[layout], seed=seed, **settings)


def test_the_same_seed_gives_the_same_bytes(layout: str, root: Path, tmp_path: Path) -> None:
    build = partial(miniature_module(layout).build, **SIZES[layout])
    assert_seed_decides_bytes(build, root, tmp_path, seed=1)


def test_the_dataset_is_sound_and_complete(layout: str, root: Path) -> None:
    module = layout_module(layout)
    assert module.check(root, num_classes=CLASSES[layout], full=True) == []
    assert module.counts(root) == {split: SIZES[layout][split] for split in ("train", "val")}
    assert len(module.classes(root)) == CLASSES[layout]
    assert set(module.files(root)) | {root / RECORD} == {path for path in root.rglob("*") if path.is_file()}


def test_the_splits_share_neither_sources_nor_files(layout: str, root: Path) -> None:
    sources = json.loads((root / RECORD).read_text())["sources"]
    assert sources["train"] and sources["val"] and not set(sources["train"]) & set(sources["val"])
    contents = [
        {sample[0].numpy().tobytes() for sample in samples(layout, root, split)} for split in ("train", "val")
    ]
    assert not contents[0] & contents[1]


def samples(layout: str, root: Path, split: str) -> Iterator[tuple[torch.Tensor, object]]:
    dataset = reader(layout, root, split=split, augmentation=None)
    return (dataset[index] for index in range(len(dataset)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_sample_is_finite_and_not_constant(layout: str, root: Path, split: str) -> None:
    for view, _ in samples(layout, root, split):
        assert view.dtype == torch.float32 and view.isfinite().all() and view.std() > 0.02


def test_a_sample_depends_on_seed_epoch_and_index_alone(layout: str, root: Path) -> None:
    keys = [(epoch, index) for epoch in (0, 3) for index in (5, 1, 2)]
    alone = [reader(layout, root)[key] for key in keys]
    for workers in (0, 2):
        loader = DataLoader(reader(layout, root), sampler=keys, batch_size=None, num_workers=workers)
        for (view, label), (expected, expected_label) in zip(loader, alone, strict=True):
            assert torch.equal(view, expected)
            assert np.array_equal(label, expected_label)
    assert not torch.equal(alone[0][0], alone[3][0]), "another epoch, another view"
    assert not torch.equal(alone[0][0], reader(layout, root, seed=1)[keys[0]][0])


@pytest.fixture(scope="module")
def notes() -> list[Note]:
    return load_notes()


def test_every_family_has_recordings_in_both_splits(notes: list[Note]) -> None:
    assert len({note.name for note in notes}) == len(notes) > 500
    own = labeled(notes)
    assert all(len(note.families) == 1 for note in own)
    pools = split_notes(own, np.random.default_rng(0))
    names = [{note.name for note in pool} for pool in pools.values()]
    assert not names[0] & names[1] and names[0] | names[1] == {note.name for note in own}
    for pool in pools.values():
        assert {family for note in pool for family in note.families} == set(range(len(LABELS)))


@pytest.mark.parametrize("semitones", [-12, 0, 7])
def test_pitch_is_shifted_by_semitones(semitones: int) -> None:
    """A looped sine of 441 Hz, played at another speed, is a sine of the pitch asked for."""
    wave = np.sin(2 * np.pi * np.arange(4000) * 441 / 44100).astype(np.float32)
    note = Note("sine", wave, 44100, (1000, 3000), (0,))
    sound = play(note, semitones=semitones, seconds=1, rate=16000)
    assert len(sound) == 16000
    loudest = np.abs(np.fft.rfft(sound)).argmax()
    assert loudest == pytest.approx(441 * 2 ** (semitones / 12), rel=0.01)


def test_an_unlooped_recording_ends_in_silence() -> None:
    note = Note("click", np.hanning(1600).astype(np.float32), 16000, None, (0,))
    sound = play(note, semitones=0, seconds=0.5, rate=16000)
    np.testing.assert_allclose(sound[:1600], np.hanning(1600), atol=0.01)
    np.testing.assert_allclose(sound[1700:], 0, atol=0.01)


def test_clips_are_16_bit_wav_at_16_khz(built) -> None:
    root = built("audioset", train=16, val=16, seconds=0.5)
    info = soundfile.info(root / "train/00000.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 8000)
    loudest = np.abs(audioset_layout.read_waveform(root / "train/00000.wav", 16000)).max()
    assert 0.2 < loudest <= 1


@pytest.mark.parametrize("move", films.MOVES)
def test_shots_stay_inside_their_region(move) -> None:
    """A region surrounded by red never shows red, however the camera moves."""
    draw = np.random.default_rng(0)
    region = draw.integers(0, 256, (167, 640, 3), dtype=np.uint8)
    region[..., 0] = 0
    for _ in range(5):
        pictures = films.film(region, move(np.linspace(-1, 1, 8), draw), 24, draw)
        assert all(picture.shape == (24, 32, 3) and picture[..., 1].mean() > 60 for picture in pictures)
        assert max(picture[..., 0].max() for picture in pictures) == 0
        assert min(picture[..., 1:].min() for picture in pictures) > 0


def test_moves_are_what_their_names_say() -> None:
    times, draw = np.linspace(-1, 1, 9), np.random.default_rng(0)
    shots = {move.__name__: move(times, draw) for move in films.MOVES}
    assert np.ptp([shot.x for shot in shots["pan"]]) >= 0.5
    assert (np.diff([shot.y for shot in shots["tilt_up"]]) < 0).all()
    assert (np.diff([shot.y for shot in shots["tilt_down"]]) > 0).all()
    assert (np.diff([shot.height for shot in shots["zoom_in"]]) < 0).all()
    assert (np.diff([shot.height for shot in shots["zoom_out"]]) > 0).all()
    assert np.ptp([shot.angle for shot in shots["roll"]]) >= 30
    assert len(set(shots["still"])) == 1 and len(set(shots["shake"])) == 9


def test_points_lie_on_their_surface_evenly() -> None:
    draw = np.random.default_rng(0)
    box = Box((1, 2, 3), ((2, 0, 0), (0, 1, 0), (0, 0, 4)))
    assert box.area == pytest.approx(2 * (2 * 1 + 2 * 4 + 1 * 4))
    local = np.abs(box.sample(4000, draw) - [1, 2, 3]) / [1, 0.5, 2]
    np.testing.assert_allclose(local.max(axis=1), 1)
    on_top = np.isclose(local[:, 1], 1).mean()
    assert on_top == pytest.approx(16 / 28, abs=0.03)

    cone = Cone((0, 0, 0), (0, 2, 0), 1, 0.5, closed_top=False)
    assert cone.area == pytest.approx(np.pi * 1.5 * np.hypot(2, 0.5) + np.pi)
    points = cone.sample(4000, draw)
    radius, height = np.hypot(points[:, 0], points[:, 2]), points[:, 1]
    side = height > 1e-9
    np.testing.assert_allclose(radius[side], 1 - 0.25 * height[side])
    assert side.mean() == pytest.approx(1 - np.pi / cone.area, abs=0.03)
    below_middle = (height[side] < 1).mean()  # the side's lower half is 7/12 of it
    assert below_middle == pytest.approx(7 / 12, abs=0.03)

    arc = Arc((0, 1, 0), 1, 0.25, -1, 1)
    points = arc.sample(500, draw) - [0, 1, 0]
    np.testing.assert_allclose(np.hypot(np.hypot(points[:, 0], points[:, 1]) - 1, points[:, 2]), 0.25)
    assert (np.abs(np.arctan2(points[:, 1], points[:, 0])) <= 1).all()


@pytest.mark.parametrize("synset", CATEGORIES)
def test_objects_have_parts_in_proportion_to_their_area(synset: str) -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        parts = CATEGORIES[synset](draw)
        points, labels = sample_surfaces(parts, 2000, draw)
        assert points.shape == (2000, 3) and points.dtype == np.float32 and np.isfinite(points).all()
        total = sum(surface.area for _, surface in parts)
        for part in {part for part, _ in parts}:
            share = sum(surface.area for number, surface in parts if number == part) / total
            assert (labels == part).mean() == pytest.approx(share, abs=0.05)
