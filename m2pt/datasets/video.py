"""Frames of a video file: which ones to take, and decoding only these where possible."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2pt.datasets.video_files import REPLACE, Index, OrientedFrame, VideoFile, opened
from m2pt.errors import InputError


def clip_frames(start: int, frames: int, stride: int, length: int) -> list[int]:
    """Return `frames` indices from `start` on, `stride` apart; past the end of the video, its last frame.

    VideoMAE repeats the last frame in the same way in a video that is shorter than frames * stride.
    """
    return [min(start + stride * step, length - 1) for step in range(frames)]


def count_starts(frames: int, stride: int, length: int) -> int:
    """Return the number of starts of a clip of frames * stride, at least one (VideoMAE's sampling)."""
    return max(1, length - frames * stride + 1)


def kept_frames(frames: int, stride: int, length: int) -> list[int]:
    """Return every `stride`-th index of a video; repeat the last if there are fewer than `frames`."""
    kept = list(range(0, length, stride))
    return kept + kept[-1:] * (frames - len(kept))


def spread(count: int, room: int) -> list[int]:
    """Return `count` offsets spread evenly from 0 to `room`, rounded down; a single one in the middle."""
    if count == 1:
        return [room // 2]
    return [step * room // (count - 1) for step in range(count)]


def read_frames(path: Path, choose: Callable[[int], Sequence[int]]) -> NDArray[np.uint8]:
    """Return the frames (T, H, W, 3) RGB with the indices `choose(number of frames)`, in that order.

    Frames are upright and numbered in the order of presentation, regardless of their duration (as in decord).
    In mp4 and Matroska, decoding starts at the key frame before the first of them, provided that the decoded
    frames have the times of the packets; other files are decoded from the start.

    Raises:
        InputError: the file is missing, truncated, damaged or not a video.
    """
    with opened(path) as video:
        index = video.index()
        if index is not None:
            wanted = choose(len(index.times))
            pixels = _found(video, index, set(wanted))
            if pixels is not None:
                return np.stack([pixels[number] for number in wanted])
    length = _count(path, index)
    if index is None:
        wanted = choose(length)
    with opened(path) as video:
        pixels = _taken(_numbered(video, index), set(wanted))
    return np.stack([pixels[number] for number in wanted])


def video_problem(path: Path) -> str | None:
    """Decode a whole video and return its problem; None if `read_frames` can read it."""
    try:
        with opened(path) as video:
            index = video.index()
        _count(path, index)
    except InputError as error:
        return str(error)
    return None


def _count(path: Path, index: Index | None) -> int:
    """Return the number of displayed frames, by decoding all of them.

    Raises:
        InputError: the file is damaged, or its frames differ from its index.
    """
    with opened(path) as video:
        times = [picture.frame.pts for picture in video.frames()]
    if not times:
        raise InputError(f"{path} has no frames.")
    if index is not None and (len(times) != len(index.times) or set(times) != set(index.times)):
        good = len(set(times) & set(index.times))
        raise InputError(f"{path} is damaged: {good} of {len(index.times)} frames can be decoded: {REPLACE}")
    return len(times)


def _numbered(video: VideoFile, index: Index | None) -> Iterator[tuple[int, OrientedFrame]]:
    """Decode from the start; number frames by the index, since a decoder first guesses their order."""
    if index is None:
        yield from enumerate(video.frames())
    else:
        numbers: dict[int | None, int] = {time: number for number, time in enumerate(index.times)}
        yield from ((numbers[picture.frame.pts], picture) for picture in video.frames())


def _found(video: VideoFile, index: Index, wanted: set[int]) -> dict[int, NDArray[np.uint8]] | None:
    """Return the wanted frames by seeking; None if that fails: decoding from the start then says why."""
    try:
        pixels = _taken(video.frames_from(min(wanted), index), wanted)
    except InputError:
        return None
    return pixels if len(pixels) == len(wanted) else None


def _taken(pictures: Iterable[tuple[int, OrientedFrame]], wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
    pixels = {}
    for number, picture in pictures:
        if number in wanted:
            pixels[number] = picture.pixels()
        if len(pixels) == len(wanted):
            break
    return pixels
