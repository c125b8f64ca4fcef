"""Multimodal Pathway (arXiv 2401.14405): improve a transformer with the weights of one for another modality.

The public names of `m2pt.pathway` can be imported from the package:

    import m2pt

    m2pt.attach(target, auxiliary)
    ...  # train
    m2pt.merge(target)

They are imported on first use, so that `import m2pt` alone does not import torch.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

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

if TYPE_CHECKING:
    from m2pt.pathway import (
        PathwayError,
        attach,
        auxiliaries,
        detach,
        disabled,
        effective_weight,
        is_pathway,
        is_scale,
        load_pathways,
        merge,
        merge_state_dict,
        parameter_groups,
        save_pathways,
        scaled,
        scales,
        summary,
        unmerge,
    )
else:

    def __getattr__(name: str) -> Any:
        """Import a name of `m2pt.pathway` on first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from m2pt import pathway

        return getattr(pathway, name)

    def __dir__() -> list[str]:
        """List the lazily imported names too."""
        return sorted({*globals(), *__all__})
