"""Attach the matrices of auxiliaries to a target."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from m2pt.pathway.blocks import (
    ALL_LINEAR,
    TARGET,
    Blocks,
    Layers,
    Matrix,
    find_blocks,
    is_plain,
    modules_in,
    warn_of_left_out,
)
from m2pt.pathway.earlier import Added, check_flattened, watch_earlier
from m2pt.pathway.fitting import Unequal
from m2pt.pathway.forwards import check_forwards
from m2pt.pathway.keeping import merged_names
from m2pt.pathway.layers import plain_class, set_class, set_scopes
from m2pt.pathway.matching import Order, Pair, pair_blocks
from m2pt.pathway.names import is_clear
from m2pt.pathway.sharding import distributed_as, replicated_beside, reshard
from m2pt.pathway.sharing import check_shared, find_shared
from m2pt.pathway.terms import (
    Pathway,
    PathwayError,
    attached_names,
    is_attached,
    listed,
    parameter,
    pathways,
    terms,
)

Target = TypeVar("Target", bound=Blocks)


def attach(
    target: Target,
    auxiliary: Blocks | Mapping[str, Blocks],
    layers: Layers = ALL_LINEAR,
    scale_init: float = 0.0,
    scale_trainable: bool = True,
    order: Order = "normal",
    *,
    matrix_trainable: bool = True,
    scale_groups: int | Literal["rows"] | Mapping[str, int] = 1,
    unequal: Unequal = "error",
    untie: bool = False,
) -> Target:
    """Attach the auxiliary's matrices to the same layers of the target, block by block and in place (eq. 8).

    The matrices are copied to the target's device and dtype. The auxiliary's biases, norms, embeddings and
    head are never used, and the auxiliary is not modified. Build the optimizer afterwards. A matrix A has the
    shape of W, a scale λ the shape (1,), or (groups,) with `scale_groups`.
    Another call can attach further auxiliaries to the same layers, under other names; their terms add up.

    Args:
        target: a model, whose blocks are found, `model.blocks`, a list of modules, or one module that has the
            layers itself.
        auxiliary: the same for the auxiliary, or for several by name. A single one is named `auxiliary`.
        layers: which matrices. "all-linear" is every linear layer of a block, and the matrices that are
            parameters of an attention, but not recurrent layers nor experts stacked in one parameter, with a
            warning; another string is a regular expression for their paths; or a list of paths inside a
            block, `attn.qkv` or `attn.in_proj_weight`, which may be convolutions too. Where the auxiliary has
            no layer of that path, the one in the same role is taken: `attention.q_proj`, `.k_proj` and
            `.v_proj` for `attn.qkv`. A mapping from the target's paths to the auxiliary's says so explicitly,
            and attaches what it names alone; one of both may be several, whose output rows lie below each
            other.
        scale_init: initial λ. At 0 the target's outputs do not change.
        scale_trainable: False keeps λ at `scale_init`.
        matrix_trainable: False freezes A, whether or not the auxiliary's parameters are frozen.
        order: "normal" pairs block i with block i, "reversed" with block depth - 1 - i (the paper's Table 5),
            "shuffled" with the i-th of a permutation that depends on the depth alone and, for two blocks or
            more, differs from the normal order (a control of ours).
        scale_groups: number of λ of a matrix, each for an equal share of its output rows; one in the paper.
            "rows" gives every output channel its own; a mapping gives the number by path, {"attn.qkv": 36}
            one for each head of Q, K and V of twelve heads.
        unequal: "error" refuses an auxiliary of another depth, width or number of heads. "slice" takes, for
            each target block, the auxiliary block at the nearest relative depth (block i of D is helped by
            block round(i·(D' - 1)/(D - 1)) of D'), and of its matrices the leading rows and columns (of Q, K
            and V each), with zeros where they are smaller.
        untie: gives a layer whose weight is shared with another module its own, instead of an error.

    Returns:
        The target.

    Raises:
        PathwayError: unequal depth, width or heads, a missing layer, a weight that is shared, expanded,
            quantized, on the meta device or no parameter, a forward that pathways cannot follow, adapters
            that are not merged, values that are not finite, a name already in use, or nothing to attach. The
            target is unchanged in that case.
    """
    for what, value, known in (
        ("order", order, ("normal", "reversed", "shuffled")),
        ("unequal", unequal, ("error", "slice")),
    ):
        if value not in known:
            raise PathwayError(
                f"{what} must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {value!r}"
            )
    auxiliaries = auxiliary if isinstance(auxiliary, Mapping) else {"auxiliary": auxiliary}
    number, layers = _number(scale_init), _kept(layers)
    roots = [target] if isinstance(target, nn.Module) else modules_in(target, TARGET)
    check_flattened(roots)
    blocks = find_blocks(target if isinstance(target, nn.Module) else roots, TARGET, layers)
    pairs: list[Pair] = []
    for name, given in auxiliaries.items():
        _check_name(name, given)
        others = find_blocks(given, f"the auxiliary {name!r}", layers)
        pairs += pair_blocks(blocks, name, others, layers, order, unequal)
    if not pairs:
        raise PathwayError("nothing to attach: no block, no layer name or no auxiliary was given")
    _check_groups(pairs, scale_groups)
    parts = []
    for pair in pairs:
        scale = torch.full((_groups(pair, scale_groups),), number, dtype=torch.float64, device="cpu")
        parts.append(
            Part(
                pair.target,
                pair.label,
                pair.auxiliary,
                pair.values,
                scale.to(pair.target.parameter.dtype),
                scale_trainable,
                matrix_trainable,
            )
        )
    install(parts, blocks, roots, untie=untie)
    if layers == ALL_LINEAR:
        warn_of_left_out(blocks)
    return target


def _check_name(name: object, auxiliary: object) -> None:
    if isinstance(auxiliary, Tensor):
        raise PathwayError("the auxiliary is a state dict; load it into a model first")
    if not isinstance(name, str) or not name.isidentifier():
        raise PathwayError(
            f"an auxiliary cannot be named {name!r}: letters, digits and _ only, as in 'audio'"
        )
    if hasattr(nn.ModuleDict(), name):
        raise PathwayError(
            f"an auxiliary cannot be named {name!r}, which nn.ModuleDict uses itself; choose another word"
        )


def _number(scale_init: object) -> float:
    """Return the initial λ, also from a tensor of one element."""
    try:
        value = scale_init.item() if isinstance(scale_init, Tensor) else scale_init
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except (RuntimeError, OverflowError):  # a tensor of several elements or without values; beyond floats
        pass
    raise PathwayError(f"scale_init={scale_init!r}: must be a finite number")


def _kept(layers: Layers) -> Layers:
    """Return the layers to read once for each block, from iterators too."""
    if isinstance(layers, str):
        return layers
    if isinstance(layers, Mapping):
        return {paths: [names] if isinstance(names, str) else list(names) for paths, names in layers.items()}
    return list(layers)


@dataclass(frozen=True)
class Part:
    """What one auxiliary is to add to one matrix of the target; `label` is how messages call that.

    A takes the dtype of W, λ keeps its own.
    """

    target: Matrix
    label: str
    auxiliary: str
    values: Tensor
    scale: Tensor
    scale_trainable: bool
    matrix_trainable: bool = True


@torch.inference_mode(False)
def install(
    parts: Sequence[Part], blocks: Iterable[nn.Module], roots: Iterable[nn.Module], *, untie: bool = False
) -> None:
    """Give the layers in `blocks` their pathways, or none of them.

    In inference mode too they are given tensors that can be trained later.

    Raises:
        PathwayError: as `attach`; weights shared with another module are looked for in `roots`.
    """
    blocks = list(blocks)
    reshard(part.target.module for part in parts)
    _check_targets(parts)
    _check_values(parts)
    _check_lists(parts, blocks)
    _check_classes(parts, blocks)
    places = [(part.target.module, part.target.name) for part in parts]
    for number, block in enumerate(blocks):
        check_forwards(block, (part.target.module for part in parts), f"target block {number}")
    labels = {
        (id(module), name): f"of {part.label}" for (module, name), part in zip(places, parts, strict=True)
    }
    shared = find_shared(roots, places)
    check_shared(shared, untie, labels)
    made = [_made(part) for part in parts]
    added = [
        Added(*place, part.auxiliary, parameter(*place)) for place, part in zip(places, parts, strict=True)
    ]
    watch_earlier(added)
    for each in shared:
        each.untie()
    for part, (matrix, scale) in zip(parts, made, strict=True):
        _add(part, matrix, scale)
    for block in blocks:
        set_scopes(block)


def _check_targets(parts: Sequence[Part]) -> None:
    seen = set()
    for part in parts:
        module, own = part.target.module, part.target.parameter
        key = id(module), part.target.name, part.auxiliary
        if key in seen:
            raise PathwayError(
                f"{part.label} is named twice or shared by blocks; it can be attached only once"
            )
        seen.add(key)
        if not is_plain(own):
            raise PathwayError(
                f"the weight of {part.label} is a {type(own).__name__} of {own.dtype}, which cannot be "
                "trained as W + λA: attach to the model before it is quantized"
            )
        if own.is_meta != part.values.is_meta:
            where = f"the target's {part.label}" if own.is_meta else f"{part.auxiliary!r} for {part.label}"
            raise PathwayError(
                f"{where} is on the meta device, without values: load its weights before you attach, or have "
                "target and auxiliary there to load a state of both afterwards"
            )
        if not is_clear(part.target.name):
            raise PathwayError(f"{part.label} has a name that only scales of pathways have; rename it")
        if any(n > 1 and not step for n, step in zip(own.shape, own.stride(), strict=True)):
            raise PathwayError(
                f"the weight of {part.label} is expanded, so that W + λA cannot be written into it: give the "
                "layer a copy, nn.Parameter(weight.detach().contiguous())"
            )
        if getattr(module, "sparse", False):
            raise PathwayError(f"{part.label} has sparse gradients; build the embedding with sparse=False")
        if isinstance(module, torch.jit.ScriptModule):
            raise PathwayError(
                f"{part.label} is compiled by TorchScript: attach before torch.jit.script or trace"
            )
        if not is_attached(module):
            if "pathways" in module._modules:
                raise PathwayError(
                    f"{part.label} ({type(module).__name__}) has a module 'pathways' of its own"
                )
        elif merged_names(module):
            raise PathwayError(f"{part.label} is merged with keep_terms=True; unmerge the model first")
        elif part.auxiliary in terms(module, part.target.name):
            raise PathwayError(
                f"{part.label} already has a pathway named {part.auxiliary!r}; name the new one, "
                f"attach(model, {{'another': ...}}), or detach(model, {part.auxiliary!r}) first"
            )


def _check_lists(parts: Sequence[Part], blocks: Iterable[nn.Module]) -> None:
    """Refuse parameters that a module keeps in a list too, as an nn.LSTM does: its forward may use those."""
    found = {id(part.target.parameter): part for part in parts}
    for module in (module for block in blocks for module in block.modules()):
        for name, value in vars(module).items():
            for each in value if isinstance(value, list | tuple) else ():
                if part := found.get(id(each)):
                    raise PathwayError(
                        f"{part.label} is also in the list {name!r} of its {type(module).__name__}, whose "
                        "forward may use that one; choose other layers=[...]"
                    )


def _check_groups(pairs: Iterable[Pair], groups: int | str | Mapping[str, int]) -> None:
    paths = dict.fromkeys(pair.target.path for pair in pairs)
    if isinstance(groups, Mapping) and (unknown := [path for path in groups if path not in paths]):
        raise PathwayError(
            f"scale_groups has {listed(unknown)}, which is not attached; attached are {listed(paths)}"
        )


def _groups(pair: Pair, groups: int | str | Mapping[str, int]) -> int:
    """Return the number of scales of a matrix."""
    target = pair.target
    rows = target.shape[0]
    chosen = groups.get(target.path, 1) if isinstance(groups, Mapping) else groups
    number = rows if chosen == "rows" else chosen
    if not isinstance(number, int) or isinstance(number, bool):
        raise PathwayError(
            f"scale_groups={chosen!r}: must be a number, 'rows' or a mapping from paths to these"
        )
    if number < 1 or rows % number:
        raise PathwayError(f"scale_groups={chosen!r} of {pair.label}: must divide its {rows} output rows")
    if number > 1 and target.rows_are_inputs:
        kind = plain_class(target.module).__name__
        raise PathwayError(f"scale_groups={chosen!r}: the rows of {pair.label} ({kind}) are inputs")
    return number


def _check_values(parts: Sequence[Part]) -> None:
    """Check whole values, not shards of them: each process comes to the same end."""
    for part in parts:
        dtype = part.target.parameter.dtype
        if not all(each.is_meta or each.to(dtype).isfinite().all() for each in (part.scale, part.values)):
            raise PathwayError(
                f"{part.auxiliary!r} has values for {part.label} that are not finite in {dtype}"
            )


def _made(part: Part) -> tuple[Tensor, Tensor]:
    """Return A and λ on W's device and distributed alike, A in its dtype and layout as well."""
    own = part.target.parameter.detach()
    return distributed_as(own, part.values), replicated_beside(own, part.scale)


def _check_classes(parts: Sequence[Part], blocks: Iterable[nn.Module]) -> None:
    """Try the classes that the layers and the modules around them will have; some cannot change theirs."""
    found: dict[int, list[Part]] = {}
    for part in parts:
        found.setdefault(id(part.target.module), []).append(part)
    for path, module in (pair for block in blocks for pair in block.named_modules()):
        own, kind = found.get(id(module), []), plain_class(module).__name__
        if own:
            _try_class(module, [part.target.name for part in own], f"{own[0].label} ({kind})")
        elif type(module).forward is not nn.Module.forward and any(id(m) in found for m in module.modules()):
            if isinstance(module, torch.fx.GraphModule):
                raise PathwayError(
                    f"{path or 'the block'} is a GraphModule of torch.fx, which writes a class of its own: "
                    "attach to the model that it was traced from"
                )
            _try_class(module, [], f"{path!r} ({kind}), which is around layers to attach,")


def _try_class(module: nn.Module, names: Iterable[str], label: str) -> None:
    before = type(module)
    try:
        set_class(module, [*attached_names(module), *names])
    except TypeError as error:
        raise PathwayError(f"{label} cannot have pathways: {error}; choose other layers=[...]") from error
    finally:
        module.__class__ = before


def _add(part: Part, matrix: Tensor, scale: Tensor) -> None:
    module, name = part.target.module, part.target.name
    if not is_attached(module):
        module.add_module("pathways", nn.ModuleDict())
    found = pathways(module)
    if part.auxiliary not in found:
        found[part.auxiliary] = Pathway()
    found[part.auxiliary].add(name, matrix, scale, scale_trainable=part.scale_trainable)
    found[part.auxiliary].get_parameter(name).requires_grad_(part.matrix_trainable)
    module.get_submodule("pathways").train(module.training)
    set_class(module, {*attached_names(module), name})
