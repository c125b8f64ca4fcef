"""Frames of a video file: which ones to take, and how to decode no more than needed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

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
    """Return the frames (T, H, W, 3) RGB of a video that `choose(number of frames)` asks for, ascending.

    Decoding starts at the key frame before the first of them and ends with the last. A frame is found by its
    time, so that a variable frame rate does no harm; where the file holds fewer frames than it announces, its
    last frame stands in.

    Raises:
        InputError: the file is missing, truncated or no video.
    """
    with _opened(path) as (container, stream):
        rate, tick = _timing(path, stream)
        wanted = choose(_length(path, container, stream, rate))
        start = stream.start_time or 0
        container.seek(start + int(wanted[0] / (rate * tick)), stream=stream)
        taken: list[av.VideoFrame] = []
        frame = None
        for frame in container.decode(stream):
            if frame.pts is None:
                raise InputError(f"{path} has frames without a time: encode it again.")
            position = int((frame.pts - start) * tick * rate + Fraction(1, 2))
            while len(taken) < len(wanted) and position >= wanted[len(taken)]:
                taken.append(frame)
            if len(taken) == len(wanted):
                break
        if frame is None:
            raise InputError(f"{path} holds no frame.")
        taken += [frame] * (len(wanted) - len(taken))
        # one thread: setting up swscale's own pool costs more than converting a frame
        return np.stack([picture.to_ndarray(format="rgb24", threads=1) for picture in taken])


def video_fault(path: Path) -> str | None:
    """Decode a whole video and return what is wrong with it, if anything."""
    try:
        with _opened(path) as (container, stream):
            decoded = sum(1 for _ in container.decode(stream))
            announced = stream.frames
    except InputError as error:
        return str(error)
    if decoded < max(1, announced):
        return f"{path} is truncated: {decoded} of {announced} frames can be decoded."
    return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream.")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the workers of the data loader are the parallelism
            yield container, stream
    except av.FFmpegError as error:
        raise InputError(f"{path} cannot be decoded as a video: {error}.") from error


def _timing(path: Path, stream: VideoStream) -> tuple[Fraction, Fraction]:
    """Return the mean number of frames in a second, and the seconds in a tick of the stream's clock."""
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not stream.time_base:
        raise InputError(f"{path} has no frame rate: encode it again.")
    return rate, stream.time_base


def _length(path: Path, container: InputContainer, stream: VideoStream, rate: Fraction) -> int:
    """Return the number of frames; Matroska does not store it, but the duration."""
    if stream.frames:
        return stream.frames
    if not container.duration:
        raise InputError(f"{path} has neither a frame count nor a duration: encode it again.")
    return max(1, int(container.duration * rate / av.time_base))
