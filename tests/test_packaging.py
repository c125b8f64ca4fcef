"""What a person gets from `pip install .`: the wheel, the command, and a pathway that needs torch alone."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import m2pt

ROOT = Path(__file__).parents[1]


def run_python(*arguments: str) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        check=True,
        capture_output=True,
    )
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path)


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.ZipFile):
    executor = "snakemake_executor_plugin_submitit"
    modules = [path for package in ("m2pt", executor) for path in (ROOT / package).rglob("*.py")]
    sources = {path.relative_to(ROOT).as_posix() for path in modules}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == sources | {"m2pt/py.typed", f"{executor}/README.md"}


def test_the_wheel_brings_the_command_the_licence_and_requires_torch_alone(wheel: zipfile.ZipFile):
    (metadata,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    (commands,) = [
        wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/entry_points.txt")
    ]
    requirements = [
        Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    ]
    assert [requirement.name for requirement in requirements if requirement.marker is None] == ["torch"]
    assert "m2pt = m2pt.commands:main" in commands
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_version_is_said_once_and_cited_and_logged(wheel: zipfile.ZipFile):
    assert Path(wheel.filename or "").name.startswith(f"m2pt-{m2pt.__version__}-")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == m2pt.__version__
    assert f"\n## [{m2pt.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def required_by(name: str) -> set[str]:
    """`name` and the distributions that it requires, in turn, without extras."""
    names: set[str] = set()
    pending = [name]
    while pending:
        names.add(current := canonicalize_name(pending.pop()))
        for requirement in map(Requirement, distribution(current).requires or []):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and canonicalize_name(requirement.name) not in names:
                pending.append(requirement.name)
    return names


def test_pathway_works_where_only_torch_is_installed():
    """Every module that comes with neither Python nor torch is made impossible to import."""
    present = {"m2pt"} | required_by("torch")
    absent = [
        module
        for module, owners in packages_distributions().items()
        if present.isdisjoint(canonicalize_name(owner) for owner in owners)
    ]
    assert {"timm", "torchvision", "numpy", "pydantic"} <= set(absent)
    script = f"""
import sys
sys.modules.update(dict.fromkeys({absent!r}))  # None: importing it is a ModuleNotFoundError
import torch
from m2pt.pathway import attach, merge, scales
blocks, auxiliary_blocks = ([torch.nn.Sequential(torch.nn.Linear(4, 4))] for _ in range(2))
attach(blocks, auxiliary_blocks, layers=["0"])
print(len(scales(blocks[0])))
merge(blocks[0])
print(*blocks[0].state_dict())
"""
    assert run_python("-W", "ignore", "-c", script).split() == ["1", "0.weight", "0.bias"]


def test_help_lists_the_commands_without_importing_torch():
    script = """
import sys
from m2pt.commands import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
print("imported:", *sys.modules)
"""
    help_text, imported = run_python("-c", script).split("imported:")
    assert "pretrain" in help_text
    heavy = {"torch", "timm", "torchvision", "numpy", "pandas", "mlflow", "snakemake", "pydantic"}
    assert heavy.isdisjoint(imported.split())
