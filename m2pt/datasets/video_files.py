"""One video file: which of its streams is the film, where its frames are, and how they are shown.

What counts is what a player shows, as FFmpeg and decord (which VideoMAE uses) see it: the frames that an edit
list leaves out are left out, and the display matrix of a phone's video turns its frames upright. Pixels that
are not square stay as they are stored, as with decord.
"""

import errno
import math
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from m2pt.datasets.faults import reading
from m2pt.errors import InputError

INDEXED = ("mov", "matroska")
"""The containers, mp4 among the first, whose packets tell the time of every frame: one can seek in them."""

CONTAINERS = (
    *INDEXED,
    *("asf", "av1", "avi", "dv", "flv", "gif", "h264", "hevc", "ivf", "m4v", "mpeg", "mpegts", "mpegvideo"),
    *("mxf", "nut", "obu", "ogg", "rm", "wtv", "yuv4mpegpipe"),
)
"""FFmpeg's names of the containers that are read. Playlists and picture sequences, which open other files and
addresses, are not among them."""

LARGEST_FRAME = 4096 * 4096
"""Pixels, twice those of 4K. A header that announces more is damaged or hostile."""

SMALLEST_SIDE, LONGEST_SHAPE = 16, 16
"""Least height and width in pixels, and the most that one may be times the other: scaling the shorter side of
a ribbon to that of a view would fill the memory."""

SLANT = 0.02
"""How far a display matrix may be off a multiple of 90 degrees, as a tangent."""

GET_ANEW = "copy or download it again, or remove it from the lists."

COVER = Disposition.attached_pic | Disposition.timed_thumbnails


@contextmanager
def opened(path: Path) -> Iterator["Film"]:
    """Open a video file and nothing else, whatever its name or content says.

    Raises:
        InputError: it is missing, no regular file, no video, or has frames beyond `LARGEST_FRAME`.
    """
    with _reading(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is a folder, pipe or device, not a video file.")
        container = av.open(
            f"file:{path}",  # a name such as pipe:0 or http://host is a name
            options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join(CONTAINERS),
                "max_pixels": str(LARGEST_FRAME),
            },
            metadata_errors="replace",
        )
    with container:
        yield Film(path, container)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Word what FFmpeg and the file system say about a video file; see `faults.reading`."""
    with reading(path, "a video"):
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = error.strerror
            if error.errno == errno.EINVAL:  # FFmpeg's answer to what the options of `opened` do not let pass
                reason = (
                    "its format is not accepted or its frames are larger than 4096 x 4096; convert it to mp4"
                )
            raise InputError(f"{path} cannot be read as a video: {reason}.") from error


@dataclass(frozen=True)
class Index:
    """When the frames of a film are shown, ascending, in ticks of the stream's clock.

    `keys` are the times of the key frames, shown or not; `start` is that of the first frame that is stored.
    """

    times: list[int]
    keys: list[int]
    start: int


class Stored(NamedTuple):
    """A frame as the container has it: its time, and whether it is a key frame and is ever shown."""

    time: int | None
    key: bool
    shown: bool


@dataclass(frozen=True)
class Picture:
    """A frame and how to turn it: first swap rows and columns, then mirror left and right, top and bottom."""

    frame: av.VideoFrame
    swapped: bool
    mirrored: bool
    inverted: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.swapped else (height, width)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the picture as shown, (H, W, 3) RGB."""
        # one thread: setting up swscale's own pool costs more than converting a frame
        stored = np.asarray(self.frame.to_ndarray(format="rgb24", threads=1), np.uint8)
        upright = stored.swapaxes(0, 1) if self.swapped else stored
        return upright[:: -1 if self.inverted else 1, :: -1 if self.mirrored else 1]


