"""The captions of figures in the report."""

from types import SimpleNamespace

from figure_results import FIGURES
from synthetic_results import TINY

from m2pt.formats.documents import read_yaml
from m2pt.plan.rules import Rules


def test_a_caption_explains_the_marks_of_its_kind_of_plot_and_no_others(plan, overrides):
    rules = Rules([str(TINY)], read_yaml(TINY) | overrides)
    captions = {name: rules.figure_caption(SimpleNamespace(figure=name), None) for name in FIGURES}
    assert all(caption.startswith("Caption. With several seeds ") for caption in captions.values())
    marked = {name for name, caption in captions.items() if "asterisk" in caption}
    assert marked == {"gains", "bars"}
    assert {name for name, caption in captions.items() if "interval" in caption} == {*marked, "quality"}
    assert {name for name, caption in captions.items() if "and no gains" in caption} == {*marked, "quality"}
    assert {name for name, caption in captions.items() if "band" in caption} == {"curves", "logged", "values"}
    assert "square" in captions["scales"] and "epoch is averaged" in captions["logged"]
    assert {name for name, caption in captions.items() if "not joined" in caption} == {"values"}
