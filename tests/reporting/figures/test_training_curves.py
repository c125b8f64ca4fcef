"""The figure of training curves: means over seeds, and logs that cannot be read or averaged."""

import statistics

import pytest
from figure_results import LOSSES, drawn, rows, run_of

from m2pt.config.figures import Figure
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.render import render


def test_curves_are_means_over_seeds_and_say_what_was_reached(plan):
    table = rows(plan, "curves")
    assert [(row["curve"], row["step"], row["epoch"]) for row in table] == [
        (curve, step, epoch) for curve in ("MAE", "with audio") for step, epoch in (("10", "1"), ("20", "2"))
    ]
    first = [losses[0] for losses in LOSSES.values()]
    assert float(table[0]["loss"]) == pytest.approx(statistics.fmean(first))
    assert float(table[0]["loss_deviation"]) == pytest.approx(statistics.stdev(first))
    assert (table[0]["modality"], table[2]["modality"]) == ("", "audio")
    assert float(table[2]["reached"]) == pytest.approx(83.0)
    picture, _ = drawn(plan, "curves")
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels == ["MAE: 82.0 ± 2.0", "with audio: 83.0 ± 1.9"]


def test_curves_that_cannot_be_read_or_averaged_are_refused(plan):
    folder = plan.run_directory(run_of(plan, "audio"), 1)
    path = folder / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(InputError, match="its seeds were logged at different steps"):
        drawn(plan, "curves")
    path.write_text('{"step": 1\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read"):
        drawn(plan, "curves")
    path.unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read .*train again"):
        drawn(plan, "curves")


def test_a_cell_of_several_runs_has_no_curve(plan, tmp_path):
    figure = read_yaml(tmp_path / "curves.yaml")
    figure["plot"]["curves"] = {"Point-MAE": "pairs:Point-MAE:miou"}
    cells = FigureCells(plan, validate(Figure, figure, "here"))
    with pytest.raises(InputError, match="pairs:Point-MAE:miou: averages 2 runs"):
        render(cells)
