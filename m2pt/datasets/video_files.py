"""One video file: its video stream, the positions of its frames, and their orientation.

Frames are those that a player shows, as in FFmpeg and decord (used by VideoMAE): frames cut by an edit list
are skipped, and the display matrix, such as that of a phone's video, is applied. Pixels that are not square
are left as they are, as in decord.
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

from m2pt.datasets.reading import reading
from m2pt.errors import InputError

INDEXED = ("mov", "matroska")
"""Containers that store the time of every frame, which seeking needs; mov includes mp4."""

CONTAINERS = (
    *INDEXED,
    *("asf", "av1", "avi", "dv", "flv", "gif", "h264", "hevc", "ivf", "m4v", "mpeg", "mpegts", "mpegvideo"),
    *("mxf", "nut", "obu", "ogg", "rm", "wtv", "yuv4mpegpipe"),
)
"""FFmpeg's names of the supported containers. Playlists and image sequences are excluded: they open other
files and addresses."""

LARGEST_FRAME = 4096 * 4096
"""Most pixels of a frame, twice those of 4K. A header that declares more is damaged or malicious."""

SMALLEST_SIDE, LONGEST_SHAPE = 16, 16
"""Least height and width in pixels, and the largest aspect ratio: scaling the shorter side of a narrow strip
up to that of a view would exhaust the memory."""

SLANT = 0.02
"""Tolerance of a display matrix around multiples of 90 degrees, as a tangent."""

REPLACE = "copy or download it again, or remove it from the lists."

COVER = Disposition.attached_pic | Disposition.timed_thumbnails


@contextmanager
def opened(path: Path) -> Iterator["VideoFile"]:
    """Open a video file, and no other file or address that its name or content may refer to.

    Raises:
        InputError: it is missing, not a regular file, not a video, or has frames above `LARGEST_FRAME`.
    """
    with _reading(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is a folder, pipe or device, not a video file.")
        container = av.open(
            f"file:{path}",  # so that pipe:0 or http://host is a file name
            options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join(CONTAINERS),
                "max_pixels": str(LARGEST_FRAME),
            },
            metadata_errors="replace",
        )
    with container:
        yield VideoFile(path, container)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of FFmpeg and the file system into an `InputError`; see `reading`."""
    with reading(path, "a video"):
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = error.strerror
            if error.errno == errno.EINVAL:  # rejected by the options of `opened`
                reason = (
                    "its format is not supported or its frames exceed 4096 x 4096 pixels; convert it to mp4"
                )
            raise InputError(f"{path} cannot be read as a video: {reason}.") from error


@dataclass(frozen=True)
class Index:
    """The times at which the frames of a video are shown, ascending, in units of the stream's time base.

    `keys` are the times of the key frames, shown or not; `start` is the time of the first stored frame.
    """

    times: list[int]
    keys: list[int]
    start: int


class StoredFrame(NamedTuple):
    """A frame as stored in the container: time, whether it is a key frame, whether it is displayed."""

    time: int | None
    key: bool
    displayed: bool


@dataclass(frozen=True)
class OrientedFrame:
    """A decoded frame and its orientation: first swap rows and columns, then mirror each axis."""

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
        """Return the frame as shown, (H, W, 3) RGB."""
        # one thread: setting up swscale's own pool costs more than converting a frame
        stored = np.asarray(self.frame.to_ndarray(format="rgb24", threads=1), np.uint8)
        upright = stored.swapaxes(0, 1) if self.swapped else stored
        return upright[:: -1 if self.inverted else 1, :: -1 if self.mirrored else 1]


