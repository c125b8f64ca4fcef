"""A small UR-FUNNY: features of words, of notes and of moving digits, one step of each per word.

    text     a paragraph of scikit-learn's docstrings (see `text`), a hash of each word
    audio    mel levels of a note of an instrument (see `soundfont`)
    video    brightness and change on a coarse grid of a moving digit (see `pictures`)

Label 0 is a paragraph on supervised learning, a struck or plucked instrument, and a digit that moves from
side to side; label 1 is one on unsupervised learning, a bowed or blown instrument, and a digit that moves up
and down. Every stream has noise added. As in UR-FUNNY, entries are padded with zeros in front.
"""

import hashlib
import pickle
from collections.abc import Sequence
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from m2pt.datasets.miniature.audioset import LABELS as INSTRUMENTS
from m2pt.datasets.miniature.audioset import labeled, split_notes
from m2pt.datasets.miniature.pictures import Digits, load_digits
from m2pt.datasets.miniature.soundfont import Note, load_notes, play
from m2pt.datasets.miniature.spectra import WINDOW, log_spectrogram
from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.datasets.miniature.text import module_names, paragraphs
from m2pt.datasets.urfunny import PICKLE, convert
from m2pt.errors import InputError

STREAM = 371
"""Keeps this dataset's random numbers independent of those of the others."""

TOPICS = (
    ("linear_model", "svm", "ensemble", "tree", "naive_bayes", "neural_network", "gaussian_process"),
    ("cluster", "decomposition", "manifold", "mixture", "covariance", "neighbors", "feature_extraction"),
)
"""Packages of scikit-learn whose paragraphs have each label."""

FAMILIES = (
    ("Piano", "Chromatic Percussion", "Guitar", "Bass", "Percussive"),
    ("Organ", "Strings", "Ensemble", "Brass", "Reed", "Pipe"),
)
"""Instruments of each label."""

LONGEST = 24
"""Words of a paragraph that are kept."""

PADDING = 4
"""Most steps of zeros in front of an entry."""

TEXT, MELS, GRID = 24, 16, 4
RATE, STEP_SECONDS = 16_000, 0.04

CANVAS, SIDE = 32, 14
"""Sides of the frames and of the digits in them, in pixels."""


