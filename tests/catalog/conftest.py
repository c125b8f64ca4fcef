"""Tests of the catalog run in a project whose workflow has the rules of the kinds of run that they add."""

import shutil
from pathlib import Path

import pytest

STRANGERS_RULES = Path("tests/helpers/strangers/rules.smk")


@pytest.fixture(autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with links to this project's files, and with copies of those that a new kind changes."""
    folder = tmp_path_factory.mktemp("project")
    for path in Path.cwd().iterdir():
        if path.name not in ("Snakefile", "workflow", "profiles"):
            (folder / path.name).symlink_to(path)
    for name in ("workflow", "profiles"):
        shutil.copytree(name, folder / name)
    shutil.copy(STRANGERS_RULES, folder / "workflow/rules/strangers.smk")
    snakefile, profile = Path("Snakefile").read_text(), Path("profiles/slurm/config.yaml").read_text()
    (folder / "Snakefile").write_text(f'{snakefile}\n\ninclude: "workflow/rules/strangers.smk"\n')
    added = profile.replace(
        "  transfer: *training\n", "  transfer: *training\n  joint: *training\n  paired: *training\n"
    )
    (folder / "profiles/slurm/config.yaml").write_text(added)
    monkeypatch.chdir(folder)
    return folder
