import json

import pytest
import torch
from accelerate import Accelerator

from m2pt.errors import InputError
from m2pt.training.metrics import DivergedError, LossWindow, MetricsFile


def test_lines_are_flushed_and_cut_to_the_length_in_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 1, "loss": 0.1})
    assert json.loads(path.read_text()) == {"step": 1, "loss": 0.1}
    length = file.sync()
    assert length == path.stat().st_size
    file.write({"step": 2, "loss": 0.2})
    file.close()

    again = MetricsFile(path, length)
    assert again.sync() == length == path.stat().st_size
    again.write({"step": 2, "loss": 0.3})
    again.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.1, 0.3]


def test_missing_lines_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl has 0 bytes, but had 10"):
        MetricsFile(tmp_path / "metrics.jsonl", 10)


def test_other_processes_write_nothing(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", 10, enabled=False)
    file.write({"step": 1})
    assert file.sync() == 0
    file.close()
    assert not list(tmp_path.iterdir())


def window() -> LossWindow:
    return LossWindow(Accelerator(cpu=True))


def add(window, step, value):
    window.add(step, step / 100, {"loss": torch.tensor(value), "part": torch.tensor(2 * value)})


def test_a_window_averages_since_the_last_line_even_across_a_checkpoint():
    first = window()
    add(first, 1, 1.0)
    add(first, 2, 2.0)
    resumed = window()
    resumed.restore(json.loads(json.dumps(first.state())))
    for each in (first, resumed):
        add(each, 3, 6.0)
        assert each.mean() == {"loss": 3.0, "part": 6.0}
        add(each, 4, 5.0)
        assert each.mean() == {"loss": 5.0, "part": 10.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_non_finite_step_is_found_later(bad):
    losses = window()
    for step in range(1, 10):
        add(losses, step, bad if step in (4, 6) else 1.0)
    with pytest.raises(DivergedError, match=r"at step 4, with learning rate 0\.04") as caught:
        losses.state()
    assert (caught.value.step, caught.value.lr) == (4, 0.04)
