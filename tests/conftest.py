"""What is so for all tests: where they run and what they cannot see, signals, datasets that several read."""

import os
import shutil
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

IMPORTABLE = [str(CLONE / "tests/helpers"), str(CLONE / "plugins/snakemake-executor-plugin-submitit")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*IMPORTABLE, os.environ.get("PYTHONPATH")]))

Builder = Callable[..., Path]

_SCRATCH = Path(tempfile.mkdtemp(prefix="m2pt-tests-"))
_SEEN = _SCRATCH / "seen.txt"
"""Refusals of the guard, in this process and in those that tests start; emptied once they are reported."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # pytest was started in the background of a script; what tests start is to hear of Ctrl-C all the same
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_pycollect_makemodule() -> None:
    """Guard the clone before the first module of tests is imported; before, pytest looks into every folder.

    From then on the current folder has links to the clone's files, and nothing that was made in the clone.
    """
    if not _SEEN.exists():
        _SEEN.touch()
        os.chdir(clone_guard.mirror(CLONE, _SCRATCH / "mirror"))
        clone_guard.install(str(CLONE))
        clone_guard.pass_on(str(CLONE), str(_SEEN))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """The tests are over: pytest has gone back to the clone, and clears up by names below open folders."""
    clone_guard.release()


def pytest_unconfigure() -> None:
    shutil.rmtree(_SCRATCH)


@pytest.fixture(autouse=True)
def nothing_of_the_clone_is_seen() -> Iterator[None]:
    """Fail a test that has looked at what the clone has made, also if nobody heard of the refusal.

    A test that ends in another current folder fails as well.
    """
    folder = Path.cwd()
    yield
    left = Path.cwd()
    os.chdir(folder)
    if seen := _SEEN.read_text(encoding="utf-8"):
        _SEEN.write_text("")
        pytest.fail(seen, pytrace=False)
    if left != folder:
        pytest.fail(f"the test has left the current folder at {left}; use monkeypatch.chdir", pytrace=False)


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
