"""The example of docs/agm.md runs as it stands, and needs torch only."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/agm.md"


def test_the_example_runs_and_lists_scores_and_coefficients(tmp_path: Path) -> None:
    block = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    run = subprocess.run([sys.executable, "-c", block[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    epochs = [line.split() for line in run.stdout.splitlines()]
    assert [line[0] for line in epochs] == ["1", "2", "3"]
    losses = [float(line[1]) for line in epochs]
    coefficients = [float(value) for line in epochs for value in line[2:]]
    assert losses[2] < losses[0]
    assert len(coefficients) == 6 and all(0 <= value != 1 for value in coefficients)
