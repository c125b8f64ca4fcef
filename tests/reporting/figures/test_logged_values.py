"""Figures of logged values: their numbers against independent sums, their colours, their axes."""

import json
import statistics

import pytest
from figure_results import drawn, log, rows, run_of
from matplotlib.colors import to_rgba
from synthetic_results import TINY

from m2pt.config.figures import Figure
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.render import render
from m2pt.reporting.figures.style import BASELINE, modality_colours


@pytest.fixture
def changed(plan, tmp_path):
    """Draw the figure of logged values with another plot."""

    def draw(**change):
        figure = read_yaml(tmp_path / "logged.yaml")
        figure["plot"] |= change
        return render(FigureCells(plan, validate(Figure, figure, "here")))

    return draw


def relog(plan, auxiliaries, edit):
    """Write other lines for each seed of a run: `edit(lines, seed)`."""
    for seed in plan.config.seeds:
        lines = edit(log(seed), seed)
        path = plan.run_directory(run_of(plan, *auxiliaries), seed) / "metrics.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_values_are_means_over_seeds_in_the_order_of_the_panels(plan):
    table = rows(plan, "logged")
    assert [(row["panel"], row["key"], row["cell"], row["epoch"]) for row in table] == [
        (panel, key, cell, epoch)
        for panel, keys in (
            ("Coefficient", ("coefficient/audio", "coefficient/image")),
            ("Accuracy", ("val_top1", "val_top1_audio")),
        )
        for key in keys
        for cell in ("Joint", "AGM")
        for epoch in ("1", "2")
    ]
    image = next(row for row in table if row["key"] == "coefficient/image" and row["epoch"] == "2")
    assert float(image["value"]) == pytest.approx((2 / 1 + 2 / 2 + 2 / 3) / 3, rel=1e-5)
    assert float(image["deviation"]) == pytest.approx(statistics.stdev([2, 1, 2 / 3]), rel=1e-5)
    assert (image["modality"], image["seeds"], image["step"]) == ("image", "3", "20")
    accuracy = [row for row in table if row["key"] == "val_top1" and row["cell"] == "AGM"]
    assert [(row["value"], row["deviation"], row["modality"]) for row in accuracy] == [
        ("61", "1", ""),
        ("71", "1", ""),
    ]


def test_every_number_that_is_drawn_is_in_the_records(plan):
    picture, records = drawn(plan, "logged")
    for axes in picture.axes:
        drawn_points = [point for line in axes.lines for point in zip(*line.get_data(), strict=True)]
        points = [record for record in records if record.panel == axes.get_title()]
        assert drawn_points == [(point.epoch, point.value) for point in points]
        edges = {y for band in axes.collections for y in band.get_paths()[0].vertices[:, 1]}
        assert edges == {p.value + sign * p.deviation for p in points for sign in (-1, 1)}


def test_an_epoch_has_the_mean_of_its_lines_and_a_step_its_own(plan, changed):
    def thrice_in_the_first_epoch(lines, seed):
        more = [{"step": step, "epoch": 1, "coefficient/audio": 4.0 + seed} for step in (4, 8)]
        return [*more, *lines]

    relog(plan, ["audio"], thrice_in_the_first_epoch)
    one = {"panels": {"Coefficient": ["coefficient/audio"]}, "cells": {"AGM": "pairs:M2PT-Audio:top1"}}
    _, epochs = changed(**one)
    first = [(4 + 4 + 1) / 3, (5 + 5 + 2) / 3, (6 + 6 + 3) / 3]
    assert [(point.step, point.epoch) for point in epochs] == [(10, 1), (20, 2)]
    assert epochs[0].value == pytest.approx(statistics.fmean(first))
    assert epochs[0].deviation == pytest.approx(statistics.stdev(first))
    picture, steps = changed(**one, x="step")
    assert [(point.step, point.value) for point in steps] == [(4, 5.0), (8, 5.0), (10, 2.0), (20, 4.0)]
    assert list(picture.axes[0].lines[0].get_xdata()) == [4, 8, 10, 20]
    assert picture.axes[0].get_xlabel() == "optimizer step"


