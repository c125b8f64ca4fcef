"""A small text: the English prose in the docstrings of scikit-learn.

The modules of the installed package are parsed with `ast`; none is imported. scikit-learn is under the BSD
3-clause license; `sklearn.externals`, whose licenses differ, and the tests are left out.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from m2pt.datasets.miniature.staging import staged, write_record
from m2pt.datasets.text import FILES
from m2pt.errors import InputError

STREAM = 256
"""Keeps this dataset's random numbers independent of those of the others."""

LEFT_OUT = {"externals", "tests"}
"""Folders with modules that are not read."""

MARKUP = re.compile(r":[\w:+]+:(?=`)|\s+<[^<>`]*>(?=`)|`+__?(?!\w)|`+~?|\*\*")
"""Markup of reStructuredText: roles, targets and ends of named links, backticks and bold."""

PROSE = re.compile(r"(?!.* : )[A-Z][\w ,.;:'\"()/%-]*[a-z)]\.", re.ASCII)
"""Paragraphs that are kept: from a capital to a full stop, without formulas, signatures or doctests."""

UNDERLINE = "-=~^"
"""Characters of the lines below section titles."""

MIN_WORDS = 8


def build(root: Path, *, seed: int, train: int = 400_000, val: int = 40_000) -> None:
    """Write about `train` and `val` bytes, one paragraph per line, without duplicates.

    Every module is used in one split only.

    Raises:
        InputError: there is not enough prose.
    """
    package = Path(str(distribution("scikit-learn").locate_file("sklearn")))
    draw = np.random.default_rng([seed, STREAM])
    names = draw.permutation(module_names(package)).tolist()
    written: set[str] = set()
    sources: dict[str, list[str]] = {}
    with staged(root) as folder:
        for split, size in (("val", val), ("train", train)):
            sources[split] = []
            text = bytearray()
            while len(text) < size:
                if not names:
                    raise InputError(
                        f"scikit-learn's docstrings have less prose than val = {val} and train = {train} "
                        "bytes; give fewer."
                    )
                sources[split].append(names.pop())
                source = (package / sources[split][-1]).read_text(encoding="utf-8")
                for paragraph in paragraphs(source):
                    if paragraph not in written and len(text) < size:
                        written.add(paragraph)
                        text += f"{paragraph}\n".encode()
            (folder / FILES[split]).write_bytes(text)
        write_record(folder, seed=seed, sizes={"train": train, "val": val}, sources=sources)


def module_names(package: Path) -> list[str]:
    """Return the paths of the modules to read, relative to `package`, in alphabetical order."""
    paths = (path.relative_to(package) for path in package.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if not LEFT_OUT & set(path.parts))


def paragraphs(source: str) -> Iterator[str]:
    """Yield the paragraphs of prose in the docstrings of a module's source, each on one line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for lines in _blocks((ast.get_docstring(node) or "").splitlines()):
                paragraph = MARKUP.sub("", " ".join(" ".join(lines).split()))
                if PROSE.fullmatch(paragraph) and paragraph.count(" ") + 1 >= MIN_WORDS:
                    yield paragraph


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield runs of lines with the same indentation, split at empty lines and underlines."""
    for indentation, block in itertools.groupby(lines, key=_indentation):
        if indentation is not None:
            yield list(block)


def _indentation(line: str) -> int | None:
    return len(line) - len(line.lstrip()) if line.strip(f"{UNDERLINE} ") else None