class Film:
    """An open video file, to be read once: `index` and then `pictures_from`, or `pictures`.

    What FFmpeg raises becomes an `InputError` in every method.
    """

    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path, self._container = path, container
        self._format = container.format.name.split(",")[0]
        with _reading(path):
            self._stream = _moving_stream(path, container)
            self._codec = self._stream.codec_context
            self._codec.thread_count = 1  # the workers of the data loader are the parallelism
            self._codec.options = {"max_pixels": str(LARGEST_FRAME)}

    def index(self) -> Index | None:
        """Read every packet, decoding none; None if the packets do not tell which frames will be shown.

        Raises:
            InputError: the file is truncated.
        """
        stored: list[Stored] = []
        end = Fraction(0)
        with _reading(self._path):
            for packet in self._container.demux():
                if self._format == "matroska" and packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream_index != self._stream.index or not packet.size:
                    continue
                if packet.is_corrupt:
                    raise InputError(f"{self._path} is damaged after {len(stored)} frames: {GET_ANEW}")
                shown = not packet.is_discard and not self._hidden(packet)
                stored.append(Stored(packet.pts, packet.is_keyframe, shown))
            announced = len(self._stream.index_entries) if self._format == "mov" else self._stream.frames
            if len(stored) < announced:
                raise InputError(
                    f"{self._path} is truncated: it has {len(stored)} of {announced} frames: {GET_ANEW}"
                )
        index = _index_of(stored) if self._format in INDEXED else None
        if index is not None and self._format == "matroska":
            self._refuse_early_end(index, end)
        return index

    def pictures(self) -> Iterator[Picture]:
        """Decode the film from its start: every picture that is shown, in order.

        Raises:
            InputError: a frame is damaged, or of another size than the one before.
        """
        return self._decoded(self._container.demux(self._stream))

    def pictures_from(self, number: int, index: Index) -> Iterator[tuple[int, Picture]]:
        """Decode from a key frame at or before picture `number` on: numbers and pictures.

        Raises:
            InputError: as for `pictures`, or what comes out is not what the index announces.
        """
        time = index.times[number]
        with _reading(self._path):
            self._container.seek(index.keys[bisect_right(index.keys, time) - 1], stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets)
            start = first.pts
            if start is None or start > time or not first.is_keyframe:
                raise InputError(f"{self._path}: seeking misses the key frames.")
        expected = bisect_left(index.times, start)
        sound = start == index.start  # nothing comes before it that a frame could refer to
        for picture in self._decoded(chain([first], packets)):
            shown = picture.frame.pts
            if shown is not None and shown < start:
                continue  # stored after the key frame, shown before it
            sound = sound or picture.frame.key_frame
            if not sound or shown != index.times[expected]:
                raise InputError(f"{self._path}: seeking finds another frame than the index announces.")
            yield expected, picture
            expected += 1

    def _decoded(self, packets: Iterable[Packet]) -> Iterator[Picture]:
        first: Picture | None = None
        with _reading(self._path):
            for packet in packets:
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise InputError(f"{self._path} has a damaged frame: {GET_ANEW}")
                    picture = _upright(frame)
                    first = first or picture
                    self._refuse_size(picture, first)
                    yield picture

    def _hidden(self, packet: Packet) -> bool:
        """VP8 has packets for frames that are only referred to; a bit tells them apart (RFC 6386, 9.1)."""
        return self._codec.codec.canonical_name == "vp8" and not bytes(packet)[0] & 0x10

    def _refuse_size(self, picture: Picture, first: Picture) -> None:
        height, width = picture.size
        if picture.size != first.size:
            raise InputError(f"{self._path} changes the size of its frames: encode it again in one size.")
        if min(height, width) < SMALLEST_SIDE or max(height, width) > LONGEST_SHAPE * min(height, width):
            raise InputError(
                f"{self._path} has frames of {width} x {height} pixels: both sides must be at least "
                f"{SMALLEST_SIDE}, and one at most {LONGEST_SHAPE} times the other."
            )

    def _refuse_early_end(self, index: Index, end: Fraction) -> None:
        """Matroska tells its duration: the last frame starts and ends within one step of it."""
        step = max((later - time for time, later in pairwise(index.times)), default=0)
        slack = Fraction(3, 2) * step * (self._stream.time_base or 0)
        duration = Fraction(self._container.duration or 0, av.time_base)
        if slack and end + slack < duration:
            raise InputError(
                f"{self._path} is truncated: it has {float(end):.2f} of {float(duration):.2f} s: {GET_ANEW}"
            )


def _moving_stream(path: Path, container: InputContainer) -> VideoStream:
    """Return the stream that FFmpeg takes for the film, unless that is a cover picture."""
    films = [stream for stream in container.streams.video if not stream.disposition & COVER]
    if not films:
        content = "only a cover picture" if container.streams.video else "no video stream"
        raise InputError(f"{path} has {content}: it cannot be read as a video.")
    best = container.streams.best("video")
    stream = best if best in films else films[0]
    if stream.codec_context is None:
        raise InputError(f"{path} is in a video codec that cannot be decoded: encode it again.")
    return stream


def _index_of(stored: list[Stored]) -> Index | None:
    """Return the index of a film that starts with a key frame, all frames at times of their own."""
    shown = [frame.time for frame in stored if frame.shown]
    known = sorted({time for time in shown if time is not None})
    keys = sorted(frame.time for frame in stored if frame.key and frame.time is not None)
    start = stored[0].time if stored and stored[0].key else None
    if not known or len(known) < len(shown) or start is None or known[0] < start:
        return None
    return Index(known, keys, start)


def _upright(frame: av.VideoFrame) -> Picture:
    """Read the display matrix: row vectors (x, y, 1) times ((a, b, u), (c, d, v), (x0, y0, w)), y down."""
    a, b, c, d = _display_matrix(frame)
    if max(abs(b), abs(c)) <= SLANT * min(abs(a), abs(d)):
        return Picture(frame, swapped=False, mirrored=a < 0, inverted=d < 0)
    if max(abs(a), abs(d)) <= SLANT * min(abs(b), abs(c)):
        return Picture(frame, swapped=True, mirrored=c < 0, inverted=b < 0)
    raise ValueError("it is shown at an angle that is not a multiple of 90 degrees, encode it upright")


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """Return a, b, c, d, as far as PyAV tells: beside data that it cannot name, such as EXIF, the angle."""
    try:
        matrix = cast(bytes | None, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:
        turned = math.radians(frame.rotation)  # counterclockwise
        return math.cos(turned), -math.sin(turned), math.sin(turned), math.cos(turned)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return a, b, c, d
