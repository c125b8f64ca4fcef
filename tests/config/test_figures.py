"""A figure's YAML: its caption, what in it is refused, and the shipped Figure 3."""

from pathlib import Path

import pytest
from figure_results import FIGURES, TABLE

from m2pt import catalog
from m2pt.config.figures import Figure, check_cells, modality_of
from m2pt.config.strict import validate
from m2pt.config.tables import Table
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ({"kind": "gain_bars", "bars": {"a": "pears:MAE:top1"}}, "no table 'pears'"),
        ({"kind": "gain_bars", "bars": {"a": "pairs:MEA:top1"}}, "pairs has no method 'MEA'"),
        ({"kind": "gain_bars", "bars": {"a": "pairs:MAE:top5"}}, "pairs has no column 'top5'"),
        ({"kind": "training_curves", "curves": {"a": "pairs:MAE:map"}}, "row MAE does not run map"),
        ({"kind": "gain_bars", "bars": {"a": "pairs:MAE:top1"}}, "row MAE has no gain in top1"),
        (
            {
                "kind": "auxiliary_quality",
                "points": [{"cell": "pairs:early:top1"}, {"cell": "pairs:MAE:top1"}],
            },
            "row MAE attaches none or several",
        ),
    ],
)
def test_a_cell_that_the_plot_cannot_show_is_named(plot, words):
    figure = validate(Figure, {"title": "", "caption": "", "plot": plot}, "here.yaml")
    with pytest.raises(InputError) as error:
        check_cells(figure, {"pairs": validate(Table, TABLE, "pairs")}, "here.yaml")
    assert str(error.value).startswith("here.yaml: ") and words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "pie"}, "plot"),
        ({"auxiliary": {}}, "unknown key; did you mean 'auxiliaries'?"),
        ({"auxiliaries": {"image": "Image"}}, "no auxiliary 'audio'; the auxiliaries are image"),
        ({"auxiliaries": {"image": "Image", "audio": "Image"}}, "auxiliaries: titles: duplicate 'Image'"),
        (
            {"targets": [{"title": "Image", "cells": {"audio": "a:b:c"}, "published": {"video": 1}}]},
            "'video' has no cell",
        ),
    ],
)
def test_a_faulty_figure_is_refused(change, words):
    figure = {"title": "", "caption": "", "plot": {**FIGURES["gains"], **change}}
    with pytest.raises(InputError) as error:
        validate(Figure, figure, "here.yaml")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"panels": {}}, "plot.logged_values.panels = {}"),
        ({"panels": {"Loss": []}}, "plot.logged_values.panels.Loss"),
        ({"panels": {"Loss": ["loss", "loss"]}, "log": []}, "panel Loss: keys: duplicate 'loss'"),
        (
            {"panels": {"a": ["score/audio", "loss", "val_top1_audio"]}, "log": []},
            "panel a: score/audio and val_top1_audio would both have the color of audio",
        ),
        ({"log": ["Loss"]}, "log: no panel 'Loss'; the panels are Coefficient, Accuracy"),
        ({"log": ["Accuracy", "Accuracy"]}, "log: duplicate 'Accuracy'"),
        ({"cells": {}}, "plot.logged_values.cells = {}"),
        ({"cells": {str(i): "a:b:c" for i in range(5)}}, "at most 4 items"),
        ({"x": "time"}, "'epoch' or 'step'"),
        ({"panel": {}}, "did you mean 'panels'?"),
    ],
)
def test_a_faulty_figure_of_logged_values_is_refused(change, words):
    figure = {"title": "", "caption": "", "plot": {**FIGURES["logged"], **change}}
    with pytest.raises(InputError) as error:
        validate(Figure, figure, "here.yaml")
    assert str(error.value).startswith("here.yaml: plot") and words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"series": {}}, "plot.values.series = {}"),
        ({"series": {"AGM": {}}}, "plot.values.series.AGM = {}"),
        ({"series": {"AGM": {"strong": "a:b:c"}}}, "'strong': must be a number"),
        ({"series": {"AGM": {"nan": "a:b:c"}}}, "'nan': must be a number"),
        ({"series": {"AGM": {"0.5": "a:b:c", "5e-1": "a:b:d"}}}, "series AGM: duplicate 0.5"),
        (
            {"series": {"AGM": {"2": "a:b:c", "0": "a:b:d"}}},
            "series AGM: 0 has no place on a logarithmic axis",
        ),
        ({"references": {"AGM": "a:b:c"}}, "series and references: titles: duplicate 'AGM'"),
        ({"x_label": " "}, "must not be blank"),
    ],
)
def test_a_faulty_figure_of_values_is_refused(change, words):
    figure = {"title": "", "caption": "", "plot": {**FIGURES["values"], **change}}
    with pytest.raises(InputError) as error:
        validate(Figure, figure, "here.yaml")
    assert str(error.value).startswith("here.yaml: plot") and words in str(error.value)


