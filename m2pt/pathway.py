"""Cross-Modal Re-parameterization: layers that also use the weights of another modality's model.

Multimodal Pathway (Zhang et al., CVPR 2024, eq. 7-8) adds to the matrix W of a target layer the matrix A of
the same layer in a model of another modality, the auxiliary:

    x W + λ (x A)  =  x (W + λ A)          λ: the cross-modal scale, one trainable number per layer

The right-hand side is one ordinary layer, so that is what is computed. After training, W + λA is written back
into W: the merged model has the architecture, parameters and cost of the original one.

    attach(model.blocks, auxiliary.blocks)    # in place; λ = 0, so the outputs do not change
    ...                                       # train: W, A and every λ are ordinary parameters
    merge(model)                              # in place; plain layers again

Attaching does not replace a layer's forward. It makes `layer.weight` *be* the effective weight W + Σ λᵢAᵢ for
all code that reads it: `nn.Linear`, `nn.Conv2d`, custom classes, or an attention that uses `self.qkv.weight`
and never calls `self.qkv`. W itself remains the parameter named `weight` in `named_parameters()` and
`state_dict()`, next to `pathways.<auxiliary>.weight` and `.scale`. Initialize W before attaching: an in-place
change of `layer.weight` would modify a temporary.
"""

import functools
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""The linear layers of a timm transformer block."""

Blocks: TypeAlias = nn.Module | Iterable[nn.Module]

_PATHWAY_KEY = re.compile(r"(?P<layer>.*\.)?pathways\.(?P<auxiliary>[^.]+)\.(?P<part>weight|scale)")


class PathwayError(ValueError):
    """The auxiliary and the target do not match; the message names both layers and both shapes."""


def attach(
    target_blocks: Blocks,
    auxiliary_blocks: Blocks | Mapping[str, Blocks],
    layers: Sequence[str] = LAYERS,
    scale_init: float = 0.0,
    scale_trainable: bool = True,
    order: Literal["normal", "reversed", "shuffled"] = "normal",
) -> None:
    """Attach the auxiliary's matrices to the same layers of the target, block by block and in place.

    The matrices are copied to the target's device and dtype and are trainable. The auxiliary's biases, norms,
    embeddings and head are never used, and the auxiliary is not modified. Build the optimizer afterwards.
    Another call can attach further auxiliaries to the same layers, under other names; their terms add up.

    Args:
        target_blocks: `model.blocks`, a list of modules, or one module that has the layers itself.
        auxiliary_blocks: the same for the auxiliary, or for several by name. A single one is named
            `auxiliary`.
        layers: names of modules inside a block with a matrix or a convolution kernel as `weight`, with or
            without a bias.
        scale_init: initial λ. At 0 the target's outputs do not change.
        scale_trainable: False keeps λ at `scale_init`.
        order: "normal" pairs block i with block i, "reversed" with block depth - 1 - i (the paper's Table 5),
            "shuffled" with the i-th of a permutation that depends on the depth alone and, for two blocks or
            more, differs from the normal order (a control of ours).

    Raises:
        PathwayError: unequal depth, a missing layer, unequal shapes, a name already in use, or nothing to
            attach. The target is unchanged in that case.
    """
    if order not in ("normal", "reversed", "shuffled"):
        raise PathwayError(f"order must be 'normal', 'reversed' or 'shuffled', got {order!r}")
    auxiliaries = auxiliary_blocks
    if not isinstance(auxiliaries, Mapping):
        auxiliaries = {"auxiliary": auxiliaries}
    target = _block_list(target_blocks)
    found = [
        (layer, own, name, matrix)
        for name, blocks in auxiliaries.items()
        for layer, own, matrix in _pairs(target, name, _block_list(blocks), layers, order)
    ]
    if not found:
        raise PathwayError("nothing to attach: no block, no layer name or no auxiliary was given")
    if len({(layer, name) for layer, _, name, _ in found}) < len(found):
        raise PathwayError("a target layer is named twice or shared by blocks; it can be attached only once")
    for layer, own, name, matrix in found:
        pathway = _Pathway(own, matrix, scale_init, scale_trainable)
        if isinstance(layer, _Attached):
            layer.pathways[name] = pathway
        else:
            layer.pathways = nn.ModuleDict({name: pathway})
            layer.__class__ = _attached_class(type(layer))  # type: ignore[arg-type]  # mypy: classes do hash


def merge(model: nn.Module) -> nn.Module:
    """Write W + Σ λᵢAᵢ into W everywhere in `model`, in place, and make the layers plain again.

    Classes, state-dict keys, shapes and the number of parameters are as before `attach`. The sum is computed
    in float32 (float64 for float64 weights). A model without pathways is returned unchanged. To continue to
    train the attached model, merge a copy: `merge(copy.deepcopy(model))`.
    """
    for layer in list(model.modules()):
        if isinstance(layer, _Attached):
            weight, pairs = layer.parts()
            with torch.no_grad():
                weight.copy_(_merged(weight, pairs))
            del layer.pathways
            layer.__class__ = layer.plain_class  # type: ignore[assignment]
    return model


def merge_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the merged model, computed from the attached model's state dict alone.

    Raises:
        PathwayError: the weight, the scale or the target weight of a pathway is missing.
    """
    merged = {name: tensor for name, tensor in state.items() if not _PATHWAY_KEY.fullmatch(name)}
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name in state:
        if match := _PATHWAY_KEY.fullmatch(name):
            target = f"{match['layer'] or ''}weight"
            auxiliary, scale = (f"{name.removesuffix(match['part'])}{part}" for part in ("weight", "scale"))
            for needed in (target, auxiliary, scale):
                if needed not in state:
                    raise PathwayError(f"cannot merge: the state dict has {name!r} but no {needed!r}")
            if name == auxiliary:
                pairs.setdefault(target, []).append((state[auxiliary], state[scale]))
    for target, found in pairs.items():
        merged[target] = _merged(state[target], found).to(state[target].dtype)
    return merged


def scales(model: nn.Module) -> dict[str, float]:
    """Return every cross-modal scale under its parameter name: `blocks.0.attn.qkv.pathways.audio.scale`."""
    return {name: value.item() for name, value in model.named_parameters() if is_scale(name)}


def is_scale(name: str) -> bool:
    """Return whether a parameter of this name is a cross-modal scale, to give it its own lr for example."""
    match = _PATHWAY_KEY.fullmatch(name)
    return match is not None and match["part"] == "scale"


def _block_list(blocks: Blocks) -> list[nn.Module]:
    """Return the blocks as a list; a module that is not a container of blocks is itself the only block."""
    if isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList | nn.Sequential):
        return [blocks]
    return list(blocks)  # type: ignore[arg-type]


