"""Gains by the epoch of the auxiliary."""

import pytest
from figure_results import rows
from synthetic_results import TINY

from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan


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


def test_an_auxiliary_from_a_file_has_no_known_epochs(overrides):
    encoders = read_yaml(TINY)["encoders"] | {"random": {"modality": "pointcloud", "file": "points.pth"}}
    plan = Plan.load(TINY, {**overrides, "encoders": encoders})
    from m2pt.reporting.figures.auxiliary_quality import pretraining_epochs

    with pytest.raises(InputError, match=r"encoders\.random: its number of pretraining epochs is unknown"):
        pretraining_epochs(plan, "random")
