"""The examples of docs/agm.md run as they stand, and need torch only."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/agm.md"

FAST_MODEL = """
class Fast(Model):
    def encode(self, modality, input):
        return getattr(self, modality)(input).relu()

    def fuse(self, features):
        return self.head(torch.cat([features["audio"], features["visual"]], 1))

heads = {name: nn.Linear(32, 4) for name in names}
"""
METHODS = {
    "Joint": "method = Joint(model, names)",
    "AdaptiveGradientModulation": "method = AdaptiveGradientModulation(model, names)",
    "OGM": 'method = OGM(model, names, alpha=0.8, parameters="all", encoders=encoders)',
    "MSES": "method = MSES(model, names, patience=1, encoders=encoders)",
    "GradientBlending": FAST_MODEL + "method = GradientBlending(Fast(), names, heads=heads, super_epoch=2)",
}
"""The line that the page says to replace, with the arguments that it says are required."""


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def printed(code: str, folder: Path) -> list[list[str]]:
    """Run code on its own; return the words of each line that it prints."""
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [line.split() for line in run.stdout.splitlines()]


def test_the_example_runs_and_lists_scores_and_coefficients(tmp_path: Path) -> None:
    epochs = printed(blocks()[0], tmp_path)
    assert [line[0] for line in epochs] == ["1", "2", "3"]
    losses = [float(line[1]) for line in epochs]
    coefficients = [float(value) for line in epochs for value in line[2:]]
    assert losses[2] < losses[0]
    assert len(coefficients) == 6 and all(0 <= value != 1 for value in coefficients)


def test_the_loop_trains_with_every_method(tmp_path: Path) -> None:
    first, loop = blocks()
    loops = [loop]
    for line in METHODS.values():
        other, replaced = re.subn(r"^method = .*$", lambda _, line=line: line, loop, flags=re.MULTILINE)
        assert replaced == 1
        loops.append(f"from m2pt.agm import *\n{other}")
    lines = printed("\n".join([first, *loops]), tmp_path)[3:]
    assert [int(line[0]) for line in lines] == [*range(1, 9)] * len(loops)
    for start in range(0, len(lines), 8):
        assert float(lines[start + 7][1]) < float(lines[start][1])
        assert float(lines[start + 7][2]) > 0.5  # chance: 0.25


def test_the_table_of_arguments_lists_every_method() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = re.search(r"^\| method \| required arguments .*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    listed = set(re.findall(r"^\| `(\w+)`", table[0], re.MULTILINE))
    assert listed == {*METHODS, "MSLR"}
