"""README's example runs, its table is the committed one, and links and paths in the docs lead somewhere."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2pt.commands import commands

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "config/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
)

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FOLDERS = "m2pt|config|docs|tests|workflow|profiles|benchmarks|tools|plugins"
_PATH = re.compile(rf"(?<![\w./-])(?:{_FOLDERS})/[\w./-]*\w/?")
_EXAMPLES = {"config/mine.yaml", "config/recipes/mine", "profiles/mine", "m2pt/a/b.py", "tests/a/test_b.py"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    count: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{count[slug]}" if count[slug] else slug)
        count[slug] += 1
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Yield the relative links of a page that lead nowhere."""
    for link in _LINK.findall(re.sub(r"`[^`]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def test_the_first_python_block_runs_as_it_stands(tmp_path: Path):
    block = re.search(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None, "README.md has no ```python block"
    code = [line for line in block[1].splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 10, "the example must fit in ten lines"
    run = subprocess.run([sys.executable, "-c", block[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_its_table_is_the_miniature_s_and_has_no_gain_of_one_seed():
    def rows(path):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]

    table = rows(ROOT / "docs/miniature/table1.md")
    assert [line for line in rows(README) if line in table] == table
    assert not re.findall(r"[\d.]+ \[", re.sub(r"<sub>paper .*?</sub>", "", "\n".join(table)))


@pages
def test_every_relative_link_and_anchor_resolves(page: Path):
    assert list(broken_links(page)) == []


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Two words, a `key:`\n\n[a](page.md#two-words-a-key) [b](gone.md) [c](#gone) [d](https://x.y)\n"
    )
    assert list(broken_links(page)) == ["gone.md", "#gone"]


@pages
def test_every_path_of_the_repository_that_a_page_names_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    outside_links = re.sub(r"\]\([^()\s]+\)|https?://\S+", "", text)
    named = {path.rstrip("/.") for path in _PATH.findall(outside_links)} - _EXAMPLES
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pages
def test_every_command_that_a_page_names_exists(page: Path):
    named = set(re.findall(r"(?:^|`)m2pt ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= commands().keys()


@pages
def test_every_make_target_that_a_page_names_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE)) <= {*targets}


def test_the_architecture_page_names_every_package_of_m2pt():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "m2pt").glob("*/__init__.py")}
    assert sorted(name for name in packages if f"\n  {name}/ " not in page) == []
