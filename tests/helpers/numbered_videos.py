"""Videos whose frames carry their numbers, and how a clip's frames are read back."""

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from m2pt.datasets.augmentations import ClipAugmentation
from m2pt.datasets.images import MEAN, STD
from m2pt.datasets.video import read_frames, video_problem
from m2pt.errors import InputError

LENGTH = 60
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"
FINETUNING = ClipAugmentation(scale=(0.3, 1), auto_augment=RAND_AUGMENT, color_jitter=0.4, reprob=0.5)


def picture(number: int) -> np.ndarray:
    """Return six stripes, black or white as the digits of the number in base 2: compression keeps them."""
    digits = [255 * (number >> digit & 1) for digit in range(6)]
    return np.broadcast_to(np.repeat(np.uint8(digits), 8)[None, :, None], (48, 48, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """Read the stripes of frames (T, H, W, 3)."""
    stripe = frames.shape[2] // 6
    rows = frames[:, frames.shape[1] // 2, stripe // 2 :: stripe, 0][:, :6]
    return ((rows > 127) @ (1 << np.arange(6))).tolist()


def pixels(clip: torch.Tensor) -> np.ndarray:
    """Undo the normalization of a clip (3, T, H, W): frames (T, H, W, 3) in 0 to 255."""
    return (255 * (clip.permute(1, 2, 3, 0) * torch.tensor(STD) + torch.tensor(MEAN))).numpy()


def write_video(
    path: Path,
    times: Sequence[int] = range(LENGTH),
    *,
    codec: str = "mpeg4",
    b_frames: int = 0,
    pixels: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    movflags: str = "",
) -> None:
    """Write one numbered frame per time (in 1/25 s), a key frame every 15."""
    container = av.open(str(path), "w", options={"movflags": movflags} if movflags else {})
    stream = container.add_stream(codec, rate=25, options=dict(options or {}))
    stream.height, stream.width, stream.pix_fmt = 48, 48, pixels
    context = stream.codec_context
    context.gop_size, context.max_b_frames, context.time_base = 15, b_frames, Fraction(1, 25)
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
    container.close()


def copy_packets(
    source: Path, target: Path, change: Callable[[int, bytes], bytes] = lambda number, data: data
) -> None:
    """Write the packets of a video's first stream to another file, perhaps with other content."""
    with av.open(str(source)) as original, av.open(str(target), "w") as changed:
        stream = changed.add_stream_from_template(original.streams.video[0])
        packets = [packet for packet in original.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            copy = av.Packet(change(number, bytes(packet)))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.duration, copy.is_keyframe, copy.stream = packet.duration, packet.is_keyframe, stream
            changed.mux(copy)


def decoded(path: Path) -> np.ndarray:
    """Return all frames (N, H, W, 3) as they are stored, by decoding from the start."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write_jpegs(path: Path, pictures: list[bytes]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuvj420p"
        container.start_encoding()
        for number, content in enumerate(pictures):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)


def jpeg(pixels: np.ndarray, orientation: int | None = None) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    if orientation:
        exif[0x112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def frame_numbers(path: Path) -> list[int]:
    """Return the numbers of all frames; they are the same when each is read by itself."""
    seen: list[int] = []
    together = numbers(read_frames(path, lambda length: seen.append(length) or range(length)))
    assert seen == [len(together)]
    for number in range(0, len(together), 7):
        wanted = [number, number, len(together) - 1]
        assert numbers(read_frames(path, lambda length, wanted=wanted: wanted)) == [
            together[number] for number in wanted
        ]
    return together


def refused(path: Path) -> str:
    """Return the sentence of the check, which is the reader's also."""
    problem = video_problem(path)
    assert problem is not None and str(path) in problem
    with pytest.raises(InputError) as error:
        read_frames(path, range)
    assert str(error.value) == problem
    return problem
