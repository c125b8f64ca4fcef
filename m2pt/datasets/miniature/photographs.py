"""The two photographs that ship in scikit-learn, 640 x 427 pixels each.

`china.jpg` by danielbuechele and `flower.jpg` by vultilion (Flickr), both CC BY 2.0; see README.txt beside
them in scikit-learn's `datasets/images`.
"""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("china.jpg", "flower.jpg")


def load_photographs() -> dict[str, NDArray[np.uint8]]:
    """Return `{name: (427, 640, 3) RGB}`, read without importing scikit-learn, which takes seconds."""
    folder = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/images")))
    return {name: np.asarray(Image.open(folder / name).convert("RGB")) for name in NAMES}
