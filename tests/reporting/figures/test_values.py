"""Figures of results against a number."""

import statistics

import pytest
from figure_results import TOP1, drawn, rows
from synthetic_results import TINY

from m2pt.config.figures import Figure
from m2pt.config.strict import validate
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.render import render

POINTS = [
    ("AGM", "0.5", "audio"),
    ("AGM", "1", "pointcloud"),
    ("AGM", "4", "pointcloud_early"),
    ("MSLR", "1", "random"),
    ("Joint", "", None),
]


@pytest.fixture
def changed(plan, tmp_path):
    """Draw the figure of values with another plot."""

    def draw(**change):
        figure = read_yaml(tmp_path / "values.yaml")
        figure["plot"] |= change
        return render(FigureCells(plan, validate(Figure, figure, "here")))

    return draw


def test_points_are_sorted_by_number_as_a_number_and_references_have_none(plan):
    table = rows(plan, "values")
    assert [(row["series"], row["x"]) for row in table] == [(series, x) for series, x, _ in POINTS]
    for row, (_, _, auxiliary) in zip(table, POINTS, strict=True):
        assert float(row["value"]) == pytest.approx(statistics.fmean(TOP1[auxiliary]), rel=1e-5)
        assert float(row["deviation"]) == pytest.approx(statistics.stdev(TOP1[auxiliary]), rel=1e-5)
        assert (row["seeds"], row["metric"]) == ("3", "ImageNet top-1 (%)")


def test_what_is_drawn_is_in_the_records(plan):
    picture, records = drawn(plan, "values")
    (axes,) = picture.axes
    agm, mslr = axes.containers
    for container, points in ((agm, records[:3]), (mslr, records[3:4])):
        line, _, (bars,) = container
        assert list(zip(*line.get_data(), strict=True)) == [(point.x, point.value) for point in points]
        assert [tuple(bar[:, 1]) for bar in bars.get_segments()] == [
            (point.value - point.deviation, point.value + point.deviation) for point in points
        ]
    joint = records[4]
    (line,) = [line for line in axes.lines if line.get_label() == "Joint"]
    assert list(line.get_ydata()) == [joint.value, joint.value] == [82.0, 82.0]
    (band,) = axes.patches
    assert (band.get_y(), band.get_height()) == (80.0, 4.0)
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"AGM", "MSLR", "Joint"}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("alpha", "ImageNet top-1 (%)", "log")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.5", "1", "4"]
    assert [text.get_text() for text in picture.texts] == ["3 seeds; bars and bands: one standard deviation"]


def test_points_of_one_seed_have_no_spread_and_are_not_joined(plan, overrides):
    picture, records = drawn(Plan.load(TINY, {**overrides, "seeds": [1]}), "values")
    assert {(record.seeds, record.deviation) for record in records} == {(1, None)}
    assert [record.value for record in records] == [TOP1[auxiliary][1] for _, _, auxiliary in POINTS]
    (axes,) = picture.axes
    for line, _, bars in axes.containers:
        assert line.get_linestyle() == "None" and line.get_marker() != "None" and bars == ()
    assert not axes.patches
    assert [text.get_text() for text in picture.texts] == ["one seed: nothing is known of its spread"]


def test_zero_and_negative_numbers_fit_on_a_linear_axis(changed):
    series = {"AGM": {"0": "pairs:early:top1", "-2": "pairs:random:top1"}}
    picture, records = changed(series=series, log_x=False)
    assert [record.x for record in records] == [-2, 0, None]
    assert picture.axes[0].get_xscale() == "linear"


def test_an_axis_of_several_metrics_has_the_name_of_none(changed):
    series = {"top-1": {"1": "pairs:early:top1"}, "mAP": {"1": "pairs:M2PT-Image:map"}}
    picture, records = changed(series=series, references={})
    assert [record.metric for record in records] == ["ImageNet top-1 (%)", "AudioSet mAP (%)"]
    assert picture.axes[0].get_ylabel() == "result (%)"


def test_a_cell_of_several_runs_is_one_point(changed):
    _, records = changed(series={"Point-MAE": {"1": "pairs:Point-MAE:miou"}}, references={})
    assert [(record.value, record.deviation) for record in records] == [(40.0, 0.0)]


def test_many_numbers_leave_the_ticks_to_matplotlib(changed):
    series = {"AGM": {str(number): "pairs:early:top1" for number in range(9)}}
    picture, _ = changed(series=series, log_x=False)
    assert len(picture.axes[0].get_xticks()) != 9
    series["AGM"].popitem()
    picture, _ = changed(series=series, log_x=False)
    assert list(picture.axes[0].get_xticks()) == list(range(8))
