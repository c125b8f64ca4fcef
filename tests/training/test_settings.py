import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from m2pt.errors import InputError
from m2pt.training.settings import TrainingSettings

VALID = {"epochs": 100, "batch_size": 32, "accumulation": 32, "blr": 5e-4, "warmup_epochs": 5}


def test_mae_finetuning_lr():
    # MAE: blr 5e-4 at 32 images × 4 accumulation × 8 GPUs = 1024 is 2e-3, however many GPUs share the 1024
    assert TrainingSettings(**VALID).peak_lr() == pytest.approx(2e-3)
    assert TrainingSettings(epochs=1, batch_size=128, lr=0.3).peak_lr() == 0.3


@pytest.mark.parametrize(
    ("processes", "share"),
    [(1, (32, 12)), (4, (32, 3)), (12, (32, 1)), (8, (16, 3)), (16, (8, 3)), (24, (16, 1)), (384, (1, 1))],
)
def test_processes_share_passes_first_and_then_batches(processes, share):
    settings = TrainingSettings(epochs=1, batch_size=32, accumulation=12, lr=0.1)
    assert settings.share(processes) == share
    assert share[0] * share[1] * processes == settings.effective_batch() == 384


@pytest.mark.parametrize(("processes", "fewer"), [(5, 4), (9, 8), (7, 6), (768, 384)])
def test_a_number_of_processes_that_does_not_divide_is_refused(processes, fewer):
    settings = TrainingSettings(epochs=1, batch_size=32, accumulation=12, lr=0.1)
    words = f"{processes} processes cannot share .* batch_size 32 .* accumulation 12 .* start {fewer}, or"
    with pytest.raises(InputError, match=words):
        settings.share(processes)
    settings.share(fewer)


def test_lengths_in_steps():
    settings = TrainingSettings(**VALID)
    assert (settings.length(1251), settings.warmup(1251)) == (125_100, 6255)
    settings = TrainingSettings(steps=400, batch_size=4, lr=2e-3, warmup_steps=30)
    assert (settings.length(125), settings.warmup(125)) == (400, 30)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 5}, "exactly one of epochs and steps"),
        ({"epochs": None}, "exactly one of epochs and steps"),
        ({"lr": 1e-3}, "exactly one of blr and lr"),
        ({"warmup_steps": 3}, "at most one of warmup_epochs and warmup_steps"),
        ({"warmup_epochs": 100}, "warmup_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"blr": "1e-x"}, "blr"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"step_decay": {"epochs": 30}, "min_lr": 1e-6}, "min_lr and decay belong to a smooth decay"),
        ({"step_decay": {"epochs": 30}, "decay": "linear"}, "min_lr and decay belong to a smooth decay"),
        ({"step_decay": {"rate": 0.1}}, "exactly one of epochs and at"),
        ({"step_decay": {"epochs": 30, "at": [5]}}, "exactly one of epochs and at"),
        ({"step_decay": {"at": []}}, "exactly one of epochs and at"),
        ({"step_decay": {"at": [5, 5]}}, "must ascend"),
        ({"decay_vectors": True, "decay_biases": True}, "decay_vectors includes biases"),
        ({"warmup_lr": 0.1}, r"warmup_lr \(0.1\) must not exceed the peak of 0.002"),
        ({"step_decay": {"epochs": 30, "rate": 1.0}}, "rate"),
        ({"decay_vectors": True, "layer_decay": 0.65}, "decay_vectors needs layer_decay 1.0"),
        ({"precision": "fp8"}, "precision"),
        ({"layer_decya": 0.5}, "layer_decya"),
    ],
)
def test_invalid_settings_are_refused_by_name(change, named):
    with pytest.raises(ValidationError, match=named):
        TypeAdapter(TrainingSettings).validate_python(VALID | change)


def test_reading_settings_imports_no_torch():
    code = "import sys, m2pt.training.settings; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