@pytest.mark.parametrize("name", ["logged", "values"])
def test_every_cell_of_a_plot_is_checked(name):
    table = validate(Table, TABLE, "pairs")
    plot = validate(Figure, {"title": "", "caption": "", "plot": FIGURES[name]}, "here.yaml")
    assert check_cells(plot, {"pairs": table}, "here.yaml") is plot, "cells without a gain are fine"
    with pytest.raises(InputError) as error:
        check_cells(plot, {"apples": table}, "here.yaml")
    assert {line.split(": ")[1] for line in str(error.value).splitlines()} == {
        "logged": {"pairs:MAE:top1", "pairs:M2PT-Audio:top1"},
        "values": {f"pairs:{row}:top1" for row in ("MAE", "M2PT-Audio", "M2PT-Point", "early", "random")},
    }[name]


@pytest.mark.parametrize(
    ("key", "modality"),
    [
        ("score/audio", "audio"),
        ("val_top1_pointcloud", "pointcloud"),
        ("image", "image"),
        ("val_top1", None),
        ("coefficient/visual", None),
        ("coefficient/subaudio", None),
        ("audio/score", None),
    ],
)
def test_the_modality_of_a_key_is_at_its_end(key, modality):
    assert modality_of(key) == modality


def test_a_modality_with_an_underscore_is_recognized(monkeypatch):
    monkeypatch.setitem(catalog.MODALITIES, "noisy_audio", catalog.MODALITIES["audio"])
    assert modality_of("score/noisy_audio") == modality_of("val_top1_noisy_audio") == "noisy_audio"
    assert modality_of("score/audio") == "audio"


def test_the_shipped_figure_3_has_the_published_gains():
    tables = {
        path.stem: validate(Table, read_yaml(path), str(path))
        for path in Path("config/tables").glob("*.yaml")
    }
    paths = sorted(Path("config/figures").glob("*.yaml"))
    figures = {
        path.stem: check_cells(validate(Figure, read_yaml(path), str(path)), tables, str(path))
        for path in paths
    }
    plot = figures["figure3"].plot
    found = {}
    for auxiliary, target in plot.pairs():
        table, method, column = target.cells[auxiliary].split(":")
        row = next(row for row in tables[table].rows if f"{row.setting}/{row.method}" == method)
        gain = row.published[column] - tables[table].baseline(row).published[column]
        found[auxiliary, target.title] = target.published.get(auxiliary, round(gain, 2))
    assert found == {
        ("image", "Video"): 0.7, ("image", "Point cloud"): 1.8, ("image", "Audio"): 0.3,
        ("video", "Image"): 0.3, ("video", "Point cloud"): 2.7, ("video", "Audio"): 0.2,
        ("pointcloud", "Image"): 0.6, ("pointcloud", "Video"): 0.8, ("pointcloud", "Audio"): 0.3,
        ("audio", "Image"): 0.4, ("audio", "Video"): 0.8, ("audio", "Point cloud"): 0.7,
    }  # fmt: skip


def without(name, *cells):
    """The names of the cells in a plot without some of them; None if it has nothing left to draw."""
    figure = validate(Figure, {"title": "", "caption": "", "plot": FIGURES[name]}, "here.yaml")
    plot = figure.plot.without(cells)
    return None if plot is None else list(plot.cell_names())


@pytest.mark.parametrize("name", FIGURES)
def test_a_plot_does_without_some_of_its_cells_but_not_without_all(name):
    figure = validate(Figure, {"title": "", "caption": "", "plot": FIGURES[name]}, "here.yaml")
    names = list(figure.plot.cell_names())
    assert without(name) == names and without(name, *names) is None
    for cell in names[:2]:
        assert without(name, cell) == [each for each in names if each != cell]


def test_a_grid_has_no_empty_row_or_column():
    figure = validate(Figure, {"title": "", "caption": "", "plot": FIGURES["gains"]}, "here.yaml")
    plot = figure.plot.without(["pairs:M2PT-Audio:top1"])
    assert list(plot.auxiliaries) == ["image"] and [target.title for target in plot.targets] == ["Audio"]


def test_horizontal_lines_alone_are_no_figure_of_values():
    rows = ("M2PT-Audio", "M2PT-Point", "early", "random")
    assert without("values", *(f"pairs:{row}:top1" for row in rows)) is None
