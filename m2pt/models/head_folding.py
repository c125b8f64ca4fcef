"""A batch norm before a linear classifier is, in evaluation, part of that linear layer."""

from collections.abc import Mapping

from torch import Tensor

EPSILON = 1e-6
"""Of the batch norm in a `batchnorm_linear` head (MAE, `main_linprobe.py`)."""

_NORM, _LINEAR = "head.0.", "head.1."


def fold_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold the batch norm of a `batchnorm_linear` head into its linear layer, on the state dict alone.

    (x - μ)/√(σ² + ε)·Wᵀ + b = x·(W/√(σ² + ε))ᵀ + b - W·μ/√(σ² + ε), summed in float64. A state with another
    head is returned as it is.
    """
    if f"{_NORM}running_mean" not in state:
        return dict(state)
    mean, variance = (state[f"{_NORM}running_{name}"].double() for name in ("mean", "var"))
    weight, bias = (state[f"{_LINEAR}{name}"] for name in ("weight", "bias"))
    scaled = weight.double() / (variance + EPSILON).sqrt()
    folded = {key: value for key, value in state.items() if not key.startswith((_NORM, _LINEAR))}
    folded["head.weight"] = scaled.to(weight.dtype)
    folded["head.bias"] = (bias.double() - scaled @ mean).to(bias.dtype)
    return folded
