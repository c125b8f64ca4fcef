"""Recipe file of the text auxiliary."""

from typing import Annotated

from pydantic import Field

from m2pt.schema.base import Strict
from m2pt.schema.kept_epochs import KeptEpochs
from m2pt.schema.ranges import Share


class TextAugmentation(Strict):
    """Windows that begin anywhere in the text, instead of back to back."""

    random_offset: bool = True


class TextPretraining(KeptEpochs):
    """Masked-token prediction (BERT)."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    drop_path: Share = 0.0
    augmentation: TextAugmentation = TextAugmentation()
