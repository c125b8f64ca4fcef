"""A small CREMA-D: moving shapes instead of faces, with notes of instruments instead of voices.

See `pictures` and `soundfont` for the sources. Emotion k of `m2pt.datasets.cremad.LABELS` is the k-th shape
of `SHAPES` and the k-th family of `FAMILIES`. The frames of a clip show one shape at places along a line,
light or dark, over a part of a photograph; the sounds have noise added. Alone, the frames say more about the
class, but the sounds are fitted sooner: a network trained on both learns too little from the frames.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from m2pt.datasets.cremad import FRAMES, LABELS, LISTS, SOUNDS
from m2pt.datasets.holdout import held_out as held_out_items
from m2pt.datasets.miniature.audioset import LABELS as INSTRUMENTS
from m2pt.datasets.miniature.audioset import labeled, split_notes
from m2pt.datasets.miniature.kinetics import BOUNDARY
from m2pt.datasets.miniature.pictures import load_photographs
from m2pt.datasets.miniature.soundfont import Note, load_notes, play
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 7442
"""Keeps this dataset's random numbers independent of those of the others."""

FAMILIES = ("Piano", "Organ", "Bass", "Brass", "Pipe", "Percussive")

RATE = 8000

SHAPES: tuple[tuple[tuple[float, float], ...], ...] = (
    tuple((1.0, 2 * np.pi * step / 40) for step in range(40)),  # circle
    tuple((1.0, np.pi * step / 2) for step in range(4)),  # square
    tuple((1.0, 2 * np.pi * step / 3) for step in range(3)),  # triangle
    tuple((1.0 if step % 2 else 0.4, np.pi * step / 5) for step in range(10)),  # star of five
    tuple((1.0 if step % 2 else 0.3, np.pi * step / 4) for step in range(8)),  # star of four
    tuple((1.0, angle) for angle in (-0.25, 0.25, np.pi - 0.25, np.pi + 0.25)),  # bar
)
"""Corners of each shape as distance from its center and angle in radians."""

SIDE = 167
"""Pixels of the smaller side of the parts for validation and for testing."""

PARTS = {
    "train": np.s_[:BOUNDARY, :-SIDE],
    "val": np.s_[:BOUNDARY, -SIDE:],
    "test": np.s_[BOUNDARY:, :],
}
"""The part of each photograph, as rows and columns, that is behind the shapes of a split."""

FINER = 4
"""Shapes are drawn this much larger and scaled down, so that their edges are smooth."""


def build(
    root: Path,
    *,
    seed: int,
    train: int = 390,
    test: int = 150,
    held_out: float = 0.2,
    frames: int = 2,
    size: int = 48,
    seconds: float = 0.5,
    image_noise: float = 0.04,
    audio_noise: float = 0.02,
) -> None:
    """Write `train` and `test` clips, the classes in turn.

    No part of a photograph and no recording is used in two splits, if the recipe holds out the same share.

    Args:
        root: folder to write.
        seed: seed of all random numbers.
        train: clips of the training list.
        test: clips of the test list.
        held_out: share of the training list that is for validation; see `m2pt.datasets.holdout`.
        frames: frames of a clip.
        size: side of a square frame in pixels.
        seconds: length of a sound, at 8 kHz.
        image_noise: standard deviation of the noise in an image whose white is 1.
        audio_noise: standard deviation of the noise in a sound whose peak is 1.
    """
    draw = np.random.default_rng([seed, STREAM])
    notes = split_notes(labeled(load_notes()), draw)
    pools = split_notes(notes["train"], draw) | {"test": notes["val"]}
    regions = {
        split: {f"{name} {split}": pixels[part] for name, pixels in load_photographs().items()}
        for split, part in PARTS.items()
    }
    sources = {split: list(regions[split]) for split in PARTS}
    with staged(root) as folder:
        (folder / "CREMAD").mkdir()
        (folder / SOUNDS).mkdir()
        for listed, count in (("train", train), ("test", test)):
            labels = np.arange(count) % len(LABELS)
            items = [f"{listed}_{number:04d}_{LABELS[label]}" for number, label in enumerate(labels)]
            splits = np.full(count, listed, object)
            if listed == "train":
                splits[held_out_items(items, labels, held_out)] = "val"
            for item, label, split in zip(items, labels.tolist(), splits, strict=True):
                own = [note for note in pools[split] if INSTRUMENTS[note.families[0]] == FAMILIES[label]]
                note = own[draw.integers(len(own))]
                sources[split].append(note.name)
                sound = _heard(note, seconds, audio_noise, draw)
                soundfile.write(folder / SOUNDS / f"{item}.wav", sound, RATE, subtype="PCM_16")
                region = regions[split][list(regions[split])[draw.integers(len(regions[split]))]]
                (folder / FRAMES / item).mkdir(parents=True)
                for step, picture in enumerate(_film(region, label, frames, size, image_noise, draw)):
                    picture.save(folder / FRAMES / item / f"{step:05d}.jpg", quality=95)
            listing = "".join(f"{item},{LABELS[label]}\n" for item, label in zip(items, labels, strict=True))
            (folder / LISTS[listed]).write_text(listing, encoding="utf-8")
        sizes = {"train": train, "test": test, "held_out": held_out, "frames": frames, "size": size}
        noises = {"seconds": seconds, "image_noise": image_noise, "audio_noise": audio_noise}
        write_record(folder, seed=seed, sizes={**sizes, **noises}, sources=sources)


def _heard(note: Note, seconds: float, noise: float, draw: Generator) -> NDArray[np.float32]:
    """Return a note (seconds * RATE,) at a random pitch and loudness, in noise."""
    sound = play(note, semitones=int(draw.integers(-2, 3)), seconds=seconds, rate=RATE)
    sound = sound / max(np.abs(sound).max(), 1e-3) + noise * draw.standard_normal(len(sound))
    return np.clip(draw.uniform(0.3, 0.9) * sound, -1, 1).astype(np.float32)


def _film(
    region: NDArray[np.uint8], label: int, frames: int, size: int, noise: float, draw: Generator
) -> Sequence[Image.Image]:
    """Return the frames of a shape that moves along a line and turns, over a square part of a region."""
    height, width = region.shape[:2]
    top, left = draw.integers(height - size + 1), draw.integers(width - size + 1)
    background = 0.35 + 0.3 * region[top : top + size, left : left + size] / 255
    color = np.abs(draw.integers(2) - draw.uniform(0, 0.3, 3))
    radius = draw.uniform(0.25, 0.32) * size
    start, end = draw.uniform(radius, size - radius, (2, 2))
    angle, turn = draw.uniform(-0.4, 0.4), draw.uniform(-0.4, 0.4)
    pictures = []
    for time in np.linspace(0, 1, frames):
        x, y = start + time * (end - start)
        corners = [
            (
                FINER * (x + radius * distance * np.cos(at + angle + time * turn)),
                FINER * (y + radius * distance * np.sin(at + angle + time * turn)),
            )
            for distance, at in SHAPES[label]
        ]
        drawn = Image.new("L", (FINER * size, FINER * size))
        ImageDraw.Draw(drawn).polygon(corners, fill=255)
        cover = np.asarray(drawn.resize((size, size), Image.Resampling.BOX))[..., None] / 255
        picture = background + cover * (color - background) + noise * draw.standard_normal((size, size, 3))
        pictures.append(Image.fromarray((255 * np.clip(picture, 0, 1)).astype(np.uint8)))
    return pictures
