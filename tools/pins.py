"""Print constraints.txt or environment.yml; `make constraints` writes both.

python tools/pins.py constraints                        the packages installed here, pinned
python tools/pins.py environment < constraints.txt      the same pins as a conda environment
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

# pip belongs to the virtual environment; the others are this repository's own distributions.
UNPINNED = {"pip", "m2pt", "snakemake-executor-plugin-submitit"}
# Packages that only the CUDA builds of torch require, mostly at exact versions.
CUDA = re.compile(r"(cuda|nvidia|triton)\b")

CONSTRAINTS_HEADER = """\
# Exact version of every package in the tested environment. Generated from .venv by `make constraints`.
# The Makefile installs with these pins, and environment.yml is generated from them. A pin applies only if its
# package is required: the CPU build of torch satisfies the pin of torch and needs no CUDA packages.
"""
ENVIRONMENT_HEADER = """\
# Generated from constraints.txt by `make environment.yml`: edit that file, not this one.
# torch installs the CUDA packages of its build. Then install the project and its Slurm executor:
#     conda activate m2pt
#     pip install --no-deps --editable . --editable plugins/snakemake-executor-plugin-submitit
name: m2pt
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def constraints(installed: Iterable[Distribution]) -> str:
    """Return constraints.txt for the installed packages.

    Local version labels, as in `2.0+cpu`, are dropped, so that a pin admits every build of its version.
    """
    versions = {re.sub(r"[-_.]+", "-", package.name).lower(): package.version for package in installed}
    pins = [f"{name}=={versions[name].split('+')[0]}" for name in sorted(versions.keys() - UNPINNED)]
    return CONSTRAINTS_HEADER + "\n".join(pins) + "\n"


def environment(constraints_text: str) -> str:
    """Return environment.yml with the pins of constraints.txt, without the CUDA packages."""
    lines = constraints_text.splitlines()
    pins = [line for line in lines if line and not line.startswith("#") and not CUDA.match(line)]
    return ENVIRONMENT_HEADER + "".join(f"      - {pin}\n" for pin in pins)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["constraints"]:
            sys.stdout.write(constraints(distributions()))
        case ["environment"]:
            sys.stdout.write(environment(sys.stdin.read()))
        case _:
            sys.exit(__doc__)
