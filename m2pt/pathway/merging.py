"""Merge pathways into the weights, for good or until `unmerge`, or remove them."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from m2pt.pathway.keeping import drop_merged, keep_merged
from m2pt.pathway.layers import attached_layers, drop_scopes, set_class
from m2pt.pathway.names import PathwayKey, parse
from m2pt.pathway.sharding import replicated, reshard
from m2pt.pathway.sharing import Shared, check_shared, find_shared, overlapping
from m2pt.pathway.summing import weighted_sum
from m2pt.pathway.terms import PathwayError, attached_names, parameter, pathways, terms
from m2pt.pathway.wrappers import without_wrappers


def merge(
    model: nn.Module,
    names: str | Collection[str] | None = None,
    *,
    untie: bool = False,
    keep_terms: bool = False,
) -> nn.Module:
    """Write W + Σ λᵢAᵢ into W everywhere in `model`, in place, and make the layers plain again.

    Classes, state-dict keys, shapes and the number of parameters are as before `attach`. The sum is computed
    in float32 (float64 for float64 weights). A model without pathways is returned unchanged. To continue to
    train the attached model, merge a copy: `merge(copy.deepcopy(model))`.

    Args:
        model: the model, or a part of it.
        names: the auxiliaries to merge; all of them if it is None. The others stay attached.
        untie: gives a layer whose weight is shared with another module its own, instead of an error.
        keep_terms: keeps W, Aᵢ and λᵢ beside the sum until `unmerge`. The layers stay attached, cost in
            inference what plain ones do, and refuse to be trained; the state dict is that before the merge.
            A forward refuses W, Aᵢ or λᵢ written since, but cannot tell in compiled code, of sharded weights,
            or if it was in place through `.data`.

    Raises:
        PathwayError: no layer has an auxiliary of that name, a weight is shared with another module, which
            would change too, W, A or λ is no longer a parameter, or it is inside `disabled` or `scaled`. The
            model is unchanged in that case.
    """
    chosen = chosen_names(model, names)
    _check_switches(model)
    reshard(layer for _, layer in attached_layers(model))
    if keep_terms:
        if names is not None:
            raise PathwayError("keep_terms=True merges all auxiliaries; leave names out")
        return _keep_merged(model)
    shared = _shared(model)
    check_shared(shared, untie)
    found = [(layer, _pairs(layer, chosen)) for _, layer in attached_layers(model)]
    for each in shared:
        each.untie()
    unmerge(model)
    for layer, pairs in found:  # each is done before the next is computed, which may not fit in memory
        weights = [parameter(layer, name) for name in pairs]
        sums = [_merged(weight, own) for weight, own in zip(weights, pairs.values(), strict=True)]
        with torch.no_grad():
            for weight, value in zip(weights, sums, strict=True):
                weight.copy_(value)
        _remove(layer, chosen)
    drop_scopes(model)
    return model


def _pairs(layer: nn.Module, chosen: Collection[str]) -> dict[str, list[tuple[nn.Parameter, nn.Parameter]]]:
    """Return A and λ of the chosen auxiliaries for each parameter of the layer that they have."""
    for name in attached_names(layer):
        if name not in layer._parameters:
            raise PathwayError(
                f"{name!r} of {type(layer).__name__} is no longer a parameter: weight_norm, parametrizations "
                "and pruning cannot follow attach(); remove them before you merge"
            )
    own = {
        name: [pair for key, pair in terms(layer, name).items() if key in chosen]
        for name in attached_names(layer)
    }
    return {name: pairs for name, pairs in own.items() if pairs}


def _check_switches(model: nn.Module) -> None:
    for path, layer in attached_layers(model):
        for name, pathway in pathways(layer).items():
            if pathway.disablers or pathway.factors:
                raise PathwayError(
                    f"{name!r} of {without_wrappers(path)!r} is switched off or scaled: merge outside of "
                    "disabled() and scaled()"
                )


def _keep_merged(model: nn.Module) -> nn.Module:
    for _, layer in attached_layers(model):
        for name in attached_names(layer):
            weight = parameter(layer, name).detach()
            merged = _merged(weight, list(terms(layer, name).values())).to(weight.dtype)
            keep_merged(layer, name, merged)
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Undo `merge(model, keep_terms=True)`, in place and to the same bits."""
    for _, layer in attached_layers(model):
        for name in attached_names(layer):
            drop_merged(layer, name)
    return model


def detach(model: nn.Module, names: str | Collection[str] | None = None) -> nn.Module:
    """Remove pathways without merging them, in place: the layers compute with W and what stays attached.

    Args:
        model: the model, or a part of it.
        names: the auxiliaries to remove; all of them if it is None.

    Raises:
        PathwayError: no layer has an auxiliary of that name.
    """
    return _without(model, chosen_names(model, names))


