import os
from functools import partial
from pathlib import Path

import pytest
import torch
from point_trainings import logged, train, train_until_killed

from m2pt.errors import InputError
from m2pt.run_files import INTERRUPTED
from m2pt.training import checkpoint
from m2pt.training.run_directory import prepare_directory, write_marker

STATE = {"identity": "a" * 8, "step": 3, "effective_batch": 8, "model": {"w": torch.arange(5000.0)}}


def fill(directory, identity="a" * 8):
    checkpoint.save(directory / "resume.pt", STATE | {"identity": identity})
    (directory / "metrics.jsonl").write_text('{"step": 1}\n')
    write_marker(directory, INTERRUPTED, identity=identity, step=3)


def test_state_of_another_identity_is_superseded(tmp_path):
    fill(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (line,) = prepare_directory(tmp_path, "b" * 8)
    assert "aaaaaaaa before, bbbbbbbb now" in line
    assert "step 0" in line
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "superseded"}
    assert {path.name for path in (tmp_path / "superseded").iterdir()} == {
        "resume.pt",
        "metrics.jsonl",
        "interrupted.json",
    }
    fill(tmp_path, "b" * 8)
    assert len(prepare_directory(tmp_path, "c" * 8)) == 1
    assert checkpoint.load(tmp_path / "superseded" / "resume.pt")["identity"] == "b" * 8


def test_state_of_the_same_identity_stays_and_temporary_files_go(tmp_path):
    fill(tmp_path)
    temporary = tmp_path / ".resume.pt.0badcafe-17-4711-a1b2c3.part"
    temporary.write_bytes(b"half a checkpoint")
    assert prepare_directory(tmp_path, "a" * 8) == []
    assert not temporary.exists()
    assert checkpoint.load_resume(tmp_path, "a" * 8, 8)["step"] == 3


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file/run cannot be written"):
        prepare_directory(tmp_path / "file" / "run", "a" * 8)


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x40
    path.write_bytes(content)


def replaced_by_a_folder(path):
    path.unlink()
    (path / "within").mkdir(parents=True)


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_link(path):
    path.unlink()
    path.symlink_to("nowhere")


DAMAGE = {
    "a bit of a tensor": ("resume.pt", flip, {"resume.pt"}),
    "a bit of the header": ("resume.pt", partial(flip, at=0), {"resume.pt"}),
    "a bit of the checksum": ("resume.pt", partial(flip, at=0.9999), {"resume.pt"}),
    "the end": ("resume.pt", partial(os.truncate, length=700), {"resume.pt"}),
    "all but the name": ("resume.pt", partial(os.truncate, length=0), {"resume.pt"}),
    "an older version": ("resume.pt", partial(torch.save, {"identity": "feed"}), {"resume.pt"}),
    "a folder": ("resume.pt", replaced_by_a_folder, {"resume.pt"}),
    "a bit of the metrics": ("metrics.jsonl", flip, {"resume.pt", "metrics.jsonl"}),
    "the end of the metrics": (
        "metrics.jsonl",
        partial(os.truncate, length=9),
        {"resume.pt", "metrics.jsonl"},
    ),
    "other metrics": (
        "metrics.jsonl",
        lambda path: path.write_bytes(b"{}" * 999),
        {"resume.pt", "metrics.jsonl"},
    ),
    "no metrics": ("metrics.jsonl", Path.unlink, {"resume.pt"}),
    "a folder as metrics": ("metrics.jsonl", replaced_by_a_folder, {"resume.pt", "metrics.jsonl"}),
    "a pipe as metrics": ("metrics.jsonl", replaced_by_a_pipe, {"resume.pt", "metrics.jsonl"}),
    "a link to nowhere as metrics": ("metrics.jsonl", replaced_by_a_link, {"resume.pt", "metrics.jsonl"}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_state_is_moved_away_and_training_starts_over(tmp_path, capsys, kind):
    name, damage, files = DAMAGE[kind]
    directory = train_until_killed(tmp_path / "run")
    damage(directory / name)
    trained = train(directory, checkpoint_every=2)
    output = capsys.readouterr().err
    assert f"{directory / name} " in output and "starts from step 0" in output and "resuming" not in output
    assert f"moved to {directory / 'damaged'}" in (directory / "train.log").read_text()
    assert {path.name for path in (directory / "damaged").iterdir()} == files
    alone = train(tmp_path / "alone")
    for key, parameter in alone.named_parameters():
        assert torch.equal(trained.get_parameter(key), parameter)
    assert (directory / "metrics.jsonl").read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_a_pipe_in_place_of_an_output_is_moved_away(tmp_path, capsys, name):
    os.mkfifo(tmp_path / name)
    train(tmp_path)
    assert f"{tmp_path / name} is not a regular file; moved to" in capsys.readouterr().err
    assert (tmp_path / name).is_file() and (tmp_path / "damaged" / name).is_fifo()


def test_lines_after_the_checkpoint_are_not_damage(tmp_path, capsys):
    directory = train_until_killed(tmp_path)
    with (directory / "metrics.jsonl").open("a") as file:
        file.write("half a li")
    train(directory, checkpoint_every=2)
    assert "resuming from step 4 of 6" in capsys.readouterr().err
    assert [line["step"] for line in logged(directory)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["final.pt", "metrics.jsonl"])
def test_a_damaged_finished_training_is_trained_again(tmp_path, capsys, name):
    trained = train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    flip(tmp_path / name)
    again = train(tmp_path)
    assert f"{tmp_path / name} " in capsys.readouterr().err
    for key, parameter in trained.named_parameters():
        assert torch.equal(again.get_parameter(key), parameter)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