def test_a_key_has_the_colour_of_its_modality_and_a_cell_a_line_style(plan):
    picture, _ = drawn(plan, "logged")
    coefficient, accuracy = picture.axes
    colours = modality_colours(["audio", "image"])
    assert [line.get_color() for line in coefficient.lines] == [
        colours[name] for name in ("audio", "audio", "image", "image")
    ]
    assert [line.get_color() for line in accuracy.lines] == [BASELINE] * 2 + [colours["audio"]] * 2
    assert [line.get_linestyle() for line in coefficient.lines] == ["-", "--", "-", "--"]
    assert [text.get_text() for text in coefficient.get_legend().get_texts()] == ["audio", "image"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["val_top1", "audio"]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["Joint", "AGM"]
    assert [text.get_text() for text in picture.texts] == ["3 seeds; band: one standard deviation"]


def test_keys_without_a_modality_have_different_colours(changed):
    picture, _ = changed(panels={"a": ["loss", "lr"], "b": ["lr"]}, log=[])
    first, second = picture.axes
    assert len({to_rgba(line.get_color()) for line in first.lines}) == 2
    assert first.lines[0].get_color() == second.lines[0].get_color() == BASELINE


def test_one_cell_needs_no_legend_of_cells(changed):
    picture, _ = changed(cells={"AGM": "pairs:M2PT-Audio:top1"})
    assert not picture.legends


def test_only_the_panels_that_ask_for_it_are_logarithmic(plan):
    coefficient, accuracy = drawn(plan, "logged")[0].axes
    assert (coefficient.get_yscale(), accuracy.get_yscale()) == ("log", "linear")


@pytest.mark.parametrize("factor", [1.0, 0.1, 1e-3, 1e-9, 1e-30])
def test_a_logarithmic_axis_has_ticks_whatever_it_spans(plan, changed, factor):
    def shrunk(lines, seed):
        return [{**line, "coefficient/audio": factor**epoch} for epoch, line in enumerate(lines)]

    relog(plan, ["audio"], shrunk)
    panels = {"Coefficient": ["coefficient/audio"]}
    picture, _ = changed(panels=panels, cells={"AGM": "pairs:M2PT-Audio:top1"}, x="step")
    (axes,) = picture.axes
    bottom, top = axes.get_ylim()
    assert 2 <= sum(bottom <= tick <= top for tick in axes.get_yticks()) <= 12


def test_a_value_of_zero_falls_below_a_logarithmic_axis(plan, changed):
    def frozen(lines, seed):
        return [{**line, "coefficient/audio": 0.0} if "loss" in line and line["epoch"] == 2 else line
                for line in lines]  # fmt: skip

    relog(plan, ["audio"], frozen)
    picture, records = changed(cells={"AGM": "pairs:M2PT-Audio:top1"})
    lowest = min(record.value for record in records if record.panel == "Coefficient" and record.value > 0)
    bottom, _ = picture.axes[0].get_ylim()
    assert lowest / 2 < bottom < lowest
    relog(plan, ["audio"], lambda lines, seed: [frozen([{**line, "epoch": 2}], seed)[0] for line in lines])
    with pytest.raises(InputError, match="panel Coefficient has no value above 0 for its logarithmic axis"):
        changed(panels={"Coefficient": ["coefficient/audio"]}, cells={"AGM": "pairs:M2PT-Audio:top1"})


def test_one_seed_has_no_band(plan, overrides):
    one = Plan.load(TINY, {**overrides, "seeds": [1]})
    picture, records = drawn(one, "logged")
    assert not any(axes.collections for axes in picture.axes)
    assert {(record.seeds, record.deviation) for record in records} == {(1, None)}
    assert [text.get_text() for text in picture.texts] == ["one seed: nothing is known of its spread"]


def test_a_single_epoch_is_a_point_that_can_be_seen(plan, changed):
    relog(plan, ["audio"], lambda lines, seed: lines[:2])
    picture, _ = changed(cells={"AGM": "pairs:M2PT-Audio:top1"})
    assert [line.get_marker() for line in picture.axes[0].lines] == [".", "."]


def test_many_panels_are_all_drawn_in_rows_of_three(changed):
    picture, _ = changed(panels={f"panel {number}": ["loss"] for number in range(4)}, log=[])
    visible = [axes for axes in picture.axes if axes.get_visible()]
    assert [axes.get_title() for axes in visible] == [f"panel {number}" for number in range(4)]
    assert visible[0].get_subplotspec().get_gridspec().get_geometry() == (2, 3)


def test_logs_that_lack_a_key_or_differ_between_seeds_are_refused(plan, changed):
    path = relog(
        plan, ["audio"], lambda lines, seed: [line for line in lines if seed < 2 or "val_top1" not in line]
    )
    with pytest.raises(InputError) as error:
        changed()
    assert str(error.value) == (
        f"{path}: no line has 'val_top1'; the training logged loss, coefficient/audio, coefficient/image, lr."
    )
    relog(plan, ["audio"], lambda lines, seed: lines[: 2 + seed])
    with pytest.raises(InputError, match=r"its seeds were logged at different steps \(coefficient/audio\)"):
        changed()
    with pytest.raises(InputError, match="pairs:Point-MAE:miou: averages 2 runs"):
        changed(cells={"Point-MAE": "pairs:Point-MAE:miou"})