def _pairs(
    target: list[nn.Module], name: str, auxiliary: list[nn.Module], layers: Sequence[str], order: str
) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
    """Yield each target layer, its weight and its auxiliary matrix, after checking that they match."""
    if not name.isidentifier() or hasattr(nn.ModuleDict, name):
        raise PathwayError(f"an auxiliary cannot be named {name!r}; choose a plain word such as 'audio'")
    depth = len(target)
    if len(auxiliary) != depth:
        raise PathwayError(
            f"the target has {depth} blocks, the auxiliary {name!r} has {len(auxiliary)}; they must be equal"
        )
    for i, j in enumerate(_partners(depth, order)):
        for path in layers:
            layer_name, matrix_name = f"{path!r} of target block {i}", f"{path!r} of {name!r} block {j}"
            layer = _layer(target[i], path, layer_name)
            matrix = _layer(auxiliary[j], path, matrix_name).weight
            # Under torch's `parametrize` or `weight_norm` there is no such parameter to merge into.
            own = layer._parameters.get("weight")
            if own is None or own.ndim < 2 or not isinstance(matrix, Tensor):
                raise PathwayError(f"{layer_name} ({type(layer).__name__}) has no weight matrix or kernel")
            if own.shape != matrix.shape:
                raise PathwayError(
                    f"{layer_name} has a weight of shape {tuple(own.shape)}, "
                    f"{matrix_name} has one of shape {tuple(matrix.shape)}; they must be equal"
                )
            if isinstance(layer, _Attached) and name in layer.pathways:
                raise PathwayError(f"{layer_name} already has a pathway named {name!r}")
            yield layer, own, matrix


def _partners(depth: int, order: str) -> list[int]:
    """Return the index of the auxiliary block for each target block."""
    normal = list(range(depth))
    if order == "shuffled":
        generator = random.Random(depth)
        drawn = generator.sample(normal, depth)
        while drawn == normal and depth > 1:
            drawn = generator.sample(normal, depth)
        return drawn
    return normal if order == "normal" else normal[::-1]


def _layer(block: nn.Module, path: str, name: str) -> nn.Module:
    """Return the module at `path` inside a block, which must have a `weight`; `name` is for the message."""
    modules = dict(block.named_modules())
    if path in modules and hasattr(modules[path], "weight"):
        return modules[path]
    weighted = (path for path, module in modules.items() if getattr(module, "weight", None) is not None)
    matrices = ", ".join(repr(path) for path in weighted if modules[path].weight.ndim > 1)  # type: ignore[operator]
    raise PathwayError(
        f"no layer {name} ({type(block).__name__}); choose layers=[...] among those with a "
        f"matrix or kernel: {matrices}"
    )


