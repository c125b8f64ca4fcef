"""A dataset made of its downloads and packed by rules, before it is checked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from official_imagenet import Official, write_archives
from tiny_trainings import TINY

REPOSITORY = Path(__file__).parents[2]
MANIFEST = Path("results/data/imagenet.manifest.json")


@pytest.fixture
def official(tmp_path: Path) -> Official:
    return write_archives(tmp_path / "my archives")


@pytest.fixture
def config(tmp_path: Path, official: Official) -> Path:
    """A config whose ImageNet is neither unpacked nor packed."""
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("workflow", "config", "tests/tiny"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    values = yaml.safe_load(TINY.read_text())
    values["results"] = "results"
    values["datasets"]["imagenet"] = {
        "layout": "imagenet",
        "num_classes": 3,
        "root": "my shards",
        "packed_from": "files",
        "prepare": {"downloads": official.folder.name},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def make_manifest(config: Path, *options: str) -> str:
    """Return what Snakemake prints when it makes the manifest, an error too."""
    command = ["snakemake", str(MANIFEST), "--cores", "1", *options, "--configfile", config.name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=config.parent, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_downloads_are_unpacked_then_packed_then_checked(config: Path, official: Official) -> None:
    printed = make_manifest(config)
    shards, files = config.parent / "my shards", config.parent / "files"
    assert (config.parent / MANIFEST).exists(), printed
    assert len(list((files / "train").rglob("*.JPEG"))) == len(official.train)
    assert list((shards / "train").glob("*.tar")) and (shards / "classes.txt").read_text().split()
    for archive in official.folder.iterdir():
        archive.unlink()
    official.folder.rmdir()
    assert "Nothing to be done" in make_manifest(config, "--dry-run"), "the downloads may be deleted then"


def test_downloads_that_are_not_there_are_named_first(config: Path, official: Official) -> None:
    official.folder.rename(config.parent / "elsewhere")
    printed = make_manifest(config)
    assert "datasets.imagenet.prepare.downloads = 'my archives': there is no such folder; " in printed
    assert "or leave out prepare if the dataset is made" in printed
    assert not (config.parent / "files").exists()
