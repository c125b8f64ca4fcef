"""Mean and standard deviation of the spectrograms of a dataset in AudioSet's layout."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from m2pt.datasets.audioset import Reader, classes


def measure(
    root: Path, clips: int, *, frames: int, mel_bins: int, sample_rate: int
) -> tuple[int, float, float]:
    """Return the number of clips that were read, and mean and standard deviation of their spectrograms.

    As in AST's `get_norm_stats.py`, the padding to `frames` counts, and the values are those before the
    normalization. The standard deviation is that of all values, not AST's mean over batches. Nothing is
    augmented.

    Args:
        root: folder of the dataset.
        clips: most training clips to read; they are evenly spaced in the list.
        frames: frames of a spectrogram, of 10 ms each.
        mel_bins: values of a frame.
        sample_rate: in Hz.

    Raises:
        InputError: the training list is missing or malformed, or a clip cannot be read.
    """
    reader = Reader(
        root,
        "train",
        num_classes=len(classes(root)),
        frames=frames,
        mel_bins=mel_bins,
        sample_rate=sample_rate,
        mean=0.0,
        std=0.5,  # which leaves the values as they are
    )
    chosen = np.linspace(0, len(reader) - 1, min(clips, len(reader))).round().astype(int).tolist()

    def moments(index: int) -> tuple[float, float]:
        values = reader.load(index)[0].double()
        return values.mean().item(), values.square().mean().item()

    # a thread for each core, so torch must not start more in each
    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        bar = tqdm(
            pool.map(moments, chosen), total=len(chosen), desc="spectrograms", unit="clip", disable=None
        )
        mean, square = np.mean(list(bar), axis=0)
    return len(chosen), float(mean), float(np.sqrt(square - mean**2))
