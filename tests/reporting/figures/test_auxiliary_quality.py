"""Gains by the epoch of the auxiliary."""

import pytest
from figure_results import rows


def test_quality_is_the_share_of_the_pretraining(plan):
    random, early, full = rows(plan, "quality")
    assert [row["epochs"] for row in (random, early, full)] == ["0", "1", "2"]
    assert [float(row["share"]) for row in (random, early, full)] == [0, 50, 100]
    assert (full["published_epochs"], full["published_share"], full["published_gain"]) == (
        "300",
        "100",
        "0.6",
    )
    assert float(early["gain"]) == pytest.approx((-1 + 1 - 0.5) / 3, rel=1e-5)
