"""Colours of modalities, and how gains are written."""

import pytest
from figure_results import drawn
from matplotlib.colors import to_rgba

from m2pt.reporting.figures import training_curves
from m2pt.reporting.figures.style import modality_colours, signed


def test_a_modality_without_a_colour_of_its_own_gets_another_one():
    names = ["eeg", "image", "depth", "video", "eeg", "audio", "pointcloud", "text"]
    colours = modality_colours(names)
    assert list(colours) == list(dict.fromkeys(names)) and len(set(colours.values())) == 7
    assert colours["image"] == modality_colours(["image"])["image"]


def test_more_modalities_than_colours_share_them():
    assert len(modality_colours(f"new{number}" for number in range(20))) == 20


def test_a_curve_of_an_unknown_modality_is_drawn(plan):
    _, records = drawn(plan, "curves")
    records = [each._replace(modality="eeg") if each.modality else each for each in records]
    lines = {line.get_label(): line for line in training_curves.draw(records).axes[0].lines}
    colour = next(line.get_color() for label, line in lines.items() if label.startswith("with audio"))
    assert to_rgba(colour) == pytest.approx(to_rgba(modality_colours(["eeg"])["eeg"]))


def test_what_rounds_to_zero_has_no_sign():
    assert [signed(value) for value in (0.04, -0.04, 0.0)] == ["0.0", "0.0", "0.0"]
    assert [signed(value) for value in (0.06, -0.06)] == ["+0.1", "\N{MINUS SIGN}0.1"]
    assert signed(-0.04, 2) == "\N{MINUS SIGN}0.04"
