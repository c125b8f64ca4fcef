"""What is so for all tests: where they run and what they cannot see, signals, datasets that several read."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m2pt.datasets.layouts import miniature_module

CLONE = Path(__file__).parents[1]
sys.path.append(str(CLONE / "tests/clone_guard"))
import clone_guard  # noqa: E402

Builder = Callable[..., Path]

_SEEN = Path(tempfile.mkstemp(prefix="m2pt-tests-", suffix=".txt")[1])
"""Refusals of the guard, in this process and in those that tests start; emptied once they are reported."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # pytest was started in the background of a script; what tests start is to hear of Ctrl-C all the same
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_pycollect_makemodule() -> None:
    """Begin before the first module of tests is imported; pytest itself looks at every folder before."""
    clone_guard.install(str(CLONE))
    clone_guard.pass_on(str(CLONE), str(_SEEN))


def pytest_unconfigure() -> None:
    _SEEN.unlink(missing_ok=True)


@pytest.fixture(scope="session", autouse=True)
def outside_of_the_clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests run in a folder with links to the clone's files, and without what was made in the clone."""
    before = Path.cwd()
    os.chdir(clone_guard.mirror(CLONE, tmp_path_factory.mktemp("mirror")))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def nothing_of_the_clone_is_seen() -> Iterator[None]:
    """Fail a test in which something made in the clone was looked at, also if nobody heard of the refusal."""
    yield
    if seen := _SEEN.read_text(encoding="utf-8"):
        _SEEN.write_text("")
        pytest.fail(seen, pytrace=False)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    def build(layout: str, **sizes: int) -> Path:
        root = tmp_path_factory.mktemp("miniatures") / layout
        miniature_module(layout).build(root, seed=0, **sizes)
        return root

    return build


@pytest.fixture(scope="session")
def imagenet(built: Builder) -> Path:
    return built("imagenet", train=60, val=20)


@pytest.fixture(scope="session")
def coco(built: Builder) -> Path:
    return built("coco", train=50, val=50)


@pytest.fixture(scope="session")
def ade20k(built: Builder) -> Path:
    return built("ade20k", train=24, val=12)
