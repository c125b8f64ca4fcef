"""The cells of a figure: gains, differences of one seed, and stale results."""

import json

import pytest
from figure_results import drawn, rows, run_of
from matplotlib.colors import to_rgba
from synthetic_results import TINY

from m2pt.errors import InputError
from m2pt.plan.plan import Plan


def one_seed(overrides):
    return Plan.load(TINY, {**overrides, "seeds": [1]})


def texts(picture):
    inside = [text.get_text() for axes in picture.axes for text in axes.texts]
    return inside, [text.get_text() for text in picture.texts]


@pytest.mark.parametrize("name", ["gains", "bars", "quality"])
def test_one_seed_has_differences_and_no_gain_no_interval_and_no_mark(plan, overrides, name):
    one = one_seed(overrides)
    picture, _ = drawn(one, name)
    inside, below = texts(picture)
    assert not any("*" in text or "[" in text for text in inside)
    assert below == ["one seed cannot tell a difference from chance: no gain is shown"]
    axes = picture.axes[0]
    assert "difference" in axes.get_title() + axes.get_ylabel() and "gain" not in axes.get_ylabel()
    for row in rows(one, name):
        assert (row["seeds"], row["gain"], row["interval_low"], row["significant"]) == ("1", "", "", "")
        assert row["one_seed_difference"]


def test_differences_of_one_seed_are_grey_whatever_their_sign(plan, overrides):
    colours = set()
    for name in ("gains", "bars"):
        picture, _ = drawn(one_seed(overrides), name)
        colours |= {patch.get_facecolor() for patch in picture.axes[0].patches}
    lines = drawn(one_seed(overrides), "quality")[0].axes[0].lines
    (quality,) = (line for line in lines if line.get_label() == "ours")
    assert quality.get_linestyle() == "None"  # no trend is drawn
    assert colours == {to_rgba(quality.get_color())}
    red, green, blue, _ = colours.pop()
    assert red == green == blue


def test_differences_of_one_seed_are_those_to_the_baseline(plan, overrides):
    image, audio = sorted(rows(one_seed(overrides), "gains"), key=lambda row: row["target"], reverse=True)
    assert float(image["one_seed_difference"]) == pytest.approx(83.2 - 82.0)
    assert float(audio["one_seed_difference"]) == -1.0
    picture, _ = drawn(one_seed(overrides), "bars")
    assert [bar.get_height() for bar in picture.axes[0].patches] == pytest.approx([1.2, 1.0])


def test_a_stale_result_is_refused(plan):
    path = plan.run_directory(run_of(plan, "audio"), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["spec"]["threads"] = 7
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"stale.*spec\.threads: stored 7"):
        drawn(plan, "bars")
