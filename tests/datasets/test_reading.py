"""Reading a file: whatever a decoder raises becomes one sentence that names the file."""

from pathlib import Path

import pytest

from m2pt.datasets.checks import error_of
from m2pt.datasets.reading import reading
from m2pt.errors import InputError


def test_whatever_a_decoder_raises_is_one_sentence_with_the_file() -> None:
    for error in (
        ValueError("a\nb"),
        MemoryError(),
        RecursionError("deep"),
        KeyError("x"),
        OSError(5, "I/O"),
    ):
        with (
            pytest.raises(InputError, match=r"^x\.bin cannot be read as a sound: [^\n]+\.$"),
            reading(Path("x.bin"), "a sound"),
        ):
            raise error

    def fail() -> None:
        raise InputError("as it is")

    with pytest.raises(InputError, match=r"^as it is$"), reading(Path("x.bin"), "a sound"):
        fail()
    assert error_of(fail) == "as it is" and error_of(int, "3") is None
