"""Recipe files of the dense tasks. Kept apart from the others, which need no detector's settings."""

from pydantic import model_validator

from m2pt.errors import InputError
from m2pt.models.dense_settings import MaskRCNNSettings, UPerNetSettings
from m2pt.schema.architecture import Image, ImageInput
from m2pt.schema.base import Strict
from m2pt.schema.ranges import MOST_TOKENS, Share
from m2pt.schema.recipes import DetectionAugmentation, SegmentationAugmentation
from m2pt.training.settings import TrainingSettings


class Detection(Strict):
    """Mask R-CNN on COCO; `input` is the size to which images are brought."""

    training: TrainingSettings
    input: ImageInput
    model: MaskRCNNSettings
    drop_path: Share = 0.0
    augmentation: DetectionAugmentation = DetectionAugmentation()


class SemanticSegmentation(Strict):
    """UperNet on ADE20K; `input` is the size of the training crop."""

    training: TrainingSettings
    input: ImageInput
    model: UPerNetSettings
    drop_path: Share = 0.0
    augmentation: SegmentationAugmentation = SegmentationAugmentation()

    @model_validator(mode="after")
    def _windows_overlap(self) -> "SemanticSegmentation":
        if self.model.window_stride > self.input.image_size:
            raise ValueError(
                f"model.window_stride {self.model.window_stride} leaves gaps between windows "
                f"of image_size {self.input.image_size}; give at most that"
            )
        return self


TRANSFER: dict[str, type[Strict]] = {"detection": Detection, "semantic_segmentation": SemanticSegmentation}


def check_fit(path: str, recipe: Strict, depth: int, image: Image) -> None:
    """Check a dense task's recipe against the backbone that it will stand on.

    Raises:
        InputError: a tap beyond the last block, or an image size that patches do not fill.
    """
    if not isinstance(recipe, Detection | SemanticSegmentation):
        return
    size, patch = recipe.input.image_size, image.tokenizer.patch_size
    if size % patch:
        raise InputError(f"{path}: input.image_size = {size}: not a multiple of the patch size {patch}.")
    if (size // patch) ** 2 > MOST_TOKENS:
        raise InputError(
            f"{path}: input.image_size = {size}: more than {MOST_TOKENS} patches of {patch} pixels."
        )
    taps = recipe.model.taps if isinstance(recipe, SemanticSegmentation) else ()
    if taps and (list(taps) != sorted(set(taps)) or taps[-1] >= depth):
        raise InputError(
            f"{path}: model.taps = {list(taps)}: give ascending block numbers from 0 to {depth - 1}."
        )
