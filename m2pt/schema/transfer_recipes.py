"""Recipe files of the dense tasks. Kept apart from the others, which need no detector's settings."""

from m2pt.models.dense_settings import MaskRCNNSettings, UPerNetSettings
from m2pt.schema.base import Strict
from m2pt.schema.config import ImageInput
from m2pt.schema.recipes import DetectionAugmentation, Fraction, SegmentationAugmentation
from m2pt.training.settings import TrainingSettings


class Detection(Strict):
    """Mask R-CNN on COCO; `input` is the size to which images are brought."""

    training: TrainingSettings
    input: ImageInput
    model: MaskRCNNSettings
    drop_path: Fraction = 0.0
    augmentation: DetectionAugmentation = DetectionAugmentation()


class SemanticSegmentation(Strict):
    """UperNet on ADE20K; `input` is the size of the training crop."""

    training: TrainingSettings
    input: ImageInput
    model: UPerNetSettings
    drop_path: Fraction = 0.0
    augmentation: SegmentationAugmentation = SegmentationAugmentation()


TRANSFER: dict[str, type[Strict]] = {"detection": Detection, "semantic_segmentation": SemanticSegmentation}
