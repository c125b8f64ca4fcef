"""A layer with pathways: its forward computes with W + Σ λᵢAᵢ instead of W.

The layer keeps its forward, its parameters and their names. Its class is replaced by a subclass in which the
parameter, `weight` as a rule, is a property:

- inside a forward, of the layer or of a module between the block given to `attach` and the layer, it is the
  effective weight. So `nn.Linear`, `nn.Conv2d`, custom classes, and an attention that uses `self.qkv.weight`
  and never calls `self.qkv` work alike;
- elsewhere it is the parameter W. What initializes, loads, shards or edits weights therefore reaches W.

`effective_weight` returns W + Σ λᵢAᵢ anywhere.
"""

import functools
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from m2pt.pathway.keeping import check_merged, drop_merged, is_current, kept, merged_names, note_versions
from m2pt.pathway.names import parse
from m2pt.pathway.readers import wanted
from m2pt.pathway.sharding import gathered, is_distributed
from m2pt.pathway.summing import EffectiveWeight, per_row
from m2pt.pathway.terms import (
    HasPathways,
    PathwayError,
    attached_names,
    enabled_terms,
    is_attached,
    listed,
    parameter,
)
from m2pt.pathway.wrappers import without_wrappers


class _Forwards(threading.local):
    """Whether this thread is in a forward that may use effective weights.

    The attributes are set in each thread, because compiled code is guarded by whether there are any.

    `own` says whether the forward is that of a layer with pathways, as opposed to one around it, `symbolic`
    whether torch.fx traces it, with proxies for the inputs.
    """

    def __init__(self) -> None:
        self.running = self.own = self.symbolic = False


_forwards = _Forwards()


def _in_forward() -> bool:
    """Return whether a forward is being computed, traced, or recomputed during a backward pass."""
    if torch.compiler.is_compiling():  # what is compiled is guarded by this value
        return _forwards.running
    # in a backward pass what recomputes enables gradients, and hooks run without
    return _forwards.running or (torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled())


class _Warned(threading.local):
    """The last load that was warned of, by the list of errors that it hands to each layer."""

    load: Any = None


_warned = _Warned()


class _Scoped:
    """Mixin of the modules from a target's block down to its attached layers: marks their forwards."""

    plain_class: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as the plain class does, with effective weights."""
        outer = _forwards.running, _forwards.own, _forwards.symbolic
        symbolic = any(isinstance(each, torch.fx.Proxy) for each in (*args, *kwargs.values()))
        _forwards.running, _forwards.own, _forwards.symbolic = True, isinstance(self, HasPathways), symbolic
        try:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        finally:
            _forwards.running, _forwards.own, _forwards.symbolic = outer

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and deepcopy through the plain class, since the generated one cannot be imported."""
        state = self.__getstate__()  # type: ignore[attr-defined]
        return _new, (self.plain_class, getattr(self, "attached_names", ())), state