class _Pathway(nn.Module):
    """One auxiliary of one layer: its matrix A, and its scale λ of shape (1,)."""

    def __init__(self, own: Tensor, matrix: Tensor, scale_init: float, scale_trainable: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix.detach().to(own.device, own.dtype, copy=True))
        self.scale = nn.Parameter(own.new_full((1,), scale_init), scale_trainable)


class _Attached(nn.Module):
    """Mixin that turns a layer's `weight` into the effective weight; see `_attached_class`."""

    plain_class: type[nn.Module]
    pathways: nn.ModuleDict

    def parts(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return W and the pairs (Aᵢ, λᵢ)."""
        # Read the dictionaries, not attributes: on an AttributeError inside a property, nn.Module.__getattr__
        # would return the bare parameter W, and the pathway would be silently off.
        parameters, modules = vars(self)["_parameters"], vars(self)["_modules"]
        pathways = [pathway._parameters for pathway in modules["pathways"]._modules.values()]
        return parameters["weight"], [(pathway["weight"], pathway["scale"]) for pathway in pathways]

    @property
    def weight(self) -> Tensor:
        """W + Σ λᵢAᵢ, of W's shape; under autocast in autocast's dtype, which saves a second copy."""
        weight, pairs = self.parts()
        device, dtype = weight.device.type, weight.dtype
        if dtype != torch.float64 and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return _EffectiveWeight.apply(dtype, weight, *(tensor for pair in pairs for tensor in pair))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and deepcopy through the plain class, since the generated one cannot be imported."""
        return _new_attached, (self.plain_class,), self.__getstate__()


@functools.cache
def _attached_class(plain_class: type[nn.Module]) -> type[nn.Module]:
    """Return the attached form of a layer class. It never changes, so a layer and its deepcopy share it."""
    name = f"Attached{plain_class.__name__}"
    return type(name, (_Attached, plain_class), {"plain_class": plain_class, "__doc__": _Attached.__doc__})


def _new_attached(plain_class: type[nn.Module]) -> nn.Module:
    """Return an attached layer without its state, which pickle and deepcopy fill in."""
    attached_class = _attached_class(plain_class)  # type: ignore[arg-type]
    return attached_class.__new__(attached_class)


class _EffectiveWeight(torch.autograd.Function):
    """W + Σ λᵢAᵢ in one buffer forward, and every gradient from the one G = ∂L/∂(W + Σ λᵢAᵢ) backward.

    dW = G, dAᵢ = λᵢG, dλᵢ = ⟨G, Aᵢ⟩. Autograd on `W + λA` would also allocate λA forward and G * A backward.
    Only required gradients are computed: with W and A frozen only dλ is, and G is freed at once.
    """

    @staticmethod
    def forward(dtype: torch.dtype, weight: Tensor, *pairs: Tensor) -> Tensor:
        """Compute the effective weight; `pairs` is A₁, λ₁, A₂, λ₂, …."""
        return _weighted_sum(weight, list(zip(pairs[::2], pairs[1::2], strict=True)), dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save Aᵢ and λᵢ; they are parameters, so this takes no memory."""
        _, weight, *pairs = inputs
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(*pairs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in the order of the inputs, in the parameters' dtype."""
        gradient = gradients[0].to(ctx.weight_dtype)
        _, weight_needs, *pairs_need = ctx.needs_input_grad
        result = [None, gradient if weight_needs else None]
        saved = ctx.saved_tensors
        for i in range(0, len(saved), 2):
            matrix, scale = saved[i], saved[i + 1]
            result.append(gradient * scale if pairs_need[i] else None)
            # A dot product, because gradient * matrix would be one more full-size tensor.
            dot = torch.dot(gradient.flatten(), matrix.flatten()) if pairs_need[i + 1] else None
            result.append(None if dot is None else dot.reshape(1))
        return tuple(result)


def _weighted_sum(weight: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """Return W + Σ λᵢAᵢ in `dtype`, summed in the tensors' own precision and rounded once.

    λ stays a tensor: `alpha=` would need its value on the host, with a GPU synchronization per layer.
    """
    *first, (matrix, scale) = pairs
    for other, other_scale in first:
        weight = torch.addcmul(weight, other, other_scale)
    return torch.addcmul(weight, matrix, scale, out=torch.empty_like(weight, dtype=dtype))


def _merged(weight: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return W + Σ λᵢAᵢ in float32 or better."""
    precise = torch.promote_types(weight.dtype, torch.float32)
    with torch.no_grad():
        return _weighted_sum(weight.to(precise), [(a.to(precise), s.to(precise)) for a, s in pairs], precise)
