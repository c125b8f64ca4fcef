"""Recipe files of the point cloud tasks. Their input may be finer than that of pretraining."""

from typing import Annotated

from pydantic import Field, model_validator

from m2pt.errors import InputError
from m2pt.schema.architecture import PointcloudInput
from m2pt.schema.base import Strict
from m2pt.schema.ranges import Block, Range, Share, Size, Strength
from m2pt.training.settings import TrainingSettings

Widths = Annotated[tuple[Size, ...], Field(min_length=1)]


class Groups(Strict):
    """The tokens: `groups` neighbourhoods of `group_size` points. No weight depends on either number."""

    groups: Size
    group_size: Size


class SegmenterAugmentation(Strict):
    """Random scale, the same for all axes if `isotropic`, and shift of a whole shape (Point-MAE)."""

    scale: Range = (0.8, 1.25)
    translate: Strength = 0.1
    isotropic: bool = True


class SegmenterSettings(Strict):
    """What is put on the blocks: see `m2pt.models.part_segmentation.build_part_segmenter`."""

    taps: Annotated[tuple[Block, ...], Field(min_length=1)]
    propagation_dims: Widths
    hidden_dims: Widths
    dropout: Share = 0.5
    drop_path: Share = 0.0


class PartSegmenterSettings(SegmenterSettings):
    """The same with a branch of `label_dim` units for the shape's category."""

    label_dim: Size = 64


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
