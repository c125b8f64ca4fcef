"""Look at pathways, and switch or scale them for a while."""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from m2pt.pathway.keeping import merged_names
from m2pt.pathway.layers import attached_layers
from m2pt.pathway.merging import chosen_names
from m2pt.pathway.names import is_pathway, is_scale
from m2pt.pathway.sharding import reshard, whole
from m2pt.pathway.terms import Pathway, PathwayError, attached_names, pathways, terms
from m2pt.pathway.wrappers import without_wrappers


def scales(model: nn.Module) -> dict[str, float]:
    """Return every cross-modal scale under its parameter name: `blocks.0.attn.qkv.pathways.audio.scale`.

    Of several groups of rows each has its number behind the name: `...scale[0]`.
    """
    reshard(layer for _, layer in attached_layers(model))
    found: dict[str, float] = {}
    for name, value in model.named_parameters():
        if is_scale(name):
            values = whole(value.detach()).tolist()
            found |= (
                {name: values[0]} if len(values) == 1 else {f"{name}[{i}]": v for i, v in enumerate(values)}
            )
    return found


@contextmanager
def disabled(model: nn.Module, names: str | Collection[str] | None = None) -> Iterator[None]:
    """Leave out auxiliaries, all of them by default, inside a `with` block.

    Where activations are checkpointed, the backward has to run inside as well, for it computes the forward
    again. This holds in all threads. A copy of the model that is made inside has all auxiliaries.

    Raises:
        PathwayError: no layer has an auxiliary (of that name), or the model is merged with `keep_terms`.
    """
    pathways = _pathways(model, names)
    for pathway in pathways:
        pathway.disablers += 1
    try:
        yield
    finally:
        for pathway in pathways:
            pathway.disablers -= 1


@contextmanager
def scaled(model: nn.Module, factor: float, names: str | Collection[str] | None = None) -> Iterator[None]:
    """Multiply the learned scales λ of auxiliaries, of all by default, by `factor` inside a `with` block.

    The parameters stay as they are, so that a sweep needs no training and no copy:

        for factor in (0, 0.5, 1, 2):
            with scaled(model, factor):
                print(factor, accuracy(model))

    Factors of blocks inside each other multiply. Where activations are checkpointed, the backward has to run
    inside as well. This holds in all threads. A copy or a state dict that is taken inside has the learned λ.

    Raises:
        PathwayError: no layer has an auxiliary (of that name), the model is merged with `keep_terms`, or the
            factor is no finite number.
    """
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not math.isfinite(factor):
        raise PathwayError(f"scaled(model, factor, names): the factor must be a number, got {factor!r}")
    pathways = _pathways(model, names)
    for pathway in pathways:
        pathway.set_factors([*pathway.factors, float(factor)])
    try:
        yield
    finally:
        for pathway in pathways:
            pathway.factors.remove(float(factor))
            pathway.set_factors(pathway.factors)


def summary(model: nn.Module) -> str:
    """Return a table in text: matrices, their elements and the mean of |λ| by auxiliary; what is trained."""
    rows = [("auxiliary", "matrices", "elements", "mean |scale|")]
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for _, layer in attached_layers(model):
        for name in attached_names(layer):
            for auxiliary, pair in terms(layer, name).items():
                pairs.setdefault(auxiliary, []).append(pair)
    for auxiliary, found in pairs.items():
        elements = sum(matrix.numel() for matrix, _ in found)
        mean = sum(whole(scale.detach()).abs().mean().item() for _, scale in found) / len(found)
        rows.append((auxiliary, f"{len(found)}", f"{elements:,}", f"{mean:.4g}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    named = list(model.named_parameters())
    trained = sum(value.numel() for _, value in named if value.requires_grad)
    added = sum(value.numel() for name, value in named if is_pathway(name))
    total = sum(value.numel() for _, value in named)
    lines.append(f"{total:,} parameters, {trained:,} of them trained; merging removes {added:,}")
    return "\n".join(lines)


def _pathways(model: nn.Module, names: str | Collection[str] | None) -> list[Pathway]:
    chosen = chosen_names(model, names)
    if not chosen:
        raise PathwayError(
            "the model has no pathways: attach() or load_pathways() first; after merge() nothing is left to "
            "switch or scale"
        )
    for path, layer in attached_layers(model):
        if merged_names(layer):
            raise PathwayError(
                f"{without_wrappers(path)!r} is merged with keep_terms=True; unmerge the model first"
            )
    return [
        pathway
        for _, layer in attached_layers(model)
        for name, pathway in pathways(layer).items()
        if name in chosen
    ]
