"""The held-out rows: stratified, the same in any order and for any seed, growing with the share."""

import hashlib

import numpy as np
import pytest

from m2pt.datasets.holdout import held_out

LABELS = np.random.default_rng(0).integers(0, 3, 400)
KEYS = [str(row) for row in range(400)]


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_each_class_gives_its_share(share: float) -> None:
    chosen = held_out(KEYS, LABELS, share)
    for label in range(3):
        size = np.count_nonzero(label == LABELS)
        assert np.count_nonzero(chosen & (label == LABELS)) == int(share * size + 0.5)


def test_they_are_those_with_the_smallest_hashes_of_their_class() -> None:
    chosen = held_out(KEYS, LABELS, 0.1)
    for label in range(3):
        rows = [row for row in range(400) if LABELS[row] == label]
        rows.sort(key=lambda row: hashlib.sha256(str(row).encode()).digest())
        assert set(rows[: int(0.1 * len(rows) + 0.5)]) == {row for row in rows if chosen[row]}


def test_the_order_of_the_list_and_the_generators_do_not_matter() -> None:
    chosen = held_out(KEYS, LABELS, 0.1)
    np.random.seed(7)
    order = np.random.permutation(400)
    assert np.array_equal(held_out([KEYS[row] for row in order], LABELS[order], 0.1), chosen[order])
    assert (held_out(KEYS, LABELS, 0.3) >= chosen).all(), "a larger share adds to them"
