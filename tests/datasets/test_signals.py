"""What every layout of signals promises, on mutated datasets.

On whatever `check(full=True)` accepts, the reader reads every item, all finite, perfect predictions score
exactly 100 and a manifest can be built. What it refuses, it names. Where the quick form alone accepts a
dataset, an item is finite or an `InputError`: nothing else comes out of a reader.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_mutations import AUDIOSET, wave
from cloud_mutations import CLOUD, CLOUDS, SHAPE, SHAPENET55, SHAPENETPART, SHAPES, TEXT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from partnet_mutations import FILES, H5, PARTNET
from signal_layouts import LAYOUTS, tone

from m2pt.datasets import layouts
from m2pt.datasets.manifest import build_manifest
from m2pt.errors import InputError


def read(name: str, root: Path, split: str) -> list[Any]:
    layout = LAYOUTS[name]
    for augmentation in (layout.augmentation, None):
        reader = layouts.reader(name)(
            root, split, num_classes=layout.classes, augmentation=augmentation, **layout.view
        )
        items = [reader[index] for index in range(len(reader))]
        assert items
        for item in items:
            assert all(torch.as_tensor(part).isfinite().all() for part in item)
    return items


def judge(name: str, root: Path) -> str:
    """Return the form that refuses a dataset, "quick" or "full", or "sound", and keep the promise above."""
    layout = LAYOUTS[name]
    quick, full = (layouts.check(name, root, num_classes=layout.classes, full=full) for full in (False, True))
    if not full:
        assert not quick
        read(name, root, "train")
        items = read(name, root, "val")
        if layout.scores is not None:
            assert set(layout.scores(items).values()) == {100.0}
        assert build_manifest(root, name, full=True)["files"]
        json.dumps(build_manifest(root, name, full=False)).encode()
        return "sound"
    assert all(problem.endswith(".") and "\n" not in problem for problem in full)
    assert any(str(root) in problem for problem in full), full
    if quick:
        return "quick"
    for split in ("train", "val"):
        try:
            read(name, root, split)
        except InputError as error:
            assert str(root) in str(error)
    return "full"


MUTATIONS = {
    "audioset": AUDIOSET,
    "shapenet55": SHAPENET55,
    "shapenetpart": SHAPENETPART,
    "partnet": PARTNET,
    "text": TEXT,
}


@pytest.mark.parametrize(
    ("name", "expected", "mutate"),
    [
        pytest.param(name, expected, mutate, id=f"{name}: {what}")
        for name, mutations in MUTATIONS.items()
        for what, expected, mutate in mutations
    ],
)
def test_a_mutated_dataset_is_sound_or_refused_as_it_should_be(
    name: str, expected: str, mutate: Callable[[Path], Any], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[name].build(root)
    mutate(root)
    assert judge(name, root) == expected


# ---- at random ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in LAYOUTS}
    for name, root in made.items():
        LAYOUTS[name].build(root)
    return made


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=6), values, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["eval/0.wav", "eval/1.wav", "./eval/1.wav", "eval", "/", "..", "", "train/1.wav "])
LABELS = st.sampled_from(["/m/a", "/m/b", "/m/a,/m/b", "/m/b,/m/b", ",", "/m/z", ""])
ENTRY = st.fixed_dictionaries({}, optional={"wav": NAMES | JSON, "labels": LABELS | JSON, "x": JSON})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(ENTRY | JSON, max_size=4) | JSON)
def test_any_list_of_clips(roots: dict[str, Path], data: Any) -> None:
    path = roots["audioset"] / "eval.json"
    kept = path.read_bytes()
    clips = json.loads(kept)["data"]
    path.write_text(json.dumps({"data": [*clips, *data] if isinstance(data, list) else data}))
    try:
        judge("audioset", roots["audioset"])
    finally:
        path.write_bytes(kept)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from([f"shape_data/03797390/{n}" for n in ("test", "val", ".", "")]) | JSON)
    | JSON
)
def test_any_list_of_shapes(roots: dict[str, Path], data: Any) -> None:
    path = roots["shapenetpart"] / SHAPES
    kept = path.read_bytes()
    path.write_text(json.dumps([*json.loads(kept), *data] if isinstance(data, list) else data))
    try:
        judge("shapenetpart", roots["shapenetpart"])
    finally:
        path.write_bytes(kept)


SOUNDS = ["WAV", "WAVEX", "RF64", "AIFF", "AU", "FLAC", "OGG", "MP3"]
TARGETS = [
    *(("audioset", name) for name in ("eval/1.wav", "eval.json", "class_labels_indices.csv")),
    *(("shapenet55", name) for name in (CLOUD, CLOUDS)),
    *(("shapenetpart", name) for name in (SHAPE, SHAPES, "synsetoffset2category.txt")),
    *(("partnet", name) for name in (H5, FILES)),
    ("text", "val.txt"),
]
WORDS = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"nan ", b"1e30", b"\0\0\x80\x7f"]


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """Change, remove or put in a few bytes, half of the time among the first hundred."""
    changed = bytearray(content)
    place = int(draw.integers(min(len(content), 100 if draw.random() < 0.5 else len(content))))
    match draw.integers(4):
        case 0:
            changed[place] = int(draw.integers(256))
        case 1:
            del changed[place : place + int(draw.integers(1, 50))]
        case 2:
            changed[place:place] = draw.bytes(int(draw.integers(1, 9)))
        case _:
            changed[place : place + 4] = WORDS[draw.integers(len(WORDS))]
    return bytes(changed)


@pytest.mark.parametrize(("name", "relative"), TARGETS)
def test_any_damaged_bytes(roots: dict[str, Path], name: str, relative: str) -> None:
    path = roots[name] / relative
    kept = path.read_bytes()
    draw = np.random.default_rng(0)
    verdicts = set()
    try:
        for number in range(48):
            if relative.endswith(".wav"):
                wave(roots[name], tone(), format=SOUNDS[number % len(SOUNDS)])
                path.write_bytes(damaged(path.read_bytes(), draw))
            else:
                path.write_bytes(damaged(kept, draw))
            verdicts.add(judge(name, roots[name]))
    finally:
        path.write_bytes(kept)
    assert verdicts - {"sound"}, "some of the damage is found"
