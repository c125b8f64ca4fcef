"""What the tests of this folder share beside their fixtures."""

from pathlib import Path

COUNTING = Path(__file__).with_name("counting.py")


def all_steps(number: int) -> str:
    return "".join(f"{step}\n" for step in range(number))
