"""Without a writable home folder, libraries get another cache folder and do not warn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2pt.caches import provide_cache

NOWHERE = ["/proc/none", "/dev/null/none", "/none-at-all"]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Variables unset, temporary files in a folder of the test."""
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


def test_writable_folders_are_kept(environment, tmp_path):
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


def test_an_unwritable_cache_is_replaced_although_home_is_writable(environment, tmp_path):
    environment.setenv("HOME", str(tmp_path))
    environment.setenv("XDG_CACHE_HOME", NOWHERE[0])
    provide_cache()
    assert os.environ["XDG_CACHE_HOME"].startswith(str(tmp_path)) and "MPLCONFIGDIR" not in os.environ


def test_a_missing_cache_folder_is_created(environment, tmp_path):
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


def test_nothing_is_set_if_no_folder_is_writable(environment):
    environment.setenv("HOME", NOWHERE[0])
    environment.setattr("tempfile.tempdir", NOWHERE[0])
    provide_cache()
    assert "XDG_CACHE_HOME" not in os.environ and "MPLCONFIGDIR" not in os.environ


def test_a_folder_of_another_user_is_not_used(environment, tmp_path):
    environment.setenv("HOME", NOWHERE[0])
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"m2pt-cache-{os.getuid()}").symlink_to(tmp_path / "theirs")
    provide_cache()
    assert Path(os.environ["XDG_CACHE_HOME"]).name.startswith("m2pt-cache-")
    assert not Path(os.environ["XDG_CACHE_HOME"]).is_symlink()


def test_matplotlib_does_not_warn(environment, tmp_path):
    environment.setenv("HOME", NOWHERE[0])
    provide_cache()
    code = "import matplotlib.pyplot"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MPLCONFIGDIR" not in run.stderr and "mkdir" not in run.stderr, run.stderr
