"""PartNet, damaged: the file and the list of its test split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from mutating import Mutation, file_kinds, text
from signal_layouts import partnet_arrays, write_h5

H5 = "sem_seg_h5/Bag-1/test-00.h5"
FILES = "sem_seg_h5/Bag-1/test_files.txt"


def arrays(**changed: Any) -> Callable[[Path], Any]:
    """Write other arrays to the test file; None leaves one out."""

    def mutate(root: Path) -> None:
        kept = {key: value for key, value in (partnet_arrays() | changed).items() if value is not None}
        write_h5(root / H5, **kept)

    return mutate


def cloud_with(value: float) -> np.ndarray:
    changed = partnet_arrays()["data"]
    changed[1, 3, 2] = value
    return changed


def linked(root: Path, link: Any) -> None:
    (root / H5).rename(root / "sem_seg_h5/Bag-1/elsewhere.h5")
    write_h5(root / H5, **{key: value for key, value in partnet_arrays().items() if key != "data"})
    with h5py.File(root / H5, "a") as file:
        file["data"] = link


def announced(root: Path, shape: tuple[int, ...], chunks: Any = True) -> None:
    """Announce arrays of any size that hold nothing."""
    (root / H5).unlink()
    with h5py.File(root / H5, "w") as file:
        file.create_dataset("data", (*shape, 3), "f4", chunks=chunks)
        file.create_dataset("data_num", shape[:1], "i4", chunks=True, fillvalue=shape[1])
        file.create_dataset("label_seg", shape, "u1", chunks=True)


def in_another_file(root: Path) -> None:
    source = h5py.VirtualSource(str(root / "sem_seg_h5/Bag-1/train-00.h5"), "data", (2, 30, 3))
    layout = h5py.VirtualLayout((2, 30, 3), "f4")
    layout[:] = source
    with h5py.File(root / H5, "a") as file:
        del file["data"]
        file.create_virtual_dataset("data", layout)


PARTNET: list[Mutation] = [
    ("nothing", "sound", lambda r: None),
    *file_kinds(H5),
    *file_kinds(FILES),
    ("fewer points", "sound", arrays(data_num=np.array([30, 20]))),
    ("no point", "full", arrays(data_num=np.array([30, 0]))),
    ("negative points", "full", arrays(data_num=np.array([30, -1]))),
    ("points beyond those stored", "full", arrays(data_num=np.array([30, 31]))),
    ("a class beyond", "full", arrays(label_seg=np.full((2, 30), 3))),
    ("a negative class", "full", arrays(label_seg=np.full((2, 30), -1))),
    ("a huge class", "full", arrays(label_seg=np.full((2, 30), 2**64 - 1, np.uint64))),
    ("nothing labeled", "full", arrays(label_seg=np.zeros((2, 30), int))),
    ("one shape unlabeled", "sound", arrays(label_seg=np.repeat([[0], [2]], 30, axis=1))),
    ("labels as floats", "quick", arrays(label_seg=np.zeros((2, 30)))),
    ("labels as truth values", "quick", arrays(label_seg=np.zeros((2, 30), bool))),
    ("points as integers", "quick", arrays(data=np.zeros((2, 30, 3), int))),
    ("numbers as strings", "quick", arrays(data_num=np.array([b"30", b"30"]))),
    ("double precision", "sound", arrays(data=partnet_arrays()["data"].astype(float))),
    ("NaN", "full", arrays(data=cloud_with(np.nan))),
    ("infinity", "full", arrays(data=cloud_with(np.inf))),
    ("1e30", "full", arrays(data=cloud_with(1e30))),
    ("points all equal", "full", arrays(data=np.ones((2, 30, 3), np.float32))),
    ("no array", "quick", arrays(data=None)),
    ("a number as array", "quick", arrays(data=1.0)),
    ("an empty array", "quick", arrays(data=h5py.Empty("f4"))),
    ("no shape", "quick", arrays(**partnet_arrays(0))),
    ("no stored point", "quick", arrays(**partnet_arrays(2, 0))),
    ("four coordinates", "quick", arrays(data=np.zeros((2, 30, 4), np.float32))),
    ("a group", "quick", lambda r: linked(r, h5py.SoftLink("/"))),
    ("a link to nowhere", "quick", lambda r: linked(r, h5py.SoftLink("/nowhere"))),
    ("a link to another file", "quick", lambda r: linked(r, h5py.ExternalLink("elsewhere.h5", "/data"))),
    ("points of another file", "quick", in_another_file),
    ("10^12 shapes announced", "quick", lambda r: announced(r, (10**12, 30))),
    ("10^9 points announced", "quick", lambda r: announced(r, (2, 10**9))),
    ("a million shapes of nothing", "full", lambda r: announced(r, (10**6, 1000))),
    ("huge pieces", "quick", lambda r: announced(r, (10**5, 1000), chunks=(10**5, 1000, 3))),
    ("truncated", "quick", lambda r: (r / H5).write_bytes((r / H5).read_bytes()[:-500])),
    ("text", "quick", text(H5, "no data")),
    ("a file again", "quick", text(FILES, "test-00.h5\n./test-00.h5\n")),
    ("a file of the other list", "quick", text(FILES, "test-00.h5\ntrain-00.h5\n")),
    ("an absolute path", "quick", text(FILES, "/test-00.h5\n")),
    ("lines of another system", "sound", text(FILES, "test-00.h5\r\n")),
    ("a mark at the start", "sound", text(FILES, "\ufefftest-00.h5\n")),
    ("not UTF-8", "quick", text(FILES, b"\xff.h5\n")),
    ("a null byte", "quick", text(FILES, "te\0st-00.h5\n")),
    ("a missing file in the unused list", "quick", text("sem_seg_h5/Bag-1/val_files.txt", "x.h5\n")),
]
