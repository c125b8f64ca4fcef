"""The Makefile creates the environment completely or not at all. A script stands in for Python and pip."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m2pt.tracking.mlflow_store import sqlite_uri

ROOT = Path(__file__).parents[1]
EXECUTOR = "plugins/snakemake-executor-plugin-submitit"
EVERYTHING = f"--editable .[dev] --editable {EXECUTOR}"

# Passes any check; `-m venv` copies the script itself; `-m pip` appends its arguments and pins to pip.log and
# fails while the file `offline` exists.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *"-m venv "*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    *"-m pip "*)
        echo "$*" >> pip.log
        while [ "$1" != --constraint ]; do shift; done
        cat "$2" >> pip.log
        if test -e offline; then echo "ERROR: no network"; exit 1; fi ;;
    *--version*) echo "Python 3.12.1" ;;
esac
"""
OLD_PYTHON = """#!/usr/bin/env bash
case "$*" in
    *--version*) echo "Python 3.10.13" ;;
    *) exit 1 ;;
esac
"""


class Checkout:
    """A folder with the Makefile, pins, and programs that come first on PATH."""

    def __init__(self, root: Path):
        self.root = root
        self.programs = root / "bin"
        self.programs.mkdir()
        shutil.copy(ROOT / "Makefile", root)
        for project in (root, root / EXECUTOR):
            project.mkdir(parents=True, exist_ok=True)
            (project / "pyproject.toml").touch()
        (root / "constraints.txt").write_text("nvidia-nccl-cu13==2.30.7\ntorch==2.14.1\n")
        self.add_program("python3", PYTHON)

    def add_program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        # the variables of a `make test VARIABLE=...` around these tests are not for this make
        own = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "PYTHON", "TORCH_FLAGS", "RESULTS")
        own += ("MLFLOW_TRACKING_URI", "XDG_CACHE_HOME")
        kept = {name: value for name, value in os.environ.items() if name not in own}
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(
            command, cwd=self.root, env={**kept, **environment, "PATH": path}, capture_output=True, text=True
        )

    def installs(self) -> list[str]:
        """Return the arguments of every run of pip so far."""
        log = self.root / "pip.log"
        return [line for line in log.read_text().splitlines() if "pip" in line] if log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_environment_is_created_once(checkout: Checkout):
    assert checkout.make(".venv/complete").returncode == 0
    assert (checkout.root / ".venv" / "complete").exists()
    assert not (checkout.root / ".venv" / "incomplete").exists()
    assert checkout.make(".venv/complete").returncode == 0
    (install,) = checkout.installs()
    assert install.endswith(f"--constraint constraints.txt {EVERYTHING}")


def test_a_failed_installation_is_reported_and_restarted_from_nothing(checkout: Checkout):
    (checkout.root / "offline").touch()
    failed = checkout.make(".venv/complete")
    assert failed.returncode != 0
    assert "ERROR: no network" in failed.stderr
    assert not (checkout.root / ".venv" / "complete").exists()
    (checkout.root / ".venv" / "left-behind").touch()
    (checkout.root / "offline").unlink()
    assert checkout.make(".venv/complete").returncode == 0
    assert not (checkout.root / ".venv" / "left-behind").exists()
    assert (checkout.root / ".venv" / "complete").exists()


