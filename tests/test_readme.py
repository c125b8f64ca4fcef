"""README's first Python block is the first thing a reader runs."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_first_python_block_runs_as_it_stands(tmp_path: Path):
    block = re.search(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None, "README.md has no ```python block"
    code = [line for line in block[1].splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) < 10, "the example is to fit in under ten lines"
    run = subprocess.run([sys.executable, "-c", block[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
