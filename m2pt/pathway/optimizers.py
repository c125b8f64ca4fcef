"""Groups of parameters for an optimizer."""

from typing import Any

from torch import nn

from m2pt.pathway.names import is_scale
from m2pt.pathway.wrappers import without_wrappers


def parameter_groups(
    model: nn.Module, lr: float, scale_lr: float | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups for an optimizer of torch.

    Matrices and kernels decay; biases, norms and other vectors do not, nor what `no_weight_decay()` of the
    model or of a module in it names, as timm's models do for `cls_token` and `pos_embed`, nor the scales λ,
    which have their own rate.

    Args:
        model: the model, with pathways or without.
        lr: learning rate of all but the scales.
        scale_lr: learning rate of the scales; `lr` if it is None.
        weight_decay: of matrices and kernels.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`: "matrices", "undecayed", "scales", if not
        empty.
    """
    groups: dict[str, dict[str, Any]] = {
        "matrices": {"lr": lr, "weight_decay": weight_decay},
        "undecayed": {"lr": lr, "weight_decay": 0.0},
        "scales": {"lr": lr if scale_lr is None else scale_lr, "weight_decay": 0.0},
    }
    keep = set()  # without what wrappers of blocks add; one of the model adds the same to both
    for path, module in model.named_modules():
        if callable(names := getattr(module, "no_weight_decay", None)):
            keep |= {without_wrappers(f"{path}.{name}".lstrip(".")) for name in names()}
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for name, value in model.named_parameters():
        if value.requires_grad:
            decays = value.ndim > 1 and without_wrappers(name) not in keep
            members["scales" if is_scale(name) else "matrices" if decays else "undecayed"].append(value)
    return [{"name": name, "params": members[name], **groups[name]} for name in groups if members[name]]