def merge_state_dict(state: Mapping[str, Tensor], *, untie: bool = False) -> dict[str, Tensor]:
    """Return the state dict of the merged model, computed from the attached model's state dict alone.

    Args:
        state: the state dict; files of safetensors do not tell which weights are shared.
        untie: accepts a weight with pathways that has another key too: the two differ in the result, which
            fits models alone that do not share it.

    Raises:
        PathwayError: the weight, the scale or the target weight of a pathway is missing or has a shape that
            does not fit, a weight is shared with another key, or it is a checkpoint or a file of
            `save_pathways` that has states inside.
    """
    for name, value in state.items():
        if isinstance(value, Mapping) and not str(name).endswith("_extra_state"):
            raise PathwayError(
                f"cannot merge: {name!r} is a mapping; pass the model's state dict itself, such as "
                "checkpoint['model']. A file of save_pathways has no W: load_pathways() and merge() the model"
            )
    keys = {name: parse(name) for name in state}
    merged = {name: tensor for name, tensor in state.items() if keys[name] is None}
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, key in keys.items():
        if key is not None:
            for needed in (key.target, key.matrix, key.scale):
                if needed not in state:
                    raise PathwayError(
                        f"cannot merge: the state dict has {name!r} but no {needed!r}; pass all of "
                        "model.state_dict(), since save_pretrained of transformers may rename W, or split it "
                        "as it does stacked experts, or merge() the model before it is saved"
                    )
            if name == key.matrix:
                _check_shapes(state, key)
                pairs.setdefault(key.target, []).append((state[key.matrix], state[key.scale]))
    if not untie:
        _check_keys(state, pairs)
    for target, found in pairs.items():
        merged[target] = _merged(state[target], found).to(state[target].dtype)
    return merged


def _check_shapes(state: Mapping[str, Tensor], key: PathwayKey) -> None:
    """Refuse a matrix unlike the weight that it is added to, and a scale that does not divide its rows."""
    target, matrix, scale = (state[name] for name in (key.target, key.matrix, key.scale))
    if matrix.shape != target.shape:
        raise PathwayError(
            f"cannot merge: {key.matrix!r} has the shape {tuple(matrix.shape)}, {key.target!r} has "
            f"{tuple(target.shape)}"
        )
    if scale.ndim != 1 or not matrix.ndim or not len(scale) or len(matrix) % len(scale):
        raise PathwayError(
            f"cannot merge: {key.scale!r} has the shape {tuple(scale.shape)}, which must be (1,) or (n,), "
            f"with an n that divides the rows of {tuple(matrix.shape)}"
        )


def _check_keys(state: Mapping[str, Tensor], targets: Collection[str]) -> None:
    """Refuse weights to merge that have another key too."""
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    for pair in overlapping(tensors):
        for target, other in (pair, pair[::-1]):
            if target in targets:
                raise PathwayError(
                    f"the weight {target!r} is also {other!r}, or shares memory with it: merging would "
                    "change that too; untie=True is for a model in which the layer has a weight of its own"
                )


def auxiliaries(model: nn.Module) -> list[str]:
    """Return the names of the auxiliaries that are attached anywhere in `model`."""
    return list(dict.fromkeys(name for _, layer in attached_layers(model) for name in pathways(layer)))


def chosen_names(model: nn.Module, names: str | Collection[str] | None) -> set[str]:
    """Return the names to act on, after checking that they are attached."""
    known = auxiliaries(model)
    chosen = known if names is None else [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in known:
            raise PathwayError(f"no auxiliary {name!r} is attached; there are {known}")
    return set(chosen)


def _without(model: nn.Module, names: Collection[str]) -> nn.Module:
    unmerge(model)
    for _, layer in list(attached_layers(model)):
        _remove(layer, names)
    drop_scopes(model)
    return model


def _remove(layer: nn.Module, names: Collection[str]) -> None:
    """Remove a layer's pathways; `drop_scopes` gives it its own class back if none is left."""
    for name in names:
        pathways(layer).pop(name, None)
    left = {name for name in attached_names(layer) if terms(layer, name)}
    if not left:
        del layer.pathways
    set_class(layer, left)  # without any it may still be around other layers


def _shared(model: nn.Module) -> list[Shared]:
    """Return the weights with pathways that another module has too."""
    layers = (layer for _, layer in attached_layers(model))
    return find_shared([model], [(layer, name) for layer in layers for name in attached_names(layer)])


def _merged(weight: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return W + Σ λᵢAᵢ in float32 or better."""
    precise = torch.promote_types(weight.dtype, torch.float32)
    with torch.no_grad():
        wide = [(matrix.to(precise), replicated(scale).to(precise)) for matrix, scale in pairs]
        return weighted_sum(weight.to(precise), wide, precise)
