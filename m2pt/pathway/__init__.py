"""Cross-Modal Re-parameterization: layers that also use the weights of another modality's model.

Multimodal Pathway (Zhang et al., CVPR 2024, eq. 7-8) adds to the matrix W of a target layer the matrix A of
the same layer in a model of another modality, the auxiliary:

    x W + λ (x A)  =  x (W + λ A)          λ: the cross-modal scale, one trainable number per layer

The right-hand side is one ordinary layer, so that is what is computed. After training, W + λA is written back
into W: the merged model has the architecture, parameters and cost of the original one.

    attach(model, auxiliary)    # in place; λ = 0, so the outputs do not change
    ...                         # train: W, A and every λ are ordinary parameters
    merge(model)                # in place; plain layers again

W remains the parameter of its name in `named_parameters()` and `state_dict()`, next to
`pathways.<auxiliary>.weight` and `.scale`. `m2pt.pathway.layers` says how the forward sees the sum.

To read the package: names, summing, terms, layers; blocks, roles, matching, attaching; merging, control,
saving; then what these share: wrappers, keeping, readers, sharing, sharding, forwards, earlier and
optimizers.
"""

from m2pt.pathway.attaching import attach
from m2pt.pathway.control import disabled, scaled, scales, summary
from m2pt.pathway.layers import effective_weight
from m2pt.pathway.merging import auxiliaries, detach, merge, merge_state_dict, unmerge
from m2pt.pathway.names import is_pathway, is_scale
from m2pt.pathway.optimizers import parameter_groups
from m2pt.pathway.saving import load_pathways, save_pathways
from m2pt.pathway.terms import PathwayError

__all__ = [
    "PathwayError",
    "attach",
    "auxiliaries",
    "detach",
    "disabled",
    "effective_weight",
    "is_pathway",
    "is_scale",
    "load_pathways",
    "merge",
    "merge_state_dict",
    "parameter_groups",
    "save_pathways",
    "scaled",
    "scales",
    "summary",
    "unmerge",
]
