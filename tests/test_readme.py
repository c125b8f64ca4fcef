"""README's first Python block runs as it stands, and its table is what the code prints."""

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


def test_its_table_is_the_miniature_s_and_has_no_gain_of_one_seed():
    def rows(path):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]

    table = rows(README.parent / "docs/miniature/table1.md")
    assert [line for line in rows(README) if line in table] == table
    assert not re.findall(r"[\d.]+ \[", re.sub(r"<sub>paper .*?</sub>", "", "\n".join(table)))
