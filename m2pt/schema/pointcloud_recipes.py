"""Recipe files of the point cloud tasks. Their input may be finer than that of pretraining."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from m2pt.errors import InputError
from m2pt.schema.architecture import PointcloudInput
from m2pt.schema.base import Strict
from m2pt.schema.recipes import Fraction, Range
from m2pt.training.settings import TrainingSettings

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class Groups(Strict):
    """The tokens: `groups` neighbourhoods of `group_size` points. No weight depends on either number."""

    groups: PositiveInt
    group_size: PositiveInt


class SegmenterAugmentation(Strict):
    """Random scale, the same for all axes if `isotropic`, and shift of a whole shape (Point-MAE)."""

    scale: Range = (0.8, 1.25)
    translate: NonNegativeFloat = 0.1
    isotropic: bool = True


class SegmenterSettings(Strict):
    """What is put on the blocks: see `m2pt.models.part_segmentation.build_part_segmenter`."""

    taps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    propagation_dims: Widths
    hidden_dims: Widths
    dropout: Fraction = 0.5
    drop_path: Fraction = 0.0


class PartSegmenterSettings(SegmenterSettings):
    """The same with a branch of `label_dim` units for the shape's category."""

    label_dim: PositiveInt = 64


class PointSegmentation(Strict):
    """Semantic segmentation of PartNet; `input` and `tokenizer` stand in for those of the config."""

    training: TrainingSettings
    input: PointcloudInput
    tokenizer: Groups
    model: SegmenterSettings
    augmentation: SegmenterAugmentation = SegmenterAugmentation()

    @model_validator(mode="after")
    def _enough_points(self) -> "PointSegmentation":
        for name in ("groups", "group_size"):
            if getattr(self.tokenizer, name) > self.input.points:
                raise ValueError(
                    f"tokenizer.{name} {getattr(self.tokenizer, name)} exceeds input.points "
                    f"{self.input.points}; give at most that"
                )
        return self


class PartSegmentation(PointSegmentation):
    """Part segmentation of ShapeNetPart, where a shape's category is known."""

    model: PartSegmenterSettings


def check_taps(path: str, recipe: PointSegmentation, depth: int) -> None:
    """Check a recipe against the number of blocks that it will stand on.

    Raises:
        InputError: the taps are not ascending, or do not end with the last block.
    """
    taps = list(recipe.model.taps)
    if taps != sorted(set(taps)) or taps[-1] != depth - 1:
        raise InputError(
            f"{path}: model.taps = {taps}: give ascending block numbers from 0 on, the last one {depth - 1}."
        )