class _Attached(_Scoped, HasPathways):
    """Mixin of the layers that have pathways."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a plain layer where `type(layer)(...)` asks for one like it, as peft does for convolutions."""
        return cls.plain_class(*args, **kwargs) if args or kwargs else super().__new__(cls)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as the plain class does, with effective weights."""
        for name in self.attached_names:
            if name not in vars(self)["_parameters"]:
                raise PathwayError(
                    f"{name!r} of {type(self).__name__} is no longer a parameter: weight_norm, "
                    "parametrizations and pruning cannot follow attach(); merge first"
                )
        return super().forward(*args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, metadata: Any, strict: bool, *lists: Any
    ) -> None:
        """Load as any module; warn of pathways that only the state or only the layer has."""
        own = {f"{prefix}{name}" for name in self.state_dict() if name.startswith("pathways.")}  # type: ignore[attr-defined]
        given = {key for key in state_dict if key.startswith(f"{prefix}pathways.")}
        loads = given or any(f"{prefix}{name}" in state_dict for name in self.attached_names)
        errors = lists[-1]  # one list for the whole load
        if loads and own != given and _warned.load is not errors:  # strict is True whatever the caller said
            _warned.load = errors
            in_state, in_layer = (listed(_auxiliaries(keys)) for keys in (given, own))
            warnings.warn(
                f"{without_wrappers(prefix.removesuffix('.'))!r} has the pathways {in_layer}, the state "
                f"{in_state}: what only one of them has is left as it is, here and in other layers. Load a "
                "checkpoint before attach(), or pathways with load_pathways()",
                stacklevel=2,
            )
        for name in self.attached_names:
            drop_merged(self, name)  # type: ignore[arg-type]
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)  # type: ignore[misc]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast as any module; merged weights are of the new tensors then."""
        names = [name for name in merged_names(self) if is_current(self, name)]  # type: ignore[arg-type]
        applied = super()._apply(*args, **kwargs)  # type: ignore[misc]
        for name in names:
            note_versions(self, name)  # type: ignore[arg-type]
        return applied

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and deepcopy as any scoped module, but no merged weight of other tensors than W, Aᵢ, λᵢ."""
        for name in merged_names(self):  # type: ignore[arg-type]
            check_merged(self, name)  # type: ignore[arg-type]
        return super().__reduce_ex__(protocol)

    def __setstate__(self, state: Any) -> None:
        """Restore a copy, whose merged weights are of its own tensors."""
        super().__setstate__(state)  # type: ignore[misc]
        for name in merged_names(self):  # type: ignore[arg-type]
            note_versions(self, name)  # type: ignore[arg-type]


def _auxiliaries(keys: Iterable[str]) -> list[str]:
    """Return the names of auxiliaries in keys of a state dict."""
    return sorted({found.auxiliary for key in keys if (found := parse(key)) is not None})


def attached_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and the module of each layer with pathways in `model`."""
    return ((name, module) for name, module in model.named_modules() if is_attached(module))


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that the module had before `attach`."""
    return module.plain_class if isinstance(module, _Scoped) else type(module)


def effective_weight(layer: nn.Module, name: str = "weight") -> Tensor:
    """Return W + Σ λᵢAᵢ (eq. 8), of W's shape; the parameter itself of a layer without pathways.

    In the forward of a linear layer, a convolution or torch's attention under autocast it has autocast's
    dtype, as their products round it to that anyhow; this saves a second copy. Gradients flow to W, Aᵢ, λᵢ.

    Raises:
        PathwayError: the layer is merged with `keep_terms` and gradients are enabled or what it was merged
            of has changed, A or λ is no longer a parameter, or W has been quantized.
    """
    weight: Tensor = parameter(layer, name)  # not the attribute, which in a forward is this very sum
    if name not in attached_names(layer):
        return weight
    if (merged := kept(layer, name)) is not None:
        return merged
    if weight.dtype not in _WEIGHTS:  # torch would add λA to numbers that are no weights
        raise PathwayError(
            f"{name!r} of {type(layer).__name__} is {weight.dtype} now, whose numbers alone are no weights: "
            "merge() the model before it is quantized"
        )
    pairs: Any = [_like(weight, pair) for pair in enabled_terms(layer, name)]
    if not pairs:
        return weight
    dtype = _dtype(layer, weight)
    if torch.compiler.is_compiling():  # exported graphs keep no custom backward; compilers fuse this one
        for matrix, scale in pairs:
            weight = torch.addcmul(weight, matrix, per_row(scale, matrix))
        return weight.to(dtype)
    return EffectiveWeight.apply(dtype, weight, *(tensor for pair in pairs for tensor in pair))


_WEIGHTS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}

_ROUNDED_BY_AUTOCAST = {
    nn.Linear.forward,
    nn.Conv1d.forward,
    nn.Conv2d.forward,
    nn.Conv3d.forward,
    nn.MultiheadAttention.forward,
}
"""Forwards that round W to autocast's dtype before they use it; others may use it otherwise."""


def _dtype(layer: nn.Module, weight: Tensor) -> torch.dtype:
    """Return the dtype of the sum: autocast's where the layer would round it to that, else that of W."""
    device = weight.device.type
    if weight.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return weight.dtype
    rounds = plain_class(layer).forward in _ROUNDED_BY_AUTOCAST
    if not torch.compiler.is_compiling():  # which fuses the sum and a rounding after it
        rounds = rounds and _forwards.own
    return torch.get_autocast_dtype(device) if rounds else weight.dtype


