"""Input settings: the released sizes, and spectrograms that cannot be."""

import pytest
from pydantic import TypeAdapter, ValidationError

from m2pt.datasets.multimodal_settings import AvMnistInput, CremaDInput, UrFunnyInput


def test_the_defaults_are_the_released_sizes() -> None:
    settings = CremaDInput()
    assert (settings.bins, settings.steps, settings.samples) == (257, 188, 66_150)
    assert (AvMnistInput().image_size, AvMnistInput().audio_size) == (28, 112)
    assert (UrFunnyInput().text, UrFunnyInput().audio, UrFunnyInput().video) == (300, 81, 371)


@pytest.mark.parametrize(
    ("form", "values", "message"),
    [
        (AvMnistInput, {"held_out": 0}, "held_out"),
        (AvMnistInput, {"held_out": 1.0}, "held_out"),
        (AvMnistInput, {"side": 3}, "side"),
        (CremaDInput, {"seconds": 0.01}, "n_fft = 512 exceeds the 220 samples of 0.01 s at 22050 Hz"),
        (CremaDInput, {"hop": 1, "seconds": 600}, "too large; raise hop"),
        (CremaDInput, {"frames": 0}, "frames"),
        (UrFunnyInput, {"max_length": 0}, "max_length"),
    ],
)
def test_a_config_refuses_what_cannot_be(form: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(form).validate_python(values)
