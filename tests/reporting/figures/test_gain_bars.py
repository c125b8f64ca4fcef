"""Gains as bars."""

import pytest
from figure_results import drawn, rows


def test_bars_show_gains_in_their_order(plan):
    audio, early = rows(plan, "bars")
    assert (audio["bar"], audio["significant"], audio["published_gain"]) == ("audio", "True", "0.4")
    assert (early["bar"], early["significant"], early["published_gain"]) == ("early", "False", "")
    picture, _ = drawn(plan, "bars")
    heights = [bar.get_height() for bar in picture.axes[0].patches]
    assert heights == pytest.approx([1.0, -0.5 / 3])
    assert picture.axes[0].get_legend() is None, "its dash would pass for a published gain"
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["published"]
