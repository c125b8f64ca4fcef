"""Recorded notes of musical instruments: the General MIDI SoundFont that ships in pretty_midi.

`TimGM6mb.sf2` by Tim Brechbill (2004), as distributed with MuseScore 0.9.6 to 1.3 and packaged by Debian as
timgm6mb-soundfont, where it is under the GNU General Public License version 2. It is read from the installed
package; neither the file nor anything made from it is part of this project.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FAMILIES = (
    "Piano",
    "Chromatic Percussion",
    "Organ",
    "Guitar",
    "Bass",
    "Strings",
    "Ensemble",
    "Brass",
    "Reed",
    "Pipe",
    "Synth Lead",
    "Synth Pad",
    "Synth Effects",
    "Ethnic",
    "Percussive",
    "Sound Effects",
)
"""General MIDI's sixteen families, of eight programs each."""

PROGRAMS_PER_FAMILY = 8
DRUM_KITS = 128
"""SoundFont bank of drum kits; their sounds count as Percussive."""


@dataclass(frozen=True)
class Note:
    """One recording: `wave` (samples,) at `rate` Hz with a peak of 1, and all `families` that use it.

    `loop` is the range of samples that a held note repeats; None for sounds that are played once.
    """

    name: str
    wave: NDArray[np.float32]
    rate: int
    loop: tuple[int, int] | None
    families: tuple[int, ...]


def load_notes() -> list[Note]:
    """Return every recording that a General MIDI program uses, in the order of the file.

    Of stereo recordings only the right channel is taken, since both are the same note.
    """
    path = Path(str(distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2")))
    with path.open("rb") as file, _quiet():
        from sf2utils.sf2parse import Sf2File

        parsed = Sf2File(file)
        families: dict[str, set[int]] = {}
        looped: dict[str, bool] = {}
        for preset in parsed.presets[:-1]:  # the last one is a terminator
            percussive = preset.bank == DRUM_KITS
            family = FAMILIES.index("Percussive") if percussive else preset.preset // PROGRAMS_PER_FAMILY
            for zone in (zone for bag in preset.bags if bag.instrument for zone in bag.instrument.bags):
                if zone.sample and not zone.sample.name.endswith(" L"):
                    families.setdefault(zone.sample.name, set()).add(family)
                    looped[zone.sample.name] = bool(zone.sample_loop)
        return [
            Note(
                name=sample.name,
                wave=_normalized(sample.raw_sample_data),
                rate=sample.sample_rate,
                loop=(sample.start_loop, sample.end_loop) if looped[sample.name] else None,
                families=tuple(sorted(families[sample.name])),
            )
            for sample in parsed.samples
            if sample.name in families
        ]


def play(note: Note, *, semitones: float, seconds: float, rate: int) -> NDArray[np.float32]:
    """Return a note (seconds * rate,), shifted in pitch by playing the recording faster or slower.

    A looped recording lasts as long as needed, the others end in silence. Resampling is done in the Fourier
    domain, which removes the frequencies above the new Nyquist frequency.
    """
    from scipy.fft import next_fast_len

    length = round(seconds * rate)
    speed = note.rate / rate * 2 ** (semitones / 12)
    position = np.arange(next_fast_len(math.ceil((length + 1) * speed), real=True))
    if note.loop is None:
        source = np.append(note.wave, np.float32(0))[np.minimum(position, len(note.wave))]
    else:
        start, end = note.loop
        source = note.wave[np.where(position < end, position, start + (position - end) % (end - start))]
    target = round(len(source) / speed)
    resampled = np.fft.irfft(np.fft.rfft(source)[: target // 2 + 1], target) * (target / len(source))
    return resampled[:length].astype(np.float32)


def _normalized(raw: bytes) -> NDArray[np.float32]:
    wave = np.frombuffer(raw, dtype=np.int16).astype(np.float32)
    return wave / np.abs(wave).max()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence sf2utils: its warnings of short loops (on the root logger) and of its imports."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    root.addFilter(_reject_all)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        root.removeFilter(_reject_all)
        root.removeHandler(silent)


def _reject_all(record: logging.LogRecord) -> bool:
    return False
