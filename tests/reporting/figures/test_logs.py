"""Logs read for figures: values at steps and at the ends of epochs, and what cannot be read."""

import json

import pytest

from m2pt.errors import InputError
from m2pt.reporting.figures.logs import read_log


def written(path, *lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_each_key_has_the_moments_of_its_own_lines(path):
    written(
        path,
        {"step": 2, "epoch": 1, "loss": 1.5, "score/audio": 3, "lr": 0.1},
        {"step": 3, "epoch": 1, "val_top1": 60.0},
        {"step": 4, "epoch": 2, "loss": 1.0, "score/audio": 2.5, "lr": 0.1},
        {"step": 6, "epoch": 2, "val_top1": 70.0},
    )
    assert read_log(path, ["val_top1", "score/audio"]) == {
        "val_top1": {(3, 1): 60.0, (6, 2): 70.0},
        "score/audio": {(2, 1): 3.0, (4, 2): 2.5},
    }


def test_the_later_of_two_lines_of_a_step_counts(path):
    written(path, {"step": 2, "epoch": 1, "weight": 1.0}, {"step": 2, "epoch": 1, "weight": 2.0})
    assert read_log(path, ["weight"]) == {"weight": {(2, 1): 2.0}}


def test_a_key_that_was_not_logged_is_named_with_those_that_were(path):
    written(path, {"step": 1, "epoch": 1, "loss": 1.0}, {"step": 1, "epoch": 1, "val_top1": 5.0})
    with pytest.raises(InputError) as error:
        read_log(path, ["loss", "score/audio"])
    assert str(error.value) == f"{path}: no line has 'score/audio'; the training logged loss, val_top1."


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1.0", None, True, [1.0]])
def test_what_is_no_finite_number_is_refused(path, value):
    written(path, {"step": 1, "epoch": 1, "loss": 1.0}, {"step": 2, "epoch": 1, "loss": 1.0, "score": value})
    assert len(read_log(path, ["loss"])["loss"]) == 2, "only the keys that are read matter"
    with pytest.raises(InputError) as error:
        read_log(path, ["score"])
    assert str(error.value).startswith(f"{path}: cannot be read (line 2, score: value = ")


@pytest.mark.parametrize(
    ("line", "words"), [({"step": 1, "loss": 1.0}, "epoch"), ({"epoch": 1, "loss": 1.0}, "'step'")]
)
def test_a_line_without_step_or_epoch_is_refused(path, line, words):
    written(path, line)
    with pytest.raises(InputError, match=f"cannot be read .*{words}"):
        read_log(path, ["loss"])
