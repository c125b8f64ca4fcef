"""The shipped tables against the numbers and the text of the paper."""

from pathlib import Path

import pytest

from m2pt.config.experiment import LAYERS
from m2pt.config.strict import validate
from m2pt.config.tables import Table
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan

TABLES = {
    path.stem: validate(Table, read_yaml(path), str(path)) for path in Path("config/tables").glob("*.yaml")
}


def published_gains(table, setting):
    """The gains between published numbers that a table has, by method, in the order of its columns."""
    found = {}
    for row in table.rows:
        baseline = table.baseline(row)
        if row.setting == setting and baseline is not None:
            names = [column.name for column in table.columns if column.name in row.published]
            found[row.method] = [round(row.published[name] - baseline.published[name], 2) for name in names]
    return found


@pytest.mark.parametrize(
    ("table", "setting", "arrows"),
    [
        (
            "table1",
            "pretrained",
            {"Video": [0.3, 1.5], "Audio": [0.4, 1.7], "Point": [0.6, 2.2, 2.7, 1.6, 1.8]},
        ),
        ("table1", "scratch", {"Point": [5.4, 5.0, 2.7, 1.7, 2.8]}),
        (
            "table2a",
            "pretrained",
            {"Video": [1.4, 1.4, 2.7], "Image": [1.4, 1.4, 1.8], "Audio": [1.4, 1.4, 0.7]},
        ),
        ("table2a", "scratch", {"Video": [0.6, 0.4]}),
        ("table2b", "pretrained", {"Point": [0.3], "Video": [0.2], "Image": [0.3]}),
        ("table2b", "scratch", {"Point": [0.4]}),
        ("table3", "pretrained", {"Point": [0.8], "Image": [0.7], "Audio": [0.7]}),
    ],
)
def test_the_published_gains_are_the_paper_s_arrows(table, setting, arrows):
    assert published_gains(TABLES[table], setting) == {
        f"M2PT-{name}": gains for name, gains in arrows.items()
    }


def test_the_differences_of_tables_4_and_5_are_those_of_the_paper_s_text():
    numbers = {row.method: row.published.get("imagenet_tune_acc") for row in TABLES["table5"].rows}
    full = numbers["fully pretrained auxiliary"]
    assert round(full - numbers["reversed auxiliary"], 2) == 0.32
    rows = [row for row in TABLES["table4"].rows if row.setting == "ablation"]
    best = max(rows, key=lambda row: row.published["imagenet_tune_acc"])
    assert best.method == "all layers" and best.run.pathway.layers == LAYERS
    assert [row.published["imagenet_tune_acc"] - 83 for row in rows[:4]] == pytest.approx(
        [0.4, 0.6, 0.6, 0.7]
    )


def test_equal_runs_have_equal_published_numbers():
    """Each table says what it is compared with; Table 5 gives a second decimal."""
    plan = Plan.load(Path("config/config.yaml"))
    found: dict = {}
    for name, table in plan.tables.items():
        for row in table.rows:
            for column in table.columns:
                if runs := plan.cell_runs(name, row, column):
                    key = tuple(run.name for run in runs), column.metric
                    number = row.published.get(column.name)
                    if row.setting in ("pretrained", "scratch") or number is not None:
                        found.setdefault(key, set()).add(None if number is None else round(number, 1))
    assert all(len(numbers) == 1 for numbers in found.values()), found
    assert sum(None not in numbers for numbers in found.values()) > 40


def test_every_label_of_table_4_says_what_the_row_does():
    kinds = dict(zip(("Attn QKV", "Attn Proj", "FFN 1st", "FFN 2nd"), LAYERS, strict=True))
    for row in TABLES["table4"].rows[1:]:
        pathway = row.run.pathway
        assert (
            tuple(layer for label, layer in kinds.items() if row.labels.get(label) == "✓") == pathway.layers
        )
        assert float(row.labels["Init"]) == pathway.scale_init
        assert (row.labels["Trainable"] == "✓") == pathway.scale_trainable


def test_each_target_has_its_three_auxiliaries_and_its_controls():
    targets = {"table1": "image", "table2a": "pointcloud", "table2b": "audio", "table3": "video"}
    for name, target in targets.items():
        runs = {
            (row.setting, row.method): row.run for row in TABLES[name].rows if row.run and row.run.pathway
        }
        pathways = [run.pathway for (setting, _), run in runs.items() if setting == "pretrained"]
        others = {"image", "video", "audio", "pointcloud"} - {target}
        assert {pathway.auxiliaries[0] for pathway in pathways} == others
        controls = {run.pathway for (setting, _), run in runs.items() if setting == "control"}
        assert {control.auxiliaries for control in controls} >= {("random",), (target,)}
        assert {control.order for control in controls} == {"normal", "shuffled"}


def test_rows_of_several_tables_that_mean_the_same_training_share_it():
    plan = Plan.load(Path("config/config.yaml"))

    def names(table, method, setting=None):
        rows = [
            row for row in plan.table(table).rows if row.method == method and setting in (None, row.setting)
        ]
        column = next(column for column in plan.table(table).columns if column.name == "imagenet_tune_acc")
        return [run.name for row in rows for run in plan.cell_runs(table, row, column)]

    for table in ("table4", "table5", "extensions"):
        assert names(table, "MAE") == names("table1", "MAE")
    point = names("table1", "M2PT-Point", "pretrained")
    assert point == names("table4", "all layers") == names("table5", "fully pretrained auxiliary")
    assert names("extensions", "M2PT-Point") == point
    for method in ("early auxiliary", "middle auxiliary"):
        assert names("extensions", method) == names("table5", method)
