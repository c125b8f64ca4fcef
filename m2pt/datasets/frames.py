"""Frames of videos as image files, as for CREMA-D: `<videos>/<item>.flv` to `<frames>/<item>/*.jpg`."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from m2pt.atomic import clear_abandoned, part_of
from m2pt.datasets.video_files import opened
from m2pt.errors import InputError

SUFFIXES = (".flv", ".mp4", ".mkv", ".avi", ".mov", ".webm")
"""Suffixes of video files, in lower case."""

QUALITY = 95
"""JPEG quality of a frame."""


def extract_all(videos: Path, frames: Path, *, fps: float = 1.0, threads: int | None = None) -> int:
    """Extract the frames of all videos in a folder to a folder for each.

    Folders that exist are left as they are: one is complete once it has its name, so that an extraction that
    was stopped goes on where it was.

    Args:
        videos: folder of the video files.
        frames: folder that receives a folder of frames for each, named as the file without its suffix.
        fps: frames per second of video.
        threads: videos to read at once; by default one per core.

    Returns:
        The number of videos that were extracted now.

    Raises:
        InputError: there are no videos, two have the same name, or one cannot be decoded.
        OSError: the disk is full or not writable.
    """
    named: dict[str, Path] = {}
    for path in sorted(videos.iterdir()) if videos.is_dir() else []:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in named:
                raise InputError(f"{path} has the name of {named[path.stem].name}: remove one of them.")
            named[path.stem] = path
    if not named:
        raise InputError(
            f"{videos} is missing or has no video directly in it ({', '.join(SUFFIXES)}); give the folder "
            "that holds the video files."
        )
    frames.mkdir(parents=True, exist_ok=True)
    clear_abandoned(frames)
    waiting = [path for stem, path in named.items() if not (frames / stem).exists()]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        done = pool.map(partial(_extract_into, frames, fps=fps), waiting)
        for _ in tqdm(done, total=len(waiting), desc="extracting frames", unit="video", disable=None):
            pass
    return len(waiting)


def extract(video: Path, folder: Path, *, fps: float = 1.0) -> int:
    """Write the frames shown at 0, 1 / fps, 2 / fps, ... seconds to a new `folder`, and return their number.

    They are `00000.jpg`, `00001.jpg`, ...; the folder appears once it is complete.

    Raises:
        InputError: the video is missing, damaged or not a video.
    """
    part = part_of(folder)
    part.mkdir(parents=True)
    try:
        count = 0
        for count, pixels in enumerate(frames_at(video, fps), start=1):
            Image.fromarray(pixels).save(part / f"{count - 1:05d}.jpg", quality=QUALITY)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count


def frames_at(video: Path, fps: float) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames (H, W, 3) RGB that are shown at 0, 1 / fps, ... seconds after the first one.

    A frame is shown until the next one begins; the last counts once more only if it begins at such a time.

    Raises:
        InputError: the video is missing, damaged, not a video, or its frames have no times.
    """
    step = 1 / Fraction(fps)
    start: Fraction | None = None
    shown: NDArray[np.uint8] | None = None
    wanted = Fraction(0)
    with opened(video) as file:
        for picture in file.frames():
            if picture.frame.pts is None or picture.frame.time_base is None:
                raise InputError(f"{video} has frames without a time: convert it to mp4.")
            time = picture.frame.pts * picture.frame.time_base
            start = time if start is None else start
            while shown is not None and wanted < time - start:
                yield shown
                wanted += step
            shown = picture.pixels()
            if wanted == time - start:
                yield shown
                wanted += step
    if start is None:
        raise InputError(f"{video} has no frames.")


def _extract_into(frames: Path, video: Path, *, fps: float) -> int:
    return extract(video, frames / video.stem, fps=fps)
