"""`m2pt plan`: arguments that it refuses, a reader that stops early, `--help` without torch."""

import os
import subprocess
import sys

import pytest
from tiny_trainings import TINY

from m2pt.commands import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel"], "no table or figure 'tabel'; it has table, targets, curves, summary"),
        (["--gpus", "2", "--gpus-per-job", "3"], "at most all of them"),
        (["--tflops", "0"], "from 1e-6 to 1e9"),
        (["--tflops", "nan"], "from 1e-6 to 1e9"),
        (["--tflops-float32", "inf"], "from 1e-6 to 1e9"),
        (["--tflops", "1e-320"], "from 1e-6 to 1e9"),
        (["--counted", "--measure"], "--counted ignores times"),
        (["--device", "NVIDIA X"], "--device 'NVIDIA X': there are no times of this device below results"),
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
