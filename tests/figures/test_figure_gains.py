"""The figures of gains, matrix, bars and quality: numbers by hand, what is marked, what is refused."""

import json

import pytest
from figure_results import TOP1, drawn, rows, run_of
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from scipy.stats import ttest_rel
from synthetic_results import TINY

from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.reporting.figures import gain_matrix
from m2pt.reporting.figures.style import signed
from m2pt.schema.plan import Plan


def one_seed(asked):
    return Plan.load(TINY, {**asked, "seeds": [1]})


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


def test_what_rounds_to_zero_has_no_sign():
    assert [signed(value) for value in (0.04, -0.04, 0.0)] == ["0.0", "0.0", "0.0"]
    assert [signed(value) for value in (0.06, -0.06)] == ["+0.1", "\N{MINUS SIGN}0.1"]
    assert signed(-0.04, 2) == "\N{MINUS SIGN}0.04"


@pytest.mark.parametrize("name", ["gains", "bars", "quality"])
def test_one_seed_has_differences_and_no_gain_no_interval_and_no_mark(plan, asked, name):
    one = one_seed(asked)
    picture, _ = drawn(one, name)
    inside, below = texts(picture)
    assert not any("*" in text or "[" in text for text in inside)
    assert below == ["one seed cannot tell a difference from chance: no gain is shown"]
    axes = picture.axes[0]
    assert "difference" in axes.get_title() + axes.get_ylabel() and "gain" not in axes.get_ylabel()
    for row in rows(one, name):
        assert (row["seeds"], row["gain"], row["interval_low"], row["significant"]) == ("1", "", "", "")
        assert row["one_seed_difference"]


def test_differences_of_one_seed_are_grey_whatever_their_sign(plan, asked):
    colours = set()
    for name in ("gains", "bars"):
        picture, _ = drawn(one_seed(asked), name)
        colours |= {patch.get_facecolor() for patch in picture.axes[0].patches}
    lines = drawn(one_seed(asked), "quality")[0].axes[0].lines
    (quality,) = (line for line in lines if line.get_label() == "ours")
    assert quality.get_linestyle() == "None"  # no trend is drawn
    assert colours == {to_rgba(quality.get_color())}
    red, green, blue, _ = colours.pop()
    assert red == green == blue


def test_differences_of_one_seed_are_those_to_the_baseline(plan, asked):
    image, audio = sorted(rows(one_seed(asked), "gains"), key=lambda row: row["target"], reverse=True)
    assert float(image["one_seed_difference"]) == pytest.approx(83.2 - 82.0)
    assert float(audio["one_seed_difference"]) == -1.0
    picture, _ = drawn(one_seed(asked), "bars")
    assert [bar.get_height() for bar in picture.axes[0].patches] == pytest.approx([1.2, 1.0])


def test_the_colours_of_one_seed_s_matrix_are_of_the_published_gains_alone(plan, asked):
    picture, _ = drawn(one_seed(asked), "gains")
    bar = picture.axes[-1]
    assert bar.get_ylabel() == "published gain (points)" and bar.get_ylim() == (-0.5, 0.5)


def test_a_matrix_of_one_seed_is_drawn_though_nothing_is_published(plan, asked):
    one = one_seed(asked)
    records = [record._replace(published_gain=None) for record in drawn(one, "gains")[1]]
    left, right, _ = gain_matrix.draw(one.figure("gains").plot, records).axes
    assert (len(left.patches), len(right.patches)) == (2, 0)


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


def test_an_auxiliary_from_a_file_has_no_known_epochs(asked):
    encoders = read_yaml(TINY)["encoders"] | {"random": {"modality": "pointcloud", "file": "points.pth"}}
    plan = Plan.load(TINY, {**asked, "encoders": encoders})
    from m2pt.reporting.figures.auxiliary_quality import pretraining_epochs

    with pytest.raises(
        InputError, match=r"encoders\.random: after how many epochs it was taken is not known"
    ):
        pretraining_epochs(plan, "random")


def test_bars_show_gains_in_their_order(plan):
    audio, early = rows(plan, "bars")
    assert (audio["bar"], audio["significant"], audio["published_gain"]) == ("audio", "True", "0.4")
    assert (early["bar"], early["significant"], early["published_gain"]) == ("early", "False", "")
    picture, _ = drawn(plan, "bars")
    heights = [bar.get_height() for bar in picture.axes[0].patches]
    assert heights == pytest.approx([1.0, -0.5 / 3])
    assert picture.axes[0].get_legend() is None, "its dash would pass for a published gain"
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["published"]


def test_a_stale_result_is_refused(plan):
    path = plan.run_directory(run_of(plan, "audio"), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["spec"]["threads"] = 7
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"stale.*spec\.threads: stored 7"):
        drawn(plan, "bars")
