"""Datasets that several tests read, built once, to be left as they are; signals as in a terminal."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from m2pt.datasets.layouts import miniature_module

Builder = Callable[..., Path]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # pytest was started in the background of a script; what tests start is to hear of Ctrl-C all the same
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
