"""The methods that Adaptive Gradient Modulation is compared with: one file each, one interface.

"Greedy" (Wu et al., ICML 2022) is not among them: its learning speed compares each encoder with the MMTM
modules between the encoders, and its re-balancing step replaces the output of those modules by its running
mean. We found no definition for models without MMTM.
"""

from m2pt.agm.balancing import BalancingMethod, Validation
from m2pt.agm.checks import BalancingError
from m2pt.agm.methods.gradient_blending import GradientBlending, Losses, blending_weights
from m2pt.agm.methods.joint import Joint
from m2pt.agm.methods.mses import MSES
from m2pt.agm.methods.mslr import MSLR
from m2pt.agm.methods.ogm import OGM

__all__ = [
    "MSES",
    "MSLR",
    "OGM",
    "BalancingError",
    "BalancingMethod",
    "GradientBlending",
    "Joint",
    "Losses",
    "Validation",
    "blending_weights",
]
