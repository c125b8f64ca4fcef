"""What pip installs: the two wheels, the command `m2pt`, and a pathway that needs torch alone."""

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
EXECUTOR = ROOT / "plugins/snakemake-executor-plugin-submitit"


def run_python(*arguments: str) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def build(project: Path, folder: Path) -> zipfile.ZipFile:
    """Build a project's wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def modules(project: Path, package: str) -> set[str]:
    return {path.relative_to(project).as_posix() for path in (project / package).rglob("*.py")}


def packed(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build(Path.cwd(), tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile):
    assert packed(wheel) == modules(ROOT, "m2pt") | {"m2pt/py.typed"}


def test_the_executor_is_a_distribution_of_its_own(tmp_path: Path):
    wheel = build(EXECUTOR, tmp_path)
    package = "snakemake_executor_plugin_submitit"
    assert packed(wheel) == modules(EXECUTOR, package)
    described = metadata(wheel, "METADATA")
    assert (
        "Name: snakemake-executor-plugin-submitit\n" in described
        and "# snakemake-executor-plugin-" in described
    )
    assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert not [name for name in packed(wheel) if "m2pt" in wheel.read(name).decode()]


def test_neither_distribution_imports_the_other():
    for project, package, other in (
        (ROOT, "m2pt", "snakemake_executor_plugin_submitit"),
        (EXECUTOR, "snakemake_executor_plugin_submitit", "m2pt"),
    ):
        pattern = re.compile(rf"^\s*(from|import) {other}\b", re.MULTILINE)
        found = [name for name in modules(project, package) if pattern.search((project / name).read_text())]
        assert not found


def test_the_wheel_brings_the_command_the_license_and_requires_torch_alone(wheel: zipfile.ZipFile):
    lines = re.findall(r"^Requires-Dist: (.*)$", metadata(wheel, "METADATA"), re.MULTILINE)
    requirements = [Requirement(line) for line in lines]
    assert [requirement.name for requirement in requirements if requirement.marker is None] == ["torch"]
    assert "m2pt = m2pt.commands:main" in metadata(wheel, "entry_points.txt")
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
