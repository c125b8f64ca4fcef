import re
import sys

from point_trainings import logged, train


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
