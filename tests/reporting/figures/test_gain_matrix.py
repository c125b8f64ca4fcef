"""The matrix of gains, one square per target and auxiliary."""

import pytest
from figure_results import TOP1, drawn, rows
from matplotlib.patches import Rectangle
from scipy.stats import ttest_rel
from synthetic_results import TINY

from m2pt.plan.plan import Plan
from m2pt.reporting.figures import gain_matrix


def one_seed(overrides):
    return Plan.load(TINY, {**overrides, "seeds": [1]})


def texts(picture):
    inside = [text.get_text() for axes in picture.axes for text in axes.texts]
    return inside, [text.get_text() for text in picture.texts]


def test_the_gain_matrix_has_every_pair_with_its_paired_interval(plan):
    image, audio = sorted(rows(plan, "gains"), key=lambda row: row["target"], reverse=True)
    assert (image["auxiliary"], image["target"], image["seeds"]) == ("Audio", "Image", "3")
    assert float(image["gain"]) == pytest.approx(1.0)
    truth = ttest_rel(TOP1["audio"], TOP1[None]).confidence_interval(0.95)
    assert float(image["interval_low"]) == pytest.approx(truth.low, rel=1e-5)
    assert float(image["interval_high"]) == pytest.approx(truth.high, rel=1e-5)
    assert (image["significant"], image["published_gain"]) == ("True", "0.5")  # its YAML's, not 83.7 - 83.3
    assert (audio["auxiliary"], audio["significant"], audio["published_gain"]) == ("Image", "False", "0.3")
    assert float(audio["gain"]) == pytest.approx((0.5 - 1 + 1) / 3, rel=1e-5)


def test_only_what_excludes_zero_is_marked_and_the_diagonal_is_empty(plan):
    picture, _ = drawn(plan, "gains")
    inside, below = texts(picture)
    assert "+1.0*" in inside and "+0.2" in inside and not any("0.2*" in text for text in inside)
    assert below == ["3 seeds; in brackets the 95 % interval; * and bold: it excludes 0"]
    for axes in picture.axes[:2]:
        squares = {square.get_xy() for square in axes.patches if isinstance(square, Rectangle)}
        assert squares == {(-0.48, 0.52), (0.52, -0.48)}


def test_below_a_target_stands_the_metric_of_its_gains(plan):
    picture, _ = drawn(plan, "gains")
    for axes in picture.axes[:2]:
        labels = [" ".join(label.get_text().split()) for label in axes.get_xticklabels()]
        assert labels == ["Image ImageNet top-1", "Audio AudioSet mAP"]


def test_the_colours_of_one_seed_s_matrix_are_of_the_published_gains_alone(plan, overrides):
    picture, _ = drawn(one_seed(overrides), "gains")
    bar = picture.axes[-1]
    assert bar.get_ylabel() == "published gain (points)" and bar.get_ylim() == (-0.5, 0.5)


def test_a_matrix_of_one_seed_is_drawn_though_nothing_is_published(plan, overrides):
    one = one_seed(overrides)
    records = [record._replace(published_gain=None) for record in drawn(one, "gains")[1]]
    left, right, _ = gain_matrix.draw(one.figure("gains").plot, records).axes
    assert (len(left.patches), len(right.patches)) == (2, 0)
