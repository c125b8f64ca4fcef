"""Frames of a dataset's videos: extracted by a rule, before the dataset is checked."""

import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from multimodal_config import write_config

from m2pt.datasets.cremad import FRAMES, SOUNDS
from m2pt.datasets.miniature.cremad import build

REPOSITORY = Path(__file__).parents[2]


def write_video(path, shade):
    """Write two seconds of one shade, in 5 frames a second."""
    with av.open(path, "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


@pytest.fixture
def config(tmp_path):
    """A config whose CREMA-D has videos and no frames."""
    root, videos = tmp_path / "cremad", tmp_path / "my videos"
    build(root, seed=0, train=6, test=6, frames=1, size=32)
    shutil.rmtree(root / FRAMES)
    videos.mkdir()
    for number, sound in enumerate(sorted((root / SOUNDS).iterdir())):
        write_video(videos / f"{sound.stem}.mp4", 20 * number)
    path = write_config(tmp_path / "config")
    values = yaml.safe_load(path.read_text())
    values["datasets"]["cremad"] = {
        "layout": "cremad",
        "num_classes": 6,
        "root": str(root),
        "videos": str(videos),
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_frames_are_extracted_before_the_dataset_is_checked(config, tmp_path):
    target = str(tmp_path / "config/results/data/cremad.manifest.json")
    command = ["snakemake", target, "--cores", "2", "--directory", str(tmp_path), "--configfile", str(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command += ["--snakefile", str(REPOSITORY / "Snakefile")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    frames = tmp_path / "cremad" / FRAMES
    assert len(list(frames.iterdir())) == 12
    assert all(
        [each.name for each in sorted(folder.iterdir())] == ["00000.jpg", "00001.jpg"]
        for folder in frames.iterdir()
    )
    again = subprocess.run(
        [*command, "--dry-run"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "Nothing to be done" in again.stdout + again.stderr
