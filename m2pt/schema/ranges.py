"""Ranges of numbers and forms of words that a config may hold: nonsense is outside, nothing sensible is."""

from typing import Annotated

from pydantic import AfterValidator, Field

Size = Annotated[int, Field(ge=1, le=1_000_000)]
"""Units of a layer, pixels, frames, points, hertz, classes."""

Depth = Annotated[int, Field(ge=1, le=256)]
"""Blocks of a model."""

Block = Annotated[int, Field(ge=0, lt=256)]
"""One of them, from 0."""

Epoch = Annotated[int, Field(ge=1, le=100_000)]

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A probability or a share."""

PositiveFraction = Annotated[float, Field(gt=0, le=1)]

Share = Annotated[float, Field(ge=0, lt=1)]
"""What is left out of something, never all of it: dropout, masking, smoothing."""

Factor = Annotated[float, Field(gt=0, le=100)]

Strength = Annotated[float, Field(ge=0, le=100)]
"""0 for none at all."""

Percent = Annotated[float, Field(ge=0, le=100)]

Text = Annotated[str, Field(max_length=10_000)]
"""What people read: a caption, a note."""

ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
"""Pattern of a string without control characters and line breaks."""

Line = Annotated[str, Field(max_length=200, pattern=ONE_LINE)]
"""One line of it: a title."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Label = Annotated[Line, AfterValidator(_not_blank)]
"""The name of a method, a metric, a device."""

MOST_TOKENS = 2**16


def check_tokens(count: int) -> None:
    """Make sure that attention over so many tokens is feasible.

    Raises:
        ValueError: there are more than `MOST_TOKENS`.
    """
    if count > MOST_TOKENS:
        raise ValueError(
            f"{count} tokens are too many; at most {MOST_TOKENS} are possible: give larger patches or a "
            "smaller input"
        )


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} must not exceed the upper bound {bounds[1]:g}")
    return bounds


Range = Annotated[tuple[Factor, Factor], AfterValidator(_ascending)]
"""Lower and upper bound of a random factor."""

AreaRange = Annotated[tuple[PositiveFraction, PositiveFraction], AfterValidator(_ascending)]
"""The same of a share of a picture's area."""
