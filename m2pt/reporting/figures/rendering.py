"""From a figure of the config to its picture and the numbers in it, by its kind."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure as Picture

from m2pt.reporting.figures import auxiliary_quality, gain_bars, gain_matrix, scales, training_curves
from m2pt.reporting.figures.shown import Shown
from m2pt.schema.figures import AuxiliaryQuality, GainBars, GainMatrix, Scales, TrainingCurves


def render(shown: Shown) -> tuple[Picture, Sequence[NamedTuple]]:
    """Return the picture of a figure and, as records, every number in it.

    Raises:
        InputError: a result lacks what the kind of plot needs.
    """
    match shown.figure.plot:
        case GainMatrix() as plot:
            gains = gain_matrix.measure(plot, shown)
            return gain_matrix.draw(plot, gains), gains
        case Scales() as plot:
            values = scales.measure(plot, shown)
            return scales.draw(plot, values), values
        case AuxiliaryQuality() as plot:
            points = auxiliary_quality.measure(plot, shown)
            return auxiliary_quality.draw(points), points
        case TrainingCurves() as plot:
            curves = training_curves.measure(plot, shown)
            return training_curves.draw(curves), curves
        case GainBars() as plot:
            bars = gain_bars.measure(plot, shown)
            return gain_bars.draw(bars), bars