@pytest.mark.parametrize("file", ["pyproject.toml", f"{EXECUTOR}/pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_into_a_complete_environment(checkout: Checkout, file: str):
    checkout.make(".venv/complete")
    (checkout.root / ".venv" / "kept").touch()
    stamp = (checkout.root / ".venv" / "complete").stat().st_mtime
    os.utime(checkout.root / file, (stamp + 1, stamp + 1))
    assert checkout.make(".venv/complete").returncode == 0
    assert len(checkout.installs()) == 2
    assert (checkout.root / ".venv" / "kept").exists()


def test_a_chosen_build_of_torch_comes_first_and_is_free_of_the_cuda_pins(checkout: Checkout):
    assert checkout.make(".venv/complete", "TORCH_FLAGS=--index-url URL").returncode == 0
    torch, everything = checkout.installs()
    assert torch.endswith("--no-deps --index-url URL torch torchvision")
    assert everything.endswith(EVERYTHING)
    pins = [line for line in (checkout.root / "pip.log").read_text().splitlines() if "==" in line]
    assert pins == ["torch==2.14.1", "torch==2.14.1"]


def test_an_old_python_is_refused_and_a_newer_one_on_this_machine_named(checkout: Checkout):
    for name in ("python3", "python3.14", "python3.13"):
        checkout.add_program(name, OLD_PYTHON)
    checkout.add_program("python3.12", PYTHON)
    refused = checkout.make("test")
    assert refused.returncode != 0
    assert "python3 is Python 3.10.13: Python 3.11 or newer with its venv module is needed" in refused.stderr
    assert "make test PYTHON=python3.12" in refused.stderr
    assert not (checkout.root / ".venv").exists()
    assert checkout.make(".venv/complete", "PYTHON=python3.12").returncode == 0


def test_table1_is_the_documented_snakemake_command_in_the_environment(checkout: Checkout):
    steps = checkout.make("--dry-run", "table1").stdout.splitlines()
    assert steps[-2].endswith("snakemake --cores all results/table1.csv")
    assert steps[-1] == "cat results/table1.md"
    assert steps[-2].startswith('PATH="$PWD/.venv/bin:$PATH" ')


def test_no_path_or_name_is_run_as_code(tmp_path: Path):
    """The folder of the clone, RESULTS and the tracking URI are one word each, whatever they contain."""
    root = tmp_path / "it's 1; touch RAN # & é"
    root.mkdir()
    checkout = Checkout(root)
    assert checkout.make(".venv/complete").returncode == 0
    program = '#!/usr/bin/env bash\necho "$MLFLOW_BACKEND_STORE_URI|$XDG_CACHE_HOME|$*"\n'
    python = f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} "$@"\n'
    for name, text in (("mlflow", program), ("snakemake", program), ("python", python)):
        (root / ".venv/bin" / name).write_text(text)
        (root / ".venv/bin" / name).chmod(0o755)
    for results in ("my $(touch RAN) `touch RAN` $HOME; touch RAN", "100 %? & more"):
        said = checkout.make("mlflow-ui", f"RESULTS={results}").stdout
        assert said.startswith(f"{sqlite_uri(Path(results, 'mlflow.db'))}|")
        assert said.endswith("|ui --workers 1\n") and (root / results).is_dir()
    said = checkout.make("mlflow-ui", MLFLOW_TRACKING_URI="postgresql://user:secret@host/runs").stdout
    assert said.split("|")[2] == "ui --workers 1\n"  # the URI is not among the arguments, which ps shows
    assert not list(root.rglob("RAN"))


@pytest.mark.parametrize("name", ["my $(touch RAN)", "my `touch RAN`", 'my "1"', "my\\x", "my:x", "$HOME"])
def test_a_folder_that_no_environment_can_be_in_is_refused(tmp_path: Path, name: str):
    """The scripts of pip would run what is between the quotes."""
    root = tmp_path / name
    root.mkdir()
    refused = Checkout(root).make("table1")
    assert refused.returncode != 0 and refused.stderr.startswith(f"{root}: no environment can be created")
    assert len(refused.stderr.splitlines()) == 2  # the second is make's
    assert not (root / ".venv").exists() and not list(root.rglob("RAN"))


@pytest.mark.parametrize(
    "home",
    [
        {"HOME": "/proc/none"},
        {"HOME": "/dev/null/x"},
        {"XDG_CACHE_HOME": "/proc/none"},
        {"XDG_CACHE_HOME": "/dev/null"},
    ],
)
def test_snakemake_gets_a_cache_that_can_be_written(checkout: Checkout, home: dict[str, str]):
    assert checkout.make(".venv/complete").returncode == 0
    program = checkout.root / ".venv/bin/snakemake"
    program.write_text('#!/usr/bin/env bash\necho "cache: $XDG_CACHE_HOME"\n')
    program.chmod(0o755)
    (checkout.root / "results").mkdir()
    (checkout.root / "results/table1.md").touch()
    assert f"cache: {checkout.root}/.venv/cache\n" in checkout.make("table1", **home).stdout
    writable = checkout.make("table1", XDG_CACHE_HOME=f"{checkout.root}/mine").stdout
    assert f"cache: {checkout.root}/mine\n" in writable
