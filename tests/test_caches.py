"""Without a home folder that can be written, libraries get another place, and nobody hears of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2pt.caches import provide_cache

NOWHERE = ["/proc/none", "/dev/null/none", "/none-at-all"]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No such variable set, and temporary files in a folder of the test's own."""
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize("home", NOWHERE)
def test_an_unwritable_home_is_replaced(environment, tmp_path, home):
    environment.setenv("HOME", home)
    provide_cache()
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert cache == tmp_path / f"m2pt-cache-{os.getuid()}" and cache.stat().st_mode & 0o77 == 0
    assert os.environ["MPLCONFIGDIR"] == str(cache / "matplotlib")


def test_what_can_be_written_stays(environment, tmp_path):
    environment.setenv("HOME", str(tmp_path))
    provide_cache()
    assert "XDG_CACHE_HOME" not in os.environ and "MPLCONFIGDIR" not in os.environ
    mine = tmp_path / "mine"
    mine.mkdir()
    environment.setenv("XDG_CACHE_HOME", str(mine))
    environment.setenv("HOME", NOWHERE[0])
    provide_cache()
    assert os.environ["XDG_CACHE_HOME"] == str(mine)
    assert os.environ["MPLCONFIGDIR"] == str(mine / "matplotlib")


def test_an_unwritable_cache_is_replaced_beside_a_writable_home(environment, tmp_path):
    environment.setenv("HOME", str(tmp_path))
    environment.setenv("XDG_CACHE_HOME", NOWHERE[0])
    provide_cache()
    assert os.environ["XDG_CACHE_HOME"].startswith(str(tmp_path)) and "MPLCONFIGDIR" not in os.environ


def test_a_cache_folder_that_can_be_made_is_made(environment, tmp_path):
    environment.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    provide_cache()
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "mine") and (tmp_path / "mine").is_dir()


def test_an_unwritable_cache_in_a_writable_home_is_replaced(environment, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / ".cache").symlink_to(NOWHERE[0])
    environment.setenv("HOME", str(home))
    provide_cache()
    assert Path(os.environ["XDG_CACHE_HOME"]).is_dir() and "MPLCONFIGDIR" not in os.environ


def test_where_nothing_can_be_written_nothing_is_set(environment):
    environment.setenv("HOME", NOWHERE[0])
    environment.setattr("tempfile.tempdir", NOWHERE[0])
    provide_cache()
    assert "XDG_CACHE_HOME" not in os.environ and "MPLCONFIGDIR" not in os.environ


def test_a_folder_that_somebody_else_has_put_there_is_not_taken(environment, tmp_path):
    environment.setenv("HOME", NOWHERE[0])
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"m2pt-cache-{os.getuid()}").symlink_to(tmp_path / "theirs")
    provide_cache()
    assert Path(os.environ["XDG_CACHE_HOME"]).name.startswith("m2pt-cache-")
    assert not Path(os.environ["XDG_CACHE_HOME"]).is_symlink()


def test_matplotlib_has_nothing_to_say(environment, tmp_path):
    environment.setenv("HOME", NOWHERE[0])
    provide_cache()
    code = "import matplotlib.pyplot"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MPLCONFIGDIR" not in run.stderr and "mkdir" not in run.stderr, run.stderr
