"""Plain joint training: the cross-entropy of all modalities together, and nothing else."""

from m2pt.agm.balancing import BalancingMethod


class Joint(BalancingMethod):
    """The baseline. With a model of one modality it trains that modality alone.

    Args: see `BalancingMethod`; encoders are not needed.
    """

    least_modalities = 1
    needs_encoders = False
