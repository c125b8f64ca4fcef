"""Ranges of the numbers that settings may have; `annotated_types`, so that no module needs pydantic for them.

The ranges are enforced where a config is read: pydantic honors them.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Size = Annotated[int, Ge(1), Le(1_000_000)]
"""Units of a layer, pixels, frames, points, hertz, classes."""

Depth = Annotated[int, Ge(1), Le(256)]
"""Blocks of a model."""

Block = Annotated[int, Ge(0), Lt(256)]
"""Index of a block, from 0."""

Epoch = Annotated[int, Ge(1), Le(100_000)]

Seed = Annotated[int, Ge(0), Lt(2**31)]

Fraction = Annotated[float, Ge(0), Le(1)]
"""A probability or a share."""

PositiveFraction = Annotated[float, Gt(0), Le(1)]

Share = Annotated[float, Ge(0), Lt(1)]
"""A share below 1 to leave out: dropout, masking, smoothing."""

Factor = Annotated[float, Gt(0), Le(100)]

Epsilon = Annotated[float, Gt(0), Le(1)]
"""What a norm adds to the variance."""

Strength = Annotated[float, Ge(0), Le(100)]
"""Strength of an effect; 0 turns it off."""

Alpha = Annotated[float, Ge(0), Le(1000)]
"""Strength of the modulation of gradients."""

Percent = Annotated[float, Ge(0), Le(100)]
