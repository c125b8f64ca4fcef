import re
import sys

from point_trainings import logged, train

from m2pt.training import progress
from m2pt.training.progress import announced


def test_the_log_has_plain_lines(tmp_path, capsys):
    train(tmp_path, num_workers=0, log_every=2)
    log = (tmp_path / "train.log").read_text()
    assert log.count("samples/s") == 3
    assert "1 process on cpu, precision no: batch size" in log
    assert "step 6/6, epoch 3: loss" in log
    assert "training finished after 6 steps" in log
    assert "training finished after 6 steps" in capsys.readouterr().err


def test_a_terminal_shows_a_bar_with_loss_lr_speed_and_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(tmp_path, log_every=2)
    output = capsys.readouterr().err
    bar = output.replace("\r", "\n").strip().splitlines()[-1]
    assert "6/6" in bar
    last = logged(tmp_path)[-1]
    assert f"loss={last['loss']:.4g}, lr={last['lr']:.2e}, samples/s=" in bar
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d", bar)  # elapsed and left
    assert "training finished after 6 steps" in output


def test_batches_are_announced_by_lines_and_on_a_terminal_by_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET", 0.0)
    assert list(announced([5, 6, 7, 8, 9], "evaluating x")) == [5, 6, 7, 8, 9]
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(re.fullmatch(r"evaluating x: [1-4] of 5 batches", line) for line in lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(announced([5, 6], "evaluating x")) == [5, 6]
    assert "2/2" in capsys.readouterr().err
