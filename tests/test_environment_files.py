"""constraints.txt, environment.yml and both pyproject.toml describe one environment.

test_makefile.py tests that the Makefile installs this one.
"""

import re
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINNED_LINES = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]
EXECUTOR = "plugins/snakemake-executor-plugin-submitit"
PROJECT, EXECUTOR_PROJECT = (
    tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in (".", EXECUTOR)
)
EXTRAS = PROJECT["optional-dependencies"]

UNPINNED = {"audioop-lts"}
"""Required by newer versions of Python only, and not installable on the one of the pinned environment."""


def is_cuda(name: str) -> bool:
    return name.split("-")[0] in ("cuda", "nvidia", "triton")


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    return dict(line.split("==") for line in PINNED_LINES)


@pytest.fixture(scope="module")
def requirements() -> list[Requirement]:
    """Return the requirements of both distributions, of all extras, that apply to this Python."""
    lines = [*PROJECT["dependencies"], *(line for name in EXTRAS if name != "dev" for line in EXTRAS[name])]
    lines += EXECUTOR_PROJECT["dependencies"]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if not requirement.marker or requirement.marker.evaluate()]


def needed(requirements: list[Requirement]) -> set[str]:
    """Return the names of the requirements and of what they require in turn, by the installed metadata."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    pending = list(requirements)
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        names.add(name)
        for extra in {"", *requirement.extras} - {known for package, known in seen if package == name}:
            seen.add((name, extra))
            for line in distribution(name).requires or []:
                child = Requirement(line)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    pending.append(child)
    return names


def test_constraints_are_exact_sorted_and_name_no_host():
    assert all(re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.]+", line) for line in PINNED_LINES)
    names = [line.split("==")[0] for line in PINNED_LINES]
    assert names == sorted(set(names))


def test_every_requirement_has_a_pin_that_satisfies_it(pins, requirements):
    for requirement in requirements:
        if requirement.name in UNPINNED:
            continue
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), (
            f"constraints.txt pins {pin}, pyproject.toml requires {requirement}"
        )


def test_constraints_pin_everything_that_is_required_and_nothing_else(pins, requirements):
    wanted = needed(requirements) - UNPINNED
    assert wanted - pins.keys() == set(), "required, but not in constraints.txt"
    # without a CUDA build of torch here, the pins of its packages cannot be checked
    unchecked = {name for name in pins if is_cuda(name)}
    assert pins.keys() - wanted - unchecked == set(), "in constraints.txt, but not required"


def test_pinning_the_pinned_packages_gives_constraints_txt(pins):
    freeze = runpy.run_path(str(ROOT / "tools" / "pins.py"))["constraints"]
    spelling = {"pyyaml": "PyYAML", "ruamel-yaml": "ruamel.yaml", "zc-lockfile": "zc.lockfile"}
    build = {"torch": "+cpu"}
    found = [
        (spelling.get(name, name), version + build.get(name, "")) for name, version in reversed(pins.items())
    ]
    own = [("pip", "24.0"), *((project["name"], "0.1.0") for project in (PROJECT, EXECUTOR_PROJECT))]
    installed = [SimpleNamespace(name=name, version=version) for name, version in [*own, *found]]
    assert freeze(installed) == (ROOT / "constraints.txt").read_text()


def test_environment_yml_is_generated_from_constraints_txt():
    command = [sys.executable, "tools/pins.py", "environment"]
    constraints = (ROOT / "constraints.txt").read_text()
    generated = subprocess.run(command, input=constraints, check=True, capture_output=True, text=True)
    assert generated.stdout == (ROOT / "environment.yml").read_text(), "run `make environment.yml`"


def test_conda_gets_the_same_python_and_the_same_pins(pins):
    python, pip, packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert PROJECT["requires-python"] == ">=3.11"
    assert python == "python=3.11"
    assert pip == "pip"
    assert packages["pip"] == [f"{name}=={version}" for name, version in pins.items() if not is_cuda(name)]


def test_dev_combines_all_other_extras():
    (dev,) = EXTRAS["dev"]
    assert Requirement(dev).extras == EXTRAS.keys() - {"dev"}


def test_conda_installs_both_distributions():
    text = (ROOT / "environment.yml").read_text()
    command = f"pip install --no-deps --editable . --editable {EXECUTOR}"
    assert command in text and command in (ROOT / "docs/running.md").read_text()
