"""A validation split for datasets that have only a training and a test list."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def held_out(keys: Sequence[str], labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return a mask (n,) of the samples of a training list that are held out for validation.

    In each class, the samples are ordered by the SHA-256 of their keys, and the first `share` of them are
    held out, rounded to the nearest number, half of one upwards. Which they are depends neither on the seed
    of a training nor on the order of the list, and a larger share only adds to them.

    Args:
        keys: a unique name of each sample, the same wherever the dataset is.
        labels: classes (n,).
        share: share to hold out, above 0 and below 1.
    """
    ranks = np.array([hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest() for key in keys])
    chosen = np.zeros(len(keys), np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(ranks[members], kind="stable")]
        chosen[members[: int(share * len(members) + 0.5)]] = True
    return chosen