def build(
    root: Path,
    *,
    seed: int,
    train: int = 400,
    valid: int = 100,
    test: int = 150,
    text_noise: float = 0.2,
    audio_noise: float = 0.05,
    video_noise: float = 0.15,
) -> None:
    """Write `train`, `valid` and `test` entries, the labels in turn: the pickle and the arrays made of it.

    Every module of scikit-learn, every recording and every digit is used in one split only.

    Args:
        root: folder to write.
        seed: seed of all random numbers.
        train: entries of the training split.
        valid: entries of the validation split.
        test: entries of the test split.
        text_noise: standard deviation of the noise in word features, which are -1 or 1.
        audio_noise: standard deviation of the noise in a sound whose peak is 1.
        video_noise: standard deviation of the noise in a grid of brightness, whose white is 1.

    Raises:
        InputError: scikit-learn has too few paragraphs.
    """
    draw = np.random.default_rng([seed, STREAM])
    sizes = {"train": train, "valid": valid, "test": test}
    content: dict[str, dict[str, Any]] = {}
    sources: dict[str, list[str]] = {}
    prose = _split_prose(sizes, draw)
    recordings = _split_recordings(draw)
    digits = _split_digits()
    with staged(root) as folder:
        for split, count in sizes.items():
            content[split] = {"vision": [], "audio": [], "text": [], "labels": []}
            sources[split] = []
            for number in range(count):
                label = number % 2
                module, words = prose[split][label][number // 2]
                own = [note for note in recordings[split] if _family(note) in FAMILIES[label]]
                note = own[draw.integers(len(own))]
                row = int(draw.integers(len(digits[split].images)))
                streams = {
                    "text": _read(words, text_noise, draw),
                    "audio": _heard(note, len(words), audio_noise, draw),
                    "vision": _seen(digits[split].images[row], label, len(words), video_noise, draw),
                }
                padding = int(draw.integers(PADDING + 1))
                for stream, steps in streams.items():
                    padded = np.pad(steps, ((padding, 0), (0, 0))).astype(np.float32)
                    content[split][stream].append(padded)
                content[split]["labels"].append(label)
                sources[split] += [module, note.name, digits[split].names[row]]
        (folder / PICKLE).write_bytes(pickle.dumps(content, protocol=4))
        convert(folder)
        noises = {"text_noise": text_noise, "audio_noise": audio_noise, "video_noise": video_noise}
        write_record(folder, seed=seed, sizes={**sizes, **noises}, sources=sources)


@cache
def word_features(word: str) -> tuple[int, ...]:
    """Return `TEXT` features of a word, -1 or 1: the first bits of its SHA-256."""
    bits = np.unpackbits(np.frombuffer(hashlib.sha256(word.encode()).digest(), np.uint8))
    return tuple((2 * bits[:TEXT].astype(int) - 1).tolist())


def _split_prose(sizes: dict[str, int], draw: Generator) -> dict[str, list[list[tuple[str, list[str]]]]]:
    """Return (module, words) of different paragraphs, by split and label, as many as each needs.

    Raises:
        InputError: there are too few.
    """
    package = Path(str(distribution("scikit-learn").locate_file("sklearn")))
    found: dict[str, list[list[tuple[str, list[str]]]]] = {split: [[], []] for split in sizes}
    names = draw.permutation(module_names(package)).tolist()
    seen: set[str] = set()
    for name in names:
        topic = name.partition("/")[0]
        label = next((label for label, topics in enumerate(TOPICS) if topic in topics), None)
        if label is None:
            continue
        # the split that lacks most of what it needs
        share = {each: len(found[each][label]) / max(1, size) for each, size in sizes.items()}
        split = min(share, key=lambda each: share[each])
        for paragraph in paragraphs((package / name).read_text(encoding="utf-8")):
            if paragraph not in seen:
                seen.add(paragraph)
                words = [word.strip(".,;:'\"()").lower() for word in paragraph.split()]
                found[split][label].append((name, [word for word in words if word][:LONGEST]))
    for split, size in sizes.items():
        for label in range(2):
            have, need = len(found[split][label]), (size + 1 - label) // 2
            if have < need:
                raise InputError(
                    f"scikit-learn's docstrings have {have} paragraphs for label {label} of {split}, not the "
                    f"{need} of {split} = {size}; give fewer."
                )
    return found


def _split_recordings(draw: Generator) -> dict[str, list[Note]]:
    """Return the recordings of each split; "valid" and "test" share those that `split_notes` holds out."""
    pools = split_notes([note for note in labeled(load_notes()) if _family(note) != "Ethnic"], draw)
    names = [note.name for note in pools["val"]]
    halves: dict[str, list[Note]] = {"train": pools["train"], "valid": [], "test": []}
    taken = {family: 0 for families in FAMILIES for family in families}
    for row in draw.permutation(len(names)):
        note = pools["val"][row]
        halves["valid" if taken[_family(note)] % 2 else "test"].append(note)
        taken[_family(note)] += 1
    return halves


def _split_digits() -> dict[str, Digits]:
    """Return the digits of each split; "valid" has every other digit of those for validation."""
    held = load_digits("val")
    halves = {
        split: Digits(held.images[start::2], held.labels[start::2], held.names[start::2])
        for split, start in (("valid", 0), ("test", 1))
    }
    return {"train": load_digits("train"), **halves}


def _family(note: Note) -> str:
    return INSTRUMENTS[note.families[0]]


def _read(words: Sequence[str], noise: float, draw: Generator) -> NDArray[np.float64]:
    """Return the features (T, TEXT) of words, in noise."""
    features = np.array([word_features(word) for word in words])
    return features + noise * draw.standard_normal(features.shape)


def _heard(note: Note, steps: int, noise: float, draw: Generator) -> NDArray[np.float64]:
    """Return mel levels (T, MELS) of a note in units of 20 dB; minus infinity in a pause before it."""
    seconds = steps * STEP_SECONDS + WINDOW / RATE
    sound = play(note, semitones=int(draw.integers(-5, 6)), seconds=seconds, rate=RATE)
    sound = sound / max(np.abs(sound).max(), 1e-3) + noise * draw.standard_normal(len(sound))
    levels = log_spectrogram(sound.astype(np.float32), rate=RATE, bins=MELS, steps=steps).T / 20
    levels[: int(draw.integers(2))] = -np.inf
    return levels


def _seen(
    digit: NDArray[np.uint8], label: int, steps: int, noise: float, draw: Generator
) -> NDArray[np.float64]:
    """Return the brightness and its change (T, 2 * GRID ** 2) of a digit that swings to and fro."""
    small = digit.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) / 255
    room = CANVAS - SIDE
    still, phase, speed = draw.uniform(0, room), draw.uniform(0, 2 * np.pi), draw.uniform(0.5, 1.2)
    frames = np.zeros((steps + 1, CANVAS, CANVAS))
    for step in range(steps + 1):
        moving = room / 2 * (1 + np.sin(phase + speed * step))
        top, left = (round(place) for place in ((still, moving) if label == 0 else (moving, still)))
        frames[step, top : top + SIDE, left : left + SIDE] = small
    cell = CANVAS // GRID
    grids = frames.reshape(steps + 1, GRID, cell, GRID, cell).mean(axis=(2, 4)).reshape(steps + 1, -1)
    grids += noise * draw.standard_normal(grids.shape)
    return np.concatenate([grids[1:], np.diff(grids, axis=0)], axis=1)