class VideoFile:
    """An open video file, to be read once: `index` and then `frames_from`, or `frames`.

    All methods turn FFmpeg's errors into an `InputError`.
    """

    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path, self._container = path, container
        self._format = container.format.name.split(",")[0]
        with _reading(path):
            self._stream = _main_stream(path, container)
            self._codec = self._stream.codec_context
            self._codec.thread_count = 1  # the workers of the data loader are the parallelism
            self._codec.options = {"max_pixels": str(LARGEST_FRAME)}

    def index(self) -> Index | None:
        """Read every packet without decoding; None if packets do not tell which frames are shown.

        Raises:
            InputError: the file is truncated.
        """
        stored: list[StoredFrame] = []
        end = Fraction(0)
        with _reading(self._path):
            for packet in self._container.demux():
                if self._format == "matroska" and packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream_index != self._stream.index or not packet.size:
                    continue
                if packet.is_corrupt:
                    raise InputError(f"{self._path} is damaged after {len(stored)} frames: {REPLACE}")
                displayed = not packet.is_discard and not self._hidden(packet)
                stored.append(StoredFrame(packet.pts, packet.is_keyframe, displayed))
            declared = len(self._stream.index_entries) if self._format == "mov" else self._stream.frames
            if len(stored) < declared:
                raise InputError(
                    f"{self._path} is truncated: it has {len(stored)} of {declared} frames: {REPLACE}"
                )
        index = _index_of(stored) if self._format in INDEXED else None
        if index is not None and self._format == "matroska":
            self._check_duration(index, end)
        return index

    def frames(self) -> Iterator[OrientedFrame]:
        """Decode the video from its start and yield every frame that is shown, in order.

        Raises:
            InputError: a frame is damaged, or its size differs from the first.
        """
        return self._decoded(self._container.demux(self._stream))

    def frames_from(self, number: int, index: Index) -> Iterator[tuple[int, OrientedFrame]]:
        """Decode from a key frame at or before frame `number` and yield numbers and frames.

        Raises:
            InputError: as for `frames`, or the decoded frames differ from the index.
        """
        time = index.times[number]
        with _reading(self._path):
            self._container.seek(index.keys[bisect_right(index.keys, time) - 1], stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets)
            start = first.pts
            if start is None or start > time or not first.is_keyframe:
                raise InputError(f"{self._path}: seeking does not reach a key frame.")
        expected = bisect_left(index.times, start)
        intact = start == index.start  # there is no earlier frame to refer to
        for picture in self._decoded(chain([first], packets)):
            pts = picture.frame.pts
            if pts is not None and pts < start:
                continue  # stored after the key frame, displayed before it
            intact = intact or picture.frame.key_frame
            if not intact or pts != index.times[expected]:
                raise InputError(f"{self._path}: seeking finds frames that are not in the index.")
            yield expected, picture
            expected += 1

    def _decoded(self, packets: Iterable[Packet]) -> Iterator[OrientedFrame]:
        first: OrientedFrame | None = None
        with _reading(self._path):
            for packet in packets:
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise InputError(f"{self._path} has a damaged frame: {REPLACE}")
                    picture = _upright(frame)
                    first = first or picture
                    self._check_size(picture, first)
                    yield picture

    def _hidden(self, packet: Packet) -> bool:
        """Return True for VP8 packets of frames that are only referred to, not shown (RFC 6386, 9.1)."""
        return self._codec.codec.canonical_name == "vp8" and not bytes(packet)[0] & 0x10

    def _check_size(self, picture: OrientedFrame, first: OrientedFrame) -> None:
        height, width = picture.size
        if picture.size != first.size:
            raise InputError(f"{self._path} has frames of different sizes: encode it again in one size.")
        if min(height, width) < SMALLEST_SIDE or max(height, width) > LONGEST_SHAPE * min(height, width):
            raise InputError(
                f"{self._path} has frames of {width} x {height} pixels: both sides must be at least "
                f"{SMALLEST_SIDE}, and one at most {LONGEST_SHAPE} times the other."
            )

    def _check_duration(self, index: Index, end: Fraction) -> None:
        """Check that the last frame ends within one step of the duration, which Matroska declares."""
        step = max((later - time for time, later in pairwise(index.times)), default=0)
        slack = Fraction(3, 2) * step * (self._stream.time_base or 0)
        duration = Fraction(self._container.duration or 0, av.time_base)
        if slack and end + slack < duration:
            raise InputError(
                f"{self._path} is truncated: it has {float(end):.2f} of {float(duration):.2f} s: {REPLACE}"
            )


def _main_stream(path: Path, container: InputContainer) -> VideoStream:
    """Return FFmpeg's best video stream, unless that is a cover picture."""
    streams = [stream for stream in container.streams.video if not stream.disposition & COVER]
    if not streams:
        content = "only a cover picture" if container.streams.video else "no video stream"
        raise InputError(f"{path} has {content}: it cannot be read as a video.")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise InputError(f"{path} has an unsupported video codec: encode it again.")
    return stream


def _index_of(stored: list[StoredFrame]) -> Index | None:
    """Return the index of a video that starts with a key frame and has frames with different times."""
    displayed = [frame.time for frame in stored if frame.displayed]
    times = sorted({time for time in displayed if time is not None})
    keys = sorted(frame.time for frame in stored if frame.key and frame.time is not None)
    start = stored[0].time if stored and stored[0].key else None
    if not times or len(times) < len(displayed) or start is None or times[0] < start:
        return None
    return Index(times, keys, start)


def _upright(frame: av.VideoFrame) -> OrientedFrame:
    """Apply the display matrix: row vectors (x, y, 1) times ((a, b, u), (c, d, v), (x0, y0, w)), y down."""
    a, b, c, d = _display_matrix(frame)
    if max(abs(b), abs(c)) <= SLANT * min(abs(a), abs(d)):
        return OrientedFrame(frame, swapped=False, mirrored=a < 0, inverted=d < 0)
    if max(abs(a), abs(d)) <= SLANT * min(abs(b), abs(c)):
        return OrientedFrame(frame, swapped=True, mirrored=c < 0, inverted=b < 0)
    raise ValueError("it is rotated by an angle that is not a multiple of 90 degrees; encode it upright")


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """Return a, b, c, d; from the angle alone where PyAV cannot name other side data, such as EXIF."""
    try:
        matrix = cast(bytes | None, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:
        turned = math.radians(frame.rotation)  # counterclockwise
        return math.cos(turned), -math.sin(turned), math.sin(turned), math.cos(turned)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return a, b, c, d
