"""A small AudioSet: phrases of recorded notes, labelled with the General MIDI families that play them.

The recordings and their licence are described in `soundfont`. A recording that several families share gives
all their labels, and some clips mix two recordings, so that clips have several labels as in AudioSet.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from m2pt.atomic import write_json
from m2pt.datasets.audioset import CLASSES, HEADER, LISTS
from m2pt.datasets.miniature.soundfont import FAMILIES, Note, load_notes, play
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 527
"""Keeps this dataset's random numbers apart from those of the others."""

RATE = 16000
MIXED = 0.3
"""Share of clips in which a second recording sounds."""

VAL_SHARE = 0.2
"""Share of each family's recordings that validation clips are made of."""


def build(root: Path, *, seed: int, train: int = 1000, val: int = 200, seconds: float = 1.3) -> None:
    """Write `train` and `val` wav clips (16 kHz, 16 bit) of `seconds`, the families in turn.

    A recording belongs to one split.
    """
    draw = np.random.default_rng([seed, STREAM])
    pools = split_notes(load_notes(), draw)
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        with (folder / CLASSES).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows([label, mid(label), name] for label, name in enumerate(FAMILIES))
        for (split, relative), size in zip(LISTS.items(), (train, val), strict=True):
            (folder / split).mkdir()
            entries, sources[split] = [], []
            for index in range(size):
                notes = choose_notes(pools[split], index % len(FAMILIES), draw)
                name = f"{split}/{index:05d}.wav"
                soundfile.write(folder / name, compose(notes, seconds, draw), RATE, subtype="PCM_16")
                labels = sorted({family for note in notes for family in note.families})
                entries.append({"wav": name, "labels": ",".join(mid(label) for label in labels)})
                sources[split] += [note.name for note in notes]
            write_json(folder / relative, {"data": entries})
        write_record(
            folder, seed=seed, sizes={"train": train, "val": val, "seconds": seconds}, sources=sources
        )


def mid(label: int) -> str:
    """Return an identifier in the form of the AudioSet ontology's; the ontology itself has no such ones."""
    return f"/m/gm_{FAMILIES[label].lower().replace(' ', '_')}"


def split_notes(notes: Sequence[Note], draw: Generator) -> dict[str, list[Note]]:
    """Share out the recordings so that every family has some in both splits, beginning with the smallest."""
    val: set[str] = set()
    train: set[str] = set()
    members = {family: [note for note in notes if family in note.families] for family in range(len(FAMILIES))}
    for family in sorted(members, key=lambda family: len(members[family])):
        wanted = max(1, round(VAL_SHARE * len(members[family])))
        free = [note.name for note in members[family] if note.name not in train | val]
        missing = max(0, wanted - sum(note.name in val for note in members[family]))
        shuffled = [str(name) for name in draw.permutation(free)]
        val.update(shuffled[:missing])
        train.update(shuffled[missing:])
    return {
        "train": [note for note in notes if note.name in train],
        "val": [note for note in notes if note.name in val],
    }


def choose_notes(pool: Sequence[Note], family: int, draw: Generator) -> list[Note]:
    """Return a recording that `family` plays, in some clips joined by any other."""
    own = [note for note in pool if family in note.families]
    chosen = [own[draw.integers(len(own))]]
    if draw.random() < MIXED:
        others = [note for note in pool if note is not chosen[0]]
        chosen.append(others[draw.integers(len(others))])
    return chosen


def compose(notes: Sequence[Note], seconds: float, draw: Generator) -> NDArray[np.float32]:
    """Return a clip (seconds * RATE,): each recording up to three times, over a little noise."""
    length = round(seconds * RATE)
    clip = np.zeros(length, np.float32)
    for note in notes:
        gain = draw.uniform(0.4, 1)
        for onset in np.cumsum(draw.uniform(0, 0.3 * seconds, draw.integers(1, 4))):
            held = min(draw.uniform(0.25, 0.9), seconds - onset)
            sound = play(note, semitones=int(draw.integers(-7, 8)), seconds=held, rate=RATE)
            time = np.arange(len(sound)) / RATE
            decay, release = np.exp(-time / draw.uniform(0.15, 1)), np.minimum(1, (held - time) / 0.03)
            begin = round(onset * RATE)
            heard = (gain * decay * release * sound)[: length - begin]
            clip[begin : begin + len(heard)] += heard
    clip *= draw.uniform(0.3, 0.9) / np.abs(clip).max()
    noise = 10 ** draw.uniform(-4, -3)  # -80 to -60 dB, so that silence is not digital silence
    return np.clip(clip + noise * draw.standard_normal(length), -1, 1).astype(np.float32)
