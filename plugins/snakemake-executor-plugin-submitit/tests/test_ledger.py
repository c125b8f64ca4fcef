"""The ledger is readable after a death at any moment, and says so where it is not."""

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.ledger import Ledger


@pytest.mark.parametrize(
    "line",
    ["[]", "1", '{"intended": [{}]}', '{"intended": [1]}', '{"submitted": {"a": "1"}}', '{"submitted": 1}'],
)
def test_a_damaged_ledger_is_named(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"intended": []}\n' + line + "\n")
    with pytest.raises(WorkflowError, match=r"ledger\.jsonl, line 2: damaged"):
        Ledger(path)
    assert line in path.read_text()


@pytest.mark.parametrize("end", [b'{"inten', b"\xff\xfe", b"[" * 100_000, b'{"x": ' + b"9" * 5000])
def test_an_incomplete_last_line_is_ignored(tmp_path, end):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.intend({"a": ["a.txt"]}, "train-1", "slurm")
    with ledger.path.open("ab") as file:
        file.write(end)
    assert list(Ledger(ledger.path).open) == ["a"]


def test_open_entries_survive_and_the_file_is_compacted(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.intend({"a": ["a.txt"], "b": ["b.txt", "b.log"]}, "train-1", "slurm")
    ledger.submitted({"a": "7_0", "b": "7_1"})
    ledger.intend({"c": []}, "train-2", "slurm")
    ledger.close(["a"], "done")
    with ledger.path.open("a") as file:
        file.write('{"closed": ["b"')
    again = Ledger(ledger.path)
    assert again.open["b"].job_id == "7_1" and again.open["b"].outputs == ["b.txt", "b.log"]
    assert set(again.open) == {"b", "c"}
    assert [entry.key for entry in again.without_ids()["train-2"]] == ["c"]
    assert Ledger(ledger.path).open == again.open
    assert len(ledger.path.read_text().splitlines()) == 1