def _like(weight: Tensor, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return A and λ as W is: in its dtype, and as plain tensors beside a plain one.

    λ may be kept in float32 beside a W in bf16, for small steps. W is plain and A is not if the target was
    sharded by `fully_shard` before `attach`: in the forward FSDP has gathered W, and does not know A.
    """
    matrix, scale = pair
    if is_distributed(weight) or not is_distributed(matrix):
        return matrix.to(weight.dtype), scale.to(weight.dtype)
    return gathered(matrix, weight.dtype), gathered(scale, weight.dtype)


def _property(name: str) -> property:
    """Return the property that stands for the parameter `name`."""

    def get(self: nn.Module) -> Tensor:
        parameters = vars(self)["_parameters"]
        if name not in parameters:  # an AttributeError would make nn.Module look for W elsewhere
            raise PathwayError(f"{name!r} of {type(self).__name__} is no longer a parameter; merge first")
        weight = parameters[name]
        chosen = wanted(self, name, weight)
        if chosen == "W" or (chosen is None and not _in_forward()):
            return weight
        if _forwards.symbolic:
            raise PathwayError(
                f"torch.fx would keep {name!r} of {type(self).__name__} as a constant, without W, A and λ: "
                "merge first"
            )
        return effective_weight(self, name)

    def put(self: nn.Module, value: Any) -> None:
        raise PathwayError(
            f"{name!r} of {type(self).__name__} has pathways and can only be set to an nn.Parameter; "
            "weight_norm, pruning, DataParallel and FullyShardedDataParallel cannot follow attach(): merge "
            "first, or use DistributedDataParallel or fully_shard"
        )

    return property(get, put, doc=f"W + Σ λᵢAᵢ in a forward, the parameter `{name}` elsewhere.")


def _make_class(plain: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """Return the form of a class with pathways for the parameters `names`, or of one that only has a scope.

    A scope keeps the class's name: `model.blocks[0]` is printed, saved and wrapped as before.
    """
    base = _Attached if names else _Scoped
    members: dict[str, Any] = {name: _property(name) for name in names}
    members |= {"plain_class": plain, "__doc__": plain.__doc__, "__module__": plain.__module__}
    if names:
        members["attached_names"] = names
    forward = functools.wraps(plain.forward)(_calling(base))
    name = f"Attached{plain.__name__}" if names else plain.__name__
    return type(name, (base, plain), members | {"forward": forward})


_class: Callable[[Any, tuple[str, ...]], type[nn.Module]] = functools.cache(_make_class)


def _calling(base: Any) -> Callable[..., Any]:
    """Return a forward that calls that of `base`; it can be given the plain one's signature."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, base):  # a patch or a hook has kept this forward beyond merge()
            return type(self).forward(self, *args, **kwargs)
        return base.forward(self, *args, **kwargs)

    return forward


def set_class(module: nn.Module, names: Iterable[str]) -> None:
    """Give the module pathways for its parameters `names`, by a change of its class.

    Raises:
        TypeError: its class cannot be changed.
    """
    _assign(module, _class(plain_class(module), tuple(sorted({*names}))))


def set_scopes(block: nn.Module) -> None:
    """Mark the forwards of `block` and of the modules between it and its layers with pathways."""
    layers = [path for path, _ in attached_layers(block)]
    for path, module in block.named_modules():
        leads_to_one = any(not path or layer.startswith(f"{path}.") for layer in layers)
        if leads_to_one and not isinstance(module, _Scoped) and type(module).forward is not nn.Module.forward:
            set_class(module, ())


def scoped_blocks(model: nn.Module) -> list[str]:
    """Return the names of the outermost modules in `model` whose forwards are marked."""
    found: list[str] = []
    for path, module in model.named_modules():
        is_inside = any(not outer or path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, _Scoped) and not is_inside:
            found.append(path)
    return found


def drop_scopes(model: nn.Module) -> None:
    """Give the modules that lead to no layer with pathways any more their own classes back."""
    for module in model.modules():
        if isinstance(module, _Scoped) and not any(is_attached(each) for each in module.modules()):
            restore_class(module)


def restore_class(module: nn.Module) -> None:
    """Give the module the class that it had before `attach`."""
    _assign(module, plain_class(module))


def _assign(module: nn.Module, new: type[nn.Module]) -> None:
    """Change the class of a module, below the one that `fully_shard` may have made of it meanwhile."""
    own = type(module)
    if isinstance(module, _Scoped):
        ours = _class(plain_class(module), attached_names(module))
        if own is not ours:
            bases = tuple(new if base is ours else base for base in own.__bases__)
            new = type(own.__name__, bases, dict(vars(own)))
    module.__class__ = new  # type: ignore[assignment]


def _new(plain: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """Return a module without its state, which pickle and deepcopy fill in."""
    made = _class(plain, names)
    return made.__new__(made)
