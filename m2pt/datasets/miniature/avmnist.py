"""A small AV-MNIST: handwritten digits, each with a note of an instrument instead of the spoken digit.

See `pictures` and `soundfont` for the sources. Digit k is paired with the k-th General MIDI family of
`FAMILIES`. As in AV-MNIST, where the images keep a quarter of their energy and the sounds have noise added,
both are degraded so that neither is enough. The sounds are the weaker modality: a note in a little noise says
less about its family than a faint digit in much noise about itself, and takes longer to learn. A network that
is trained on both fits the images first and learns less from the sounds than one that has nothing else.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from m2pt.datasets.holdout import held_out as held_out_rows
from m2pt.datasets.miniature.audioset import LABELS, labeled, split_notes
from m2pt.datasets.miniature.pictures import CLASSES, SIDE, Digits, load_digits
from m2pt.datasets.miniature.soundfont import Note, load_notes, play
from m2pt.datasets.miniature.spectra import log_spectrogram
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 784
"""Keeps this dataset's random numbers independent of those of the others."""

FAMILIES = LABELS[:CLASSES]

RATE, SECONDS = 16_000, 0.5

QUIETEST = -60.0
"""Level in dB, relative to the loudest of a note, that is black in a spectrogram."""


def build(
    root: Path,
    *,
    seed: int,
    train: int = 1000,
    test: int = 400,
    held_out: float = 0.2,
    side: int = 32,
    image_noise: float = 0.7,
    audio_noise: float = 0.01,
) -> None:
    """Write `train` and `test` samples; spectrograms have `side` x `side` pixels.

    The digits are those of `pictures`, of which "val" is for testing here. No digit and no recording is used
    in two splits, if the recipe holds out the same share.

    Args:
        root: folder to write.
        seed: seed of all random numbers.
        train: samples of the training list.
        test: samples of the test list.
        held_out: share of the training list that is for validation; see `m2pt.datasets.holdout`.
        side: pixels of a spectrogram along time and along frequency.
        image_noise: standard deviation of the noise in an image whose digit has the brightness 1.
        audio_noise: standard deviation of the noise in a sound whose peak is 1.
    """
    draw = np.random.default_rng([seed, STREAM])
    notes = split_notes(labeled(load_notes()), draw)
    pools = split_notes(notes["train"], draw) | {"test": notes["val"]}
    digits = load_digits("train")
    spare = held_out_rows(digits.names, digits.labels, held_out)
    pictures = {"train": digits.only(~spare), "val": digits.only(spare), "test": load_digits("val")}
    decks = {split: _decks(own, draw) for split, own in pictures.items()}
    sources: dict[str, list[str]] = {split: [] for split in pools}
    with staged(root) as folder:
        for modality in ("image", "audio"):
            (folder / modality).mkdir()
        for listed, size in (("train", train), ("test", test)):
            labels = pictures[listed].labels[pictures[listed].dealt(draw, size)]
            splits = np.full(size, listed, object)
            if listed == "train":
                splits[held_out_rows([str(row) for row in range(size)], labels, held_out)] = "val"
            images, sounds = [], []
            for split, label in zip(splits, labels, strict=True):
                row = next(decks[split][label])
                images.append(_noisy(pictures[split].images[row], image_noise, draw))
                note = _choose(pools[split], int(label), draw)
                sounds.append(_heard(note, side, audio_noise, draw))
                sources[split] += [pictures[split].names[row], note.name]
            for modality, rows in (("image", np.reshape(images, (size, -1))), ("audio", np.stack(sounds))):
                np.save(folder / modality / f"{listed}_data.npy", rows, allow_pickle=False)
            np.save(folder / f"{listed}_labels.npy", labels, allow_pickle=False)
        sizes = {"train": train, "test": test, "held_out": held_out, "side": side}
        noises = {"image_noise": image_noise, "audio_noise": audio_noise}
        write_record(folder, seed=seed, sizes={**sizes, **noises}, sources=sources)


def _decks(digits: Digits, draw: Generator) -> list[Iterator[int]]:
    """Return the digits of each class in random order, again from the first once all were used."""
    rows = (np.flatnonzero(digits.labels == label) for label in range(CLASSES))
    return [cycle(draw.permutation(own).tolist()) for own in rows]


def _noisy(digit: NDArray[np.uint8], noise: float, draw: Generator) -> NDArray[np.uint8]:
    """Return a digit (28, 28) in noise; black is a quarter of full scale, the digit half of it brighter."""
    picture = 0.25 + 0.5 * (digit / 255 + noise * draw.standard_normal((SIDE, SIDE)))
    return (255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _choose(pool: Sequence[Note], label: int, draw: Generator) -> Note:
    own = [note for note in pool if label in note.families]
    return own[draw.integers(len(own))]


def _heard(note: Note, side: int, noise: float, draw: Generator) -> NDArray[np.uint8]:
    """Return the spectrogram (side, side) of a note at a random pitch and time, in noise."""
    sound = np.zeros(round(SECONDS * RATE), np.float32)
    onset = int(draw.integers(len(sound) // 8))
    held = play(note, semitones=int(draw.integers(-2, 3)), seconds=SECONDS, rate=RATE)[: len(sound) - onset]
    sound[onset:] = held / max(np.abs(held).max(), 1e-3)
    sound += noise * draw.standard_normal(len(sound)).astype(np.float32)
    levels = log_spectrogram(sound, rate=RATE, bins=side, steps=side)
    return (255 * np.clip(1 - levels / QUIETEST, 0, 1)).astype(np.uint8)
