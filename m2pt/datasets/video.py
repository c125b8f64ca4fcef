"""Frames of a video file: which ones to take, and how to decode no more than needed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2pt.datasets.video_files import GET_ANEW, Film, Index, Picture, opened
from m2pt.errors import InputError


def clip_frames(start: int, frames: int, stride: int, length: int) -> list[int]:
    """Return `frames` indices from `start` on, `stride` apart; past the end of the video, its last frame.

    VideoMAE repeats the last frame in the same way where a video is shorter than frames * stride.
    """
    return [min(start + stride * step, length - 1) for step in range(frames)]


def count_starts(frames: int, stride: int, length: int) -> int:
    """Return how many starts leave room for a clip of frames * stride, at least one (VideoMAE's sampling)."""
    return max(1, length - frames * stride + 1)


def kept_frames(frames: int, stride: int, length: int) -> list[int]:
    """Return every `stride`-th index of a whole video; the last again if there are fewer than `frames`."""
    kept = list(range(0, length, stride))
    return kept + kept[-1:] * (frames - len(kept))


def spread(count: int, room: int) -> list[int]:
    """Return `count` offsets spread evenly from 0 to `room`, rounded down; a single one in the middle."""
    if count == 1:
        return [room // 2]
    return [step * room // (count - 1) for step in range(count)]


def read_frames(path: Path, choose: Callable[[int], Sequence[int]]) -> NDArray[np.uint8]:
    """Return the frames (T, H, W, 3) RGB that `choose(number of frames)` asks for, in its order.

    Frames are numbered as they are shown, upright, and count alike however long each is shown (as decord
    counts them). In mp4 and Matroska decoding starts at the key frame before the first of them, provided that
    what comes out agrees with the times that all packets announce; other files are decoded from the start.

    Raises:
        InputError: the file is missing, truncated, damaged or no video.
    """
    with opened(path) as film:
        index = film.index()
        if index is not None:
            wanted = choose(len(index.times))
            pixels = _found(film, index, set(wanted))
            if pixels is not None:
                return np.stack([pixels[number] for number in wanted])
    length = _count(path, index)
    if index is None:
        wanted = choose(length)
    with opened(path) as film:
        pixels = _taken(_numbered(film, index), set(wanted))
    return np.stack([pixels[number] for number in wanted])


def video_fault(path: Path) -> str | None:
    """Decode a whole video and return what is wrong with it, if anything: `read_frames` reads the others."""
    try:
        with opened(path) as film:
            index = film.index()
        _count(path, index)
    except InputError as error:
        return str(error)
    return None


def _count(path: Path, index: Index | None) -> int:
    """Return the number of frames that are shown, by decoding all.

    Raises:
        InputError: the file is damaged, or shows other frames than its index announces.
    """
    with opened(path) as film:
        times = [picture.frame.pts for picture in film.pictures()]
    if not times:
        raise InputError(f"{path} shows no frame.")
    if index is not None and (len(times) != len(index.times) or set(times) != set(index.times)):
        good = len(set(times) & set(index.times))
        raise InputError(f"{path} is damaged: {good} of {len(index.times)} frames can be decoded: {GET_ANEW}")
    return len(times)


def _numbered(film: Film, index: Index | None) -> Iterator[tuple[int, Picture]]:
    """Decode from the start; an index knows the order better than a decoder that guesses it at first."""
    if index is None:
        yield from enumerate(film.pictures())
    else:
        numbers: dict[int | None, int] = {time: number for number, time in enumerate(index.times)}
        yield from ((numbers[picture.frame.pts], picture) for picture in film.pictures())


def _found(film: Film, index: Index, wanted: set[int]) -> dict[int, NDArray[np.uint8]] | None:
    """Return the wanted frames by seeking; None where that fails, for decoding from the start tells why."""
    try:
        pixels = _taken(film.pictures_from(min(wanted), index), wanted)
    except InputError:
        return None
    return pixels if len(pixels) == len(wanted) else None


def _taken(pictures: Iterable[tuple[int, Picture]], wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
    pixels = {}
    for number, picture in pictures:
        if number in wanted:
            pixels[number] = picture.pixels()
        if len(pixels) == len(wanted):
            break
    return pixels
