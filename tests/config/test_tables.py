"""Rows and columns of a table."""

import copy
from pathlib import Path

import pytest
from config_documents import changed, refused

from m2pt.config.tables import Table
from m2pt.formats.documents import read_yaml

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("rows", [[]]),
        ("columns", [[]]),
        ("rows.0.published.tune_acc", [-0.1, 100.1, 1234.5, NAN, INF, True, "x"]),
        ("rows.0.method", ["", "a\nb", "x" * 1000, 1, "M2PT-Point"]),
        ("rows.1.columns", [["tune_acc", "tune_acc"], ["x"], "tune_acc"]),
        ("rows.2.run.pathway.auxiliaries", [[], ["pointcloud", "pointcloud"], ["Point Cloud"]]),
        ("rows.2.run.pathway", [{"auxiliaries": ["audio"], "scale_init": NAN}]),
        ("rows.2.run.pathway", [{"auxiliaries": ["audio"], "layers": ["attn.qkv", "attn.qkv"]}]),
        ("columns.0.name", ["fix_acc", "x" * 200, "A b"]),
        ("labels", [["a", "a"], [""]]),
    ],
)
def test_nonsense_in_a_table_is_refused(path, values):
    table = read_yaml(Path("tests/tiny/table.yaml")) | {"labels": []}
    for value in values:
        assert len(refused(Table, changed(table, path, value))) < 2000, (path, value)


def test_a_table_with_an_unknown_column_or_baseline_is_refused():
    table = read_yaml(Path("tests/tiny/table.yaml"))
    wrong_column = copy.deepcopy(table)
    wrong_column["rows"][1]["columns"] = ["top1"]
    assert "row MAE: no column 'top1'; columns are tune_acc, fix_acc, " in refused(Table, wrong_column)
    table["rows"][2]["baseline"] = "MEA"
    assert "its baseline 'MEA' is not a row" in refused(Table, table)


def test_public_numbers_have_a_source_and_a_column():
    table = read_yaml(Path("tests/tiny/table.yaml"))
    assert "row MAE: public: and public_source: go together" in refused(
        Table, changed(table, "rows.1.public_source", "")
    )
    assert "row MAE: no column 'top1'" in refused(Table, changed(table, "rows.1.public", {"top1": 67.8}))


@pytest.mark.parametrize("place", ["rows.1.method", "columns.0.title", "rows.0.method"])
@pytest.mark.parametrize("odd", ["a\nb", "a\x85b", "a\u2028b", "a\u2029b", "\x9b31m"])
def test_a_title_is_one_line(place, odd):
    table = changed(read_yaml(Path("tests/tiny/table.yaml")), place, odd)
    assert place in refused(Table, table)


@pytest.mark.parametrize("odd", ["", " ", "\u3000"])
def test_a_method_has_a_name(odd):
    table = changed(read_yaml(Path("tests/tiny/table.yaml")), "rows.0.method", odd)
    assert "rows.0.method" in refused(Table, table)
