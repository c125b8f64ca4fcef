"""A small AudioSet: phrases of recorded notes, labeled with the General MIDI families that play them.

See `soundfont` for the recordings and their license. A phrase is a sequence of notes of one family; in some
clips a second family plays along, so that clips have several labels as in AudioSet. Recordings that several
families share are left out, and so are families with hardly any others: synthesizers and sound effects.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
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
"""Keeps this dataset's random numbers independent of those of the others."""

RATE = 16000
MIXED = 0.3
"""Share of clips in which a second family plays along."""

VAL_SHARE = 0.2
"""Share of the recordings of each instrument, or else of each family, that is for validation."""

NOTES = 6
"""Notes in a phrase."""

BORROWERS = ("Synth Lead", "Synth Pad", "Synth Effects", "Sound Effects")
"""Families that use the recordings of others and are not classes here."""

LABELS = tuple(family for family in FAMILIES if family not in BORROWERS)


def build(root: Path, *, seed: int, train: int = 2000, val: int = 400, seconds: float = 1.3) -> None:
    """Write `train` and `val` wav clips (16 kHz, 16 bit) of `seconds`, the families in turn.

    Every recording is used in one split only.
    """
    draw = np.random.default_rng([seed, STREAM])
    pools = split_notes(labeled(load_notes()), draw)
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        with (folder / CLASSES).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows([label, mid(label), name] for label, name in enumerate(LABELS))
        for (split, relative), size in zip(LISTS.items(), (train, val), strict=True):
            (folder / split).mkdir()
            entries, sources[split] = [], []
            for index in range(size):
                phrases = choose_phrases(pools[split], index % len(LABELS), draw)
                name = f"{split}/{index:05d}.wav"
                soundfile.write(folder / name, compose(phrases, seconds, draw), RATE, subtype="PCM_16")
                notes = [note for phrase in phrases for note in phrase]
                labels = sorted({label for note in notes for label in note.families})
                entries.append({"wav": name, "labels": ",".join(mid(label) for label in labels)})
                sources[split] += [note.name for note in notes]
            write_json(folder / relative, {"data": entries})
        write_record(
            folder, seed=seed, sizes={"train": train, "val": val, "seconds": seconds}, sources=sources
        )


def mid(label: int) -> str:
    """Return an identifier like those of the AudioSet ontology, but not one of them."""
    return f"/m/gm_{LABELS[label].lower().replace(' ', '_')}"


def labeled(notes: Sequence[Note]) -> list[Note]:
    """Return the recordings of exactly one family of `LABELS`, with its label as their `families`."""
    chosen = []
    for note in notes:
        labels = tuple(LABELS.index(FAMILIES[i]) for i in note.families if FAMILIES[i] in LABELS)
        if len(labels) == 1:
            chosen.append(replace(note, families=labels))
    return chosen


def instrument(note: Note) -> str:
    """Return the name of a recording without its pitch: `Piano` for `Piano Gb5`."""
    return re.sub(r"\s*[A-G][b#]?-?\d*\s*$", "", note.name.strip())


def split_notes(notes: Sequence[Note], draw: Generator) -> dict[str, list[Note]]:
    """Split recordings of one label each: validation has other notes of the same instruments.

    Instruments with one or two recordings, such as drums, are for training, unless their family has too few
    others.
    """
    recorded = defaultdict(list)
    for note in notes:
        recorded[instrument(note)].append(note.name)
    val: set[str] = set()
    for names in recorded.values():
        if len(names) > 2:
            val.update(draw.permutation(names)[: max(1, round(VAL_SHARE * len(names)))].tolist())
    for label in range(len(LABELS)):
        own = [note.name for note in notes if label in note.families]
        missing = round(VAL_SHARE * len(own)) - len(val.intersection(own))
        if missing > 0:
            rest = [
                note.name for note in notes if label in note.families and len(recorded[instrument(note)]) < 3
            ]
            val.update(draw.permutation(rest)[:missing].tolist())
    return {
        "train": [note for note in notes if note.name not in val],
        "val": [note for note in notes if note.name in val],
    }


def choose_phrases(pool: Sequence[Note], label: int, draw: Generator) -> list[list[Note]]:
    """Return a phrase of the family `label` and, for some clips, a second one of a random family."""
    labels = [label]
    if draw.random() < MIXED:
        labels.append(int(draw.integers(len(LABELS))))
    phrases = []
    for chosen in labels:
        own = [note for note in pool if chosen in note.families]
        order = draw.permutation(len(own))
        phrases.append([own[order[i % len(own)]] for i in range(NOTES)])
    return phrases


def compose(phrases: Sequence[Sequence[Note]], seconds: float, draw: Generator) -> NDArray[np.float32]:
    """Return a clip (seconds * RATE,): the notes of each phrase one after another, and a little noise."""
    length = round(seconds * RATE)
    clip = np.zeros(length, np.float32)
    step = seconds / NOTES
    for phrase in phrases:
        gain = draw.uniform(0.4, 1)
        for number, note in enumerate(phrase):
            onset = (number + draw.uniform(0, 0.3)) * step
            held = min(draw.uniform(0.8, 1.6) * step, seconds - onset)
            sound = play(note, semitones=int(draw.integers(-5, 6)), seconds=held, rate=RATE)
            time = np.arange(len(sound)) / RATE
            decay, release = np.exp(-time / draw.uniform(0.3, 2)), np.minimum(1, (held - time) / 0.03)
            begin = round(onset * RATE)
            heard = (gain * decay * release * sound)[: length - begin]
            clip[begin : begin + len(heard)] += heard
    clip *= draw.uniform(0.3, 0.9) / np.abs(clip).max()
    noise = 10 ** draw.uniform(-4, -3)  # -80 to -60 dB, so that silence is not digital silence
    return np.clip(clip + noise * draw.standard_normal(length), -1, 1).astype(np.float32)
