import json
import os
import re

import pytest
import torch

from m2pt.errors import InputError
from m2pt.run_files import FINISHED
from m2pt.training import checkpoint
from m2pt.training.run_directory import prepare_directory, write_marker

STATE = {"identity": "a" * 8, "step": 3, "effective_batch": 8, "model": {"w": torch.arange(5000.0)}}


def test_a_checkpoint_round_trips_as_plain_containers(tmp_path):
    checkpoint.save(tmp_path / "resume.pt", STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]
    plain = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert plain["step"] == 3
    assert torch.equal(checkpoint.load(tmp_path / "resume.pt", "a" * 8)["model"]["w"], STATE["model"]["w"])


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "resume.pt"
    checkpoint.save(path, STATE)
    size = path.stat().st_size
    os.truncate(path, int(kept * size) if isinstance(kept, float) else kept)
    for lazy in (False, True):
        with pytest.raises(InputError, match=r"resume\.pt is damaged.*delete it"):
            checkpoint.load(path, lazy=lazy)
    (line,) = prepare_directory(tmp_path, "a" * 8)
    assert re.search(r"resume\.pt is damaged.*moved to .*damaged.*training starts from step 0", line)
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["resume.pt"]
    assert checkpoint.load_resume(tmp_path, "a" * 8, 8) is None


class _Harmful:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "content", [b"not a checkpoint at all", {"model": {}}, [1, 2], {"identity": _Harmful()}]
)
def test_another_file_is_refused_and_never_executed(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resume.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="not a training checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_another_identity_is_refused_and_both_are_named(tmp_path):
    checkpoint.save(tmp_path / "resume.pt", STATE)
    with pytest.raises(InputError, match=r"aaaaaaaa, not to bbbbbbbb.*delete or move"):
        checkpoint.load_resume(tmp_path, "b" * 8, 8)
    with pytest.raises(InputError, match="8 samples per step, not 16"):
        checkpoint.load_resume(tmp_path, "a" * 8, 16)


def test_a_final_checkpoint_needs_its_marker(tmp_path):
    assert checkpoint.load_final(tmp_path, "a" * 8) is None
    checkpoint.save(tmp_path / "final.pt", STATE)
    assert checkpoint.load_final(tmp_path, "a" * 8) is None
    write_marker(tmp_path, FINISHED, identity="a" * 8, step=3)
    assert checkpoint.load_final(tmp_path, "a" * 8)["step"] == 3
    assert json.loads((tmp_path / "finished.json").read_text()) == {"identity": "a" * 8, "step": 3}


def test_a_full_disk_is_reported_and_the_old_checkpoint_stays(tmp_path, monkeypatch):
    path = tmp_path / "resume.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"resume\.pt cannot be written .*No space left.*free disk space"):
        checkpoint.save(path, STATE | {"step": 4})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["resume.pt"]
