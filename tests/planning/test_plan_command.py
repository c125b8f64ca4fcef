"""`m2pt plan`: what it says, assumes and refuses."""

import os
import subprocess
import sys

import pytest
from tiny_trainings import TINY

from m2pt.commands import main


def test_several_gpus_for_each_training(document):
    one, two = document("curves", "--gpus", "2"), document("curves", "--gpus", "2", "--gpus-per-job", "2")
    assert two["gpu_hours"] == one["gpu_hours"]
    assert two["critical_path"]["hours"] == pytest.approx(one["critical_path"]["hours"] / 2)
    assert two["hours"] == pytest.approx(one["gpu_hours"] / 2) and one["hours"] >= one["gpu_hours"] / 2


def test_the_text_says_what_it_assumes(tmp_path, capsys):
    assert main(["plan", "curves", "--config", str(TINY), "--set", f"results={tmp_path}", "--gpus", "4"]) == 0
    said = capsys.readouterr().out
    for words in (
        "trainings behind curves (1 seed)",
        "counted, at 125 TFLOP/s",
        "a step is one effective batch",
        "left out: evaluating, merging",
        "imagenet: 60 training items (the miniature to be built)",
        "4 trainings at a time",
        "list scheduling",
        "the critical path:\n    pretrain",
    ):
        assert words in said, said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel"], "no table or figure 'tabel'; it has table, targets, curves, summary"),
        (["--gpus", "2", "--gpus-per-job", "3"], "at most all of them"),
        (["--tflops", "0"], "from 1e-6 to 1e9"),
        (["--tflops", "nan"], "from 1e-6 to 1e9"),
        (["--tflops-float32", "inf"], "from 1e-6 to 1e9"),
        (["--tflops", "1e-320"], "from 1e-6 to 1e9"),
        (["--counted", "--measure"], "--counted uses no times"),
        (["--items", "imagenet"], "--items imagenet: give DATASET=N"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words, capsys):
    assert main(["plan", *arguments, "--config", str(TINY)]) == 2
    assert words in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `m2pt plan | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "m2pt", "plan", "table", "--config", str(TINY)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["plan", "clean"])
def test_help_needs_no_torch(command):
    program = (
        "import sys\nfrom m2pt.commands import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--config" in done.stdout
