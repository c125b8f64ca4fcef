"""Decoding of sound files, the same for the check and the reader; truncated files are rejected."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2pt.datasets.fbank import FRAME_SECONDS
from m2pt.datasets.reading import reading
from m2pt.datasets.sound_containers import complete, declared_samples
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes

LARGEST_FILE = 1 << 30
"""Most bytes of a sound file."""

LONGEST = 1 << 28
"""Most samples of all channels: 4.6 hours of mono at 16 kHz, 1 GiB. A few bytes of FLAC can declare more."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Sample rates in Hz. Others come from damaged headers, and resampling would need huge filters."""

LOUDEST = 100.0
"""Largest magnitude of a sample. Full scale is 1; floats may exceed it, as decoded MP3 does, but values 40 dB
above it are garbage, or integers that were not divided by their full scale."""

FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "FLAC", "OGG", "MP3")
"""libsndfile's names of the formats for which `sound_containers` detects truncated files."""


def read_sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the first channel of a sound file, scaled to full scale 1, and its rate in Hz.

    WAV files that were written to a pipe, whose header has no length, are read to their end.

    Raises:
        InputError: the file is missing, unreadable, not in `FORMATS`, truncated (it has fewer samples than it
            declares), shorter than a frame of a spectrogram or too long, has an invalid rate, or has samples
            that are not finite or far above full scale.
    """
    content = read_bytes(path, limit=LARGEST_FILE)
    with reading(path, "a sound file"), _reasons():
        content = complete(content, path)
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            kind, rate, length = file.format, file.samplerate, file.frames
            if problem := _header_problem(kind, rate, length * file.channels):
                raise InputError(f"{path} {problem}.")
            file.seek(0)  # as in `soundfile.read`: otherwise the last bits of an MP3 differ
            samples = file.read(dtype="float32", always_2d=True)
        declared = declared_samples(content, kind, length)
    if len(samples) < declared:
        raise InputError(
            f"{path} is truncated, or its header is wrong: it declares {declared} samples, but "
            f"{len(samples)} can be read."
        )
    if problem := _sample_problem(samples, rate):
        raise InputError(f"{path} {problem}.")
    return samples[:, 0], rate


@contextmanager
def _reasons() -> Iterator[None]:
    """Reduce libsndfile's errors to their reason, without the address of the file in memory."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string) from error


def _header_problem(kind: str, rate: int, samples: int) -> str | None:
    if kind not in FORMATS:
        return f"has the unsupported format {kind}: convert it to WAV or FLAC"
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        return f"has a sample rate of {rate} Hz, which must be {LOWEST_RATE} to {HIGHEST_RATE}"
    if samples >= np.iinfo(np.int64).max // 2:
        return "does not declare its length, since it was written to a pipe: convert it again, to a file"
    return (
        f"declares {samples} samples, more than {LONGEST}: split it into clips" if samples > LONGEST else None
    )


def _sample_problem(samples: NDArray[np.float32], rate: int) -> str | None:
    if not len(samples):
        return "has no samples"
    lowest, highest = samples.min(), samples.max()  # either is NaN if there is one
    if not np.isfinite([lowest, highest]).all():
        return "has samples that are infinite or NaN"
    if max(-lowest, highest) > LOUDEST:
        return f"has a sample of {max(-lowest, highest):g}, but full scale is 1: scale it to [-1, 1]"
    if len(samples) < FRAME_SECONDS * rate:
        return f"is shorter than a frame of {FRAME_SECONDS} s: it has {len(samples)} samples at {rate} Hz"
    return None
