"""Sound files, judged alike by check and reader: one function decodes, and refuses what is not whole."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2pt.datasets.faults import reading
from m2pt.datasets.fbank import FRAME_SECONDS
from m2pt.datasets.sound_containers import announced_samples, complete
from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes

LARGEST_FILE = 1 << 30
"""Bytes."""

LONGEST = 1 << 28
"""Samples of all channels: 4.6 hours of one at 16 kHz, 1 GiB. A few bytes of FLAC can announce far more."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz. Beyond them a header is damaged, and resampling would need filters without bound."""

LOUDEST = 100.0
"""Largest magnitude of a sample. Full scale is 1. Floats may exceed it, as decoded MP3 does, but 40 dB above
it a file holds garbage, or integers that were not divided by their full scale."""

FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "FLAC", "OGG", "MP3")
"""libsndfile's names of the formats of which `sound_containers` can tell whether a file is whole."""


def read_sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the first channel of a sound file, full scale being 1, and its rate in Hz.

    A WAV file that was written to a pipe, so that its header does not know its length, is read to its end.

    Raises:
        InputError: the file is missing, unreadable, of another format than `FORMATS`, cut off (it holds fewer
            samples than it announces), shorter than a frame of a spectrogram or too long, has an impossible
            rate, or holds samples that are not finite or far above full scale.
    """
    content = read_bytes(path, limit=LARGEST_FILE)
    with reading(path, "a sound file"), _reasons():
        content = complete(content, path)
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            kind, rate, length = file.format, file.samplerate, file.frames
            if fault := _header_fault(kind, rate, length * file.channels):
                raise InputError(f"{path} {fault}.")
            file.seek(0)  # as `soundfile.read` does: without, the last bits of an MP3 are others
            samples = file.read(dtype="float32", always_2d=True)
        announced = announced_samples(content, kind, length)
    if len(samples) < announced:
        raise InputError(
            f"{path} is truncated, or its header is wrong: {announced} samples are announced, "
            f"{len(samples)} can be read."
        )
    if fault := _sample_fault(samples, rate):
        raise InputError(f"{path} {fault}.")
    return samples[:, 0], rate


@contextmanager
def _reasons() -> Iterator[None]:
    """Keep of libsndfile's errors what is wrong, not where in memory the file has been read to."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string) from error


def _header_fault(kind: str, rate: int, samples: int) -> str | None:
    if kind not in FORMATS:
        return f"is in the format {kind}: convert it to WAV or FLAC"
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        return f"has a rate of {rate} Hz by its header, not one of {LOWEST_RATE} to {HIGHEST_RATE}"
    if samples >= np.iinfo(np.int64).max // 2:
        return "does not tell its length, for it was written to a pipe: convert it again, to a file"
    return (
        f"announces {samples} samples, more than {LONGEST}: cut it into clips" if samples > LONGEST else None
    )


def _sample_fault(samples: NDArray[np.float32], rate: int) -> str | None:
    if not len(samples):
        return "holds no sound"
    lowest, highest = samples.min(), samples.max()  # either is NaN if there is one
    if not np.isfinite([lowest, highest]).all():
        return "holds samples that are infinite or not a number"
    if max(-lowest, highest) > LOUDEST:
        return f"holds a sample of {max(-lowest, highest):g}, but full scale is 1: scale it to -1 to 1"
    if len(samples) < FRAME_SECONDS * rate:
        return f"is shorter than one frame of {FRAME_SECONDS} s: it has {len(samples)} samples at {rate} Hz"
    return None
