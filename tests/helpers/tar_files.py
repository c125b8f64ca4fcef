"""Tar files of named members."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def sample(key: str, label: int | str, content: bytes = b"image") -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", content), (f"{key}.cls", str(label).encode())]
