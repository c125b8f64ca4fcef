"""Print the environment's two generated files; the Makefile says when.

python tools/pins.py constraints                        this interpreter's installed packages, pinned
python tools/pins.py environment < constraints.txt      the same pins as a conda environment
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

# The virtual environment's own tools and the project are no dependencies of the project.
UNPINNED = {"pip", "m2pt"}
# What torch's build for CUDA requires itself, mostly at exact versions, and its build for CPU does not.
CUDA = re.compile(r"(cuda|nvidia|triton)\b")

CONSTRAINTS_HEADER = """\
# Every package of the tested environment at its exact version. Made by `make constraints` from .venv.
# The Makefile installs with these pins; environment.yml is generated from them. A pin binds only where its
# package is required: the CPU build of torch satisfies torch's pin and leaves the CUDA packages out.
"""
ENVIRONMENT_HEADER = """\
# Made from constraints.txt by `make environment.yml`: edit that file, not this one.
# Torch brings the CUDA packages of its build. The project itself is added by:
#     conda activate m2pt && pip install --no-deps --editable .
name: m2pt
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def constraints(installed: Iterable[Distribution]) -> str:
    """Return constraints.txt for `installed`.

    Local version labels are dropped, as in `2.0+cpu`: the pin then admits every build of that version.
    """
    versions = {re.sub(r"[-_.]+", "-", package.name).lower(): package.version for package in installed}
    pins = [f"{name}=={versions[name].split('+')[0]}" for name in sorted(versions.keys() - UNPINNED)]
    return CONSTRAINTS_HEADER + "\n".join(pins) + "\n"


def environment(constraints_text: str) -> str:
    """Return environment.yml with the pins of `constraints_text`, less the CUDA packages."""
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
