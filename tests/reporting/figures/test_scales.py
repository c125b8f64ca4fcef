"""The figure of cross-modal scales: every seed's listed, their mean drawn."""

import json

import numpy as np
import pytest
from figure_results import SCALES, drawn, rows, run_of

from m2pt.errors import InputError
from m2pt.reporting.figures.scales import draw as draw_scales
from m2pt.reporting.figures.style import style


def test_the_scales_of_every_seed_are_listed_and_their_mean_is_drawn(plan):
    table = rows(plan, "scales")
    assert len(table) == 2 * 3 * len(SCALES)
    row = next(row for row in table if (row["target"], row["seed"], row["block"]) == ("Image", "2", "4"))
    assert (row["auxiliary"], row["layer"], row["run"]) == ("Audio", "mlp.fc2", run_of(plan, "audio"))
    assert float(row["scale"]) == pytest.approx(-0.28)

    picture, _ = drawn(plan, "scales")
    panels = {axes.get_title(): axes.images[0] for axes in picture.axes if axes.images and axes.get_title()}
    assert set(panels) == {"Audio → Image", "Image → Audio"}
    nan = float("nan")
    expected = [[0.11, nan, nan, nan], [nan, nan, nan, -0.29]]
    for panel in panels.values():
        np.testing.assert_allclose(np.ma.filled(panel.get_array(), nan), expected)
        assert panel.get_clim() == pytest.approx((-0.29, 0.29))


def test_each_target_s_scales_have_colours_of_their_own(plan):
    """Else a target whose scales grow ten times as large makes all others white."""
    figure = plan.figure("scales")
    _, records = drawn(plan, "scales")
    grown = [each._replace(scale=10 * each.scale) if each.target == "Audio" else each for each in records]
    with style():
        picture = draw_scales(figure.plot, grown)
    limits = {axes.get_title(): axes.images[0].get_clim()[1] for axes in picture.axes if axes.get_title()}
    assert limits == {"Audio → Image": pytest.approx(0.29), "Image → Audio": pytest.approx(2.9)}
    bars = [axes.get_xlim()[1] for axes in picture.axes if axes.get_xlabel() == "cross-modal scale λ"]
    assert bars == pytest.approx([0.29, 2.9])


def test_a_result_without_scales_is_refused(plan):
    path = plan.run_directory(run_of(plan, "audio"), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    del result["scales"]
    path.write_text(json.dumps(result))
    with pytest.raises(
        InputError, match=r"evaluation\.json: stores no scales; make it again with: snakemake"
    ):
        drawn(plan, "scales")
