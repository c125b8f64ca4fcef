"""Adaptive Gradient Modulation (arXiv 2308.07686) and the methods it is compared with. Imports torch only."""

from m2pt.agm.adaptive import AdaptiveGradientModulation
from m2pt.agm.balancing import BalancingMethod, Validation
from m2pt.agm.checks import BalancingError
from m2pt.agm.clipping import ConditionalClipping
from m2pt.agm.methods import MSES, MSLR, OGM, GradientBlending, Joint, blending_weights
from m2pt.agm.modulation import PRESETS
from m2pt.agm.mono_modal import mono_modal_logits
from m2pt.agm.muting import Muting
from m2pt.agm.responses import shapley_responses

__all__ = [
    "MSES",
    "MSLR",
    "OGM",
    "PRESETS",
    "AdaptiveGradientModulation",
    "BalancingError",
    "BalancingMethod",
    "ConditionalClipping",
    "GradientBlending",
    "Joint",
    "Muting",
    "Validation",
    "blending_weights",
    "mono_modal_logits",
    "shapley_responses",
]
