"""A figure's YAML: its caption, what in it is refused, and the shipped Figure 3."""

from pathlib import Path

import pytest
from figure_results import FIGURES, TABLE

from m2pt.config.figures import Figure, check_cells
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
