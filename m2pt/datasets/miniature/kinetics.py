"""A small Kinetics: camera moves over scikit-learn's two photographs, as mp4 files.

See `pictures` for the photographs and their licenses. A horizontal flip turns no class into another: pans to
the left and to the right are one class, and so are both senses of rotation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from m2pt.datasets.miniature.pictures import load_photographs
from m2pt.datasets.miniature.staging import staged, write_record

STREAM = 400
"""Keeps this dataset's random numbers independent of those of the others."""

BOUNDARY = 260
"""Training videos show the rows of a photograph above this one, validation videos the others."""

ASPECT = 4 / 3
"""Width of a frame divided by its height."""

LARGEST_HEIGHT = 112
"""Largest mean height of the visible rectangle, in pixels of the photograph."""

PLACES = 5
"""Places drawn for a video, which shows the one of highest contrast: in the sky no move is visible."""

RATE, KEY_FRAME_EVERY, QUANTIZER = 12, 12, 3
"""Frames per second, frames between key frames, MPEG-4 quantizer from 1 (best) to 31."""


@dataclass(frozen=True)
class Shot:
    """The visible rectangle at one time: centered at (x, y) and rotated by `angle` degrees.

    Lengths are in units of the mean height of the rectangle; y points down.
    """

    x: float = 0.0
    y: float = 0.0
    height: float = 1.0
    angle: float = 0.0

    @property
    def half(self) -> NDArray[np.float64]:
        """Half the width and height."""
        return self.height / 2 * np.array([ASPECT, 1])

    @property
    def reach(self) -> NDArray[np.float64]:
        """Distances from the center, along x and y, that the rectangle may extend to."""
        return np.full(2, np.hypot(*self.half)) if self.angle else self.half


def pan(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Move to the left or to the right."""
    way = draw.choice([-1, 1]) * draw.uniform(0.25, 0.5)
    return [Shot(x=way * time) for time in times]


def tilt_up(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Move up."""
    way = draw.uniform(0.25, 0.5)
    return [Shot(y=-way * time) for time in times]


def tilt_down(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Move down."""
    return tilt_up(-times, draw)


def zoom_in(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Show less and less of the photograph."""
    speed = draw.uniform(0.6, 1.0)
    return [Shot(height=np.exp(-speed * time)) for time in times]


def zoom_out(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Show more and more of the photograph."""
    return zoom_in(-times, draw)


def roll(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Rotate in either sense."""
    speed = draw.choice([-1, 1]) * draw.uniform(45, 90)
    return [Shot(angle=speed * time) for time in times]


def shake(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Tremble around one place."""
    places = draw.uniform(0.06, 0.14) * draw.uniform(-1, 1, (len(times), 2))
    return [Shot(x=x, y=y) for x, y in places]


def still(times: NDArray[np.float64], draw: Generator) -> list[Shot]:
    """Stand still."""
    return [Shot() for _ in times]


MOVES: tuple[Callable[[NDArray[np.float64], Generator], list[Shot]], ...] = (
    pan,
    tilt_up,
    tilt_down,
    zoom_in,
    zoom_out,
    roll,
    shake,
    still,
)
"""The classes in label order; each takes times in [-1, 1]."""


def build(
    root: Path, *, seed: int, train: int = 800, val: int = 240, frames: int = 24, size: int = 48
) -> None:
    """Write `train` and `val` mp4 files of `frames` frames of `size` pixels in height, the moves in turn.

    Training and validation show different regions of the photographs. `test.csv` is a copy of `val.csv`, as
    VideoMAE needs it.
    """
    draw = np.random.default_rng([seed, STREAM])
    photographs = load_photographs()
    rows = {"train": slice(0, BOUNDARY), "val": slice(BOUNDARY, None)}
    lists: dict[str, str] = {}
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        for split, count in (("train", train), ("val", val)):
            regions = {f"{name} {split}": pixels[rows[split]] for name, pixels in photographs.items()}
            lists[split], sources[split] = "", list(regions)
            for index in range(count):
                label = index % len(MOVES)
                move, region = MOVES[label], regions[draw.choice(sources[split])]
                name = f"{split}/{move.__name__}/{index:05d}.mp4"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                encode(folder / name, film(region, move(np.linspace(-1, 1, frames), draw), size, draw))
                lists[split] += f"{name} {label}\n"
        for split, text in (*lists.items(), ("test", lists["val"])):
            (folder / f"{split}.csv").write_text(text, encoding="utf-8")
        sizes = {"train": train, "val": val, "frames": frames, "size": size}
        write_record(folder, seed=seed, sizes=sizes, sources=sources)


def film(
    region: NDArray[np.uint8], shots: Sequence[Shot], size: int, draw: Generator
) -> list[NDArray[np.uint8]]:
    """Return the frames (size, about size * ASPECT, 3) of shots at a random scale and place in a region."""
    centers, reaches = (
        np.array([(shot.x, shot.y) for shot in shots]),
        np.array([shot.reach for shot in shots]),
    )
    low, high = (centers - reaches).min(axis=0), (centers + reaches).max(axis=0)
    room = np.array(region.shape[1::-1])
    scale = draw.uniform(0.6, 1) * min(LARGEST_HEIGHT, *(room / (high - low)))
    photograph = Image.fromarray(region)
    places = draw.uniform(-scale * low, room - scale * high, (PLACES, 2))
    middle = shots[len(shots) // 2]
    views = [_see(photograph, place, scale, middle, size) for place in places]
    chosen = places[np.argmax([view.std(axis=(0, 1)).mean() for view in views])]
    return [_see(photograph, chosen, scale, shot, size) for shot in shots]


def _see(
    photograph: Image.Image, origin: NDArray[np.float64], scale: float, shot: Shot, size: int
) -> NDArray[np.uint8]:
    center = origin + scale * np.array([shot.x, shot.y])
    if shot.angle:
        left, top = (center - scale * shot.reach).astype(int).tolist()
        right, bottom = ((center + scale * shot.reach).astype(int) + 1).tolist()
        photograph = photograph.crop((left, top, right, bottom))
        center = center - (left, top)
        photograph = photograph.rotate(shot.angle, Image.Resampling.BILINEAR, center=tuple(center))
    half = scale * shot.half
    box = (*(center - half).tolist(), *(center + half).tolist())
    width = 2 * round(size * ASPECT / 2)  # the encoder needs an even number
    return np.asarray(photograph.resize((width, size), Image.Resampling.BILINEAR, box=box))


def encode(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Write frames (H, W, 3) RGB as MPEG-4 in mp4, the same bytes every time.

    FFmpeg's own MPEG-4 encoder is part of every build; a single thread and the bitexact flags keep versions
    and dates out of the file.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "mpeg4", rate=RATE, options={"qmin": str(QUANTIZER), "qmax": str(QUANTIZER)}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.gop_size, context.thread_count = KEY_FRAME_EVERY, 1
        context.flags |= Flags.bitexact
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", threads=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
