"""docs/pathway.md: its examples run as they stand, and its table of models is what `attach` finds in them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import FAMILIES, build

from m2pt.pathway import attach, scales

PAGE = (Path(__file__).parents[2] / "docs/pathway.md").read_text(encoding="utf-8")
KEY = re.compile(
    r"(?P<blocks>.*?)\.(?:\w+_)?(?P<number>\d+)\.(?P<path>.*)\.pathways\.auxiliary\.(?P<part>\w*)scale"
)


def found(family: str) -> str:
    """Return the row of a family: where its blocks are, and the matrices of the first."""
    model = build(family, 0)
    attach(model, build(family, 1))
    keys = [match for match in map(KEY.fullmatch, scales(model)) if match]
    assert len(keys) == len(scales(model)) and len({key["blocks"] for key in keys}) == 1
    first = [
        f"`{key['path']}{'.' * bool(key['part'])}{key['part'] and key['part'] + 'weight'}`"
        for key in keys
        if key["number"] == "0"
    ]
    return f"| {family} | `{keys[0]['blocks']}` | {', '.join(first)} |"


def test_the_table_is_what_is_found() -> None:
    table = PAGE[PAGE.index("| family |") :].splitlines()[2:]
    assert table == [found(family) for family in FAMILIES]


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # one writes a file
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for example in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(example, "docs/pathway.md", "exec"), names)
    assert set(scales(names["model"])) == set() and len(scales(names["target"])) == 12
    assert len(scales(names["blocks"])) == 2
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(names["colleague"].eval()(x), names["target"].eval()(x))
