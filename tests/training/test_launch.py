import pytest

from m2pt.errors import InputError
from m2pt.training.launch import launch


@pytest.mark.parametrize(
    ("precision", "device", "named"),
    [
        ("fp16", "cpu", "fp16, which needs a GPU"),
        ("auto", "gpu", "device must be auto, cpu or cuda, got 'gpu'"),
    ],
)
def test_an_unavailable_device_or_precision_is_named(precision, device, named):
    with pytest.raises(InputError, match=named):
        launch(precision, device)
