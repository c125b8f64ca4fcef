"""A small Kinetics in the real format, to be damaged at will."""

from pathlib import Path

import pytest
from numbered_videos import write_video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "some videos").mkdir(exist_ok=True)
        names = [f"some videos/{split}{label}.mp4" for label in range(2)]
        for name in names:
            write_video(tmp_path / name)
        (tmp_path / f"{split}.csv").write_text(
            "".join(f"{name} {label}\n" for label, name in enumerate(names))
        )
    (tmp_path / "test.csv").write_text((tmp_path / "val.csv").read_text())
    return tmp_path
