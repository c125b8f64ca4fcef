"""Videos whose frames carry their numbers, and how a clip's frames are read back."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from m2pt.datasets.images import MEAN, STD

LENGTH = 60
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"
FINETUNING = {"scale": [0.3, 1], "auto_augment": RAND_AUGMENT, "color_jitter": 0.4, "reprob": 0.5}


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
    """Undo the normalisation of a clip (3, T, H, W): frames (T, H, W, 3) in 0 to 255."""
    return (255 * (clip.permute(1, 2, 3, 0) * torch.tensor(STD) + torch.tensor(MEAN))).numpy()


def write_video(path: Path, times: Sequence[int] = range(LENGTH)) -> None:
    """Write one numbered frame per time (in 1/25 s), a key frame every 15."""
    container = av.open(str(path), "w")
    stream = container.add_stream("mpeg4", rate=25)
    stream.height, stream.width, stream.pix_fmt = 48, 48, "yuv420p"
    stream.codec_context.gop_size, stream.codec_context.time_base = 15, Fraction(1, 25)
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
    container.close()
