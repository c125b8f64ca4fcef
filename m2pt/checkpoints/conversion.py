"""Published checkpoints, recognized by their keys and converted to the exchange format."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2pt.checkpoints.dialects import DIALECTS, Dialect
from m2pt.errors import InputError, count, listed
from m2pt.formats.weights import Checkpoint, check_tensor
from m2pt.models.exchange import split_average
from m2pt.pathway import PathwayError, is_pathway, merge_state_dict

AUXILIARY = "auxiliary"
"""Name of the auxiliary in a converted file of M2PT."""

MATRICES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""Layers of a block whose matrices an auxiliary lends."""

_DECODERS = ("decoder", "MAE_decoder")
_STARTS_NO_TARGET = {
    "reg_token": "register tokens",
    "register_tokens": "register tokens",
    "norm_pre": "a norm before the blocks",
    "rope": "rotary positions",
    "q_norm": "norms of queries and keys",
    "relative_position_bias_table": "relative positions",
    "rel_pos": "relative positions",
}
"""What a target of this project does not have, by a part of the keys."""

_GATES = ("mlp.w12.", "mlp.weights_in.", "mlp.fc1_g.", "mlp.gate_proj.")
"""Parts of the keys of gated MLPs."""

_QUANTIZED = ("._packed_params", ".absmax", ".quant_map", ".qweight", ".qzeros", ".SCB")
"""Ends of the keys of quantized weights: of torch, bitsandbytes and GPTQ."""

_WRAPPER = re.compile(r"(?<=\.)(\d+\.)(?:_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.)+")
"""What torch.compile, FSDP and activation checkpointing put after the number of a block."""

_IN_A_LAYER = re.compile(r"(weight|bias|aux_weight|cross_modal_scale|pathways\..+)?")
"""What a file may have of a layer of a block."""


class _NotWholeError(Exception):
    """A block is missing, or a tensor of one."""


@dataclass(frozen=True)
class Converted:
    """Weights in the exchange format, and how they were made.

    Attributes:
        state: the weights.
        report: name and text of each line of the report: dialect, taken, prefix, mapped, made, left out.
    """

    state: dict[str, Tensor]
    report: dict[str, str]


def convert(
    state: Mapping[str, Tensor], source: str, *, blocks_only: bool = False, keep_pathways: bool = False
) -> Converted:
    """Convert a checkpoint of one of `DIALECTS` to the exchange format.

    Args:
        state: tensors of the file, by their keys.
        source: name of the file, for messages.
        blocks_only: for an auxiliary, which needs the matrices of its blocks and nothing else: missing norms
            and biases become neutral, keys that are not explained are left out.
        keep_pathways: keep the A and λ of a model of M2PT beside W instead of merging them. Of a training
            with `ema` these are of its last step; else the average is taken, which is merged.

    Raises:
        InputError: it is none of the dialects, holds several models or only a decoder, or has keys that its
            dialect does not explain; a block is not whole; or there are no pathways to keep.
    """
    last, average = split_average(state)
    is_averaged = bool(average) and any(map(is_pathway, last))
    if is_averaged:
        state = last if keep_pathways else average
    given, state = state, _unwrapped(state)
    dialect, prefix = _recognize(state, source)
    mapped: dict[str, Tensor] = {}
    left_out: Counter[str] = Counter()
    types: Counter[torch.dtype] = Counter()
    unexplained = []
    for key, tensor in state.items():
        names = [key.removeprefix(each) for each in _nested(prefix) if key.startswith(each)]
        found = next(filter(None, (_goal(name, dialect.keys) for name in names)), None)
        if found is not None:
            if found in mapped:
                raise InputError(f"{source}: several of its keys are {found} of {dialect.name}, {key} too")
            check_tensor(key, tensor, source, number=not found.endswith("num_batches_tracked"))
            mapped[found] = tensor.float() if tensor.is_floating_point() else tensor
            types.update([tensor.dtype] if mapped[found] is not tensor else [])
        elif what := next(filter(None, (_described(name, dialect) for name in names)), None):
            left_out[what] += 1
        elif not key.startswith(prefix):
            left_out[f"outside of {prefix!r}"] += 1
        else:
            unexplained.append(key)
    if unexplained and not blocks_only:
        raise InputError(_unexplained(unexplained, dialect, source))
    made = [
        f"float32 of {str(dtype).removeprefix('torch.')} in {count(number, 'tensor', 'tensors')}"
        for dtype, number in types.items()
    ]
    if unexplained:
        left_out["not used by a pathway"] = len(unexplained)
    try:
        result = _made(mapped, made, source, blocks_only=blocks_only, keep_pathways=keep_pathways)
    except _NotWholeError as error:
        fix = f"it has {listed(unexplained, 3)}" if unexplained else "fetch or export it again"
        raise InputError(f"{source}: {error}; {fix}") from None
    report = {"dialect": dialect.name}
    if is_averaged:
        averages = count(len(average), "tensor", "tensors")
        report["taken"] = f"the last step, not its average ({averages})" if keep_pathways else "the average"
    if prefix:
        report["prefix"] = f"{prefix} (removed)"
    if given.keys() != state.keys():
        report["wrappers"] = "between the numbers of blocks and their layers (removed)"
    report["mapped"] = count(len(mapped), "tensor", "tensors")
    if made:
        report["made"] = "; ".join(made)
    if left_out:
        words = (f"{what} ({count(number, 'tensor', 'tensors')})" for what, number in left_out.items())
        report["left out"] = "; ".join(words)
    return Converted(result, report)


def entries(given: Checkpoint) -> dict[str, str]:
    """Return the lines of a report that name the entry of the file that was taken, and others beside it."""
    lines = {"entry": ".".join(given.taken)} if given.taken else {}
    if given.others:
        lines["beside"] = f"{', '.join(given.others)}: other weights in the file, not taken"
    return lines


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by keys without the wrappers of single blocks."""
    return {_WRAPPER.sub(r"\1", key): tensor for key, tensor in state.items()}


def _recognize(state: Mapping[str, Tensor], source: str) -> tuple[Dialect, str]:
    """Return the first dialect whose anchor and marks the keys have, and the prefix before the anchor."""
    if found := next((key for key in state if key.endswith(_QUANTIZED)), None):
        raise InputError(f"{source}: {found} shows that it is quantized; save the weights dequantized")
    for dialect in DIALECTS:
        prefixes = [key.removesuffix(dialect.anchor) for key in state if key.endswith(dialect.anchor)]
        prefixes = [each for each in prefixes if not each or (each.endswith(".") and not _of_decoder(each))]
        prefixes = [each for each in prefixes if _is_marked(state, dialect, each)]
        if len(prefixes) > 1:
            named = listed((each or "(none)" for each in prefixes), 6)
            raise InputError(
                f"{source}: has blocks under several prefixes, {named}: it is a model of "
                "several stages, or several models; give a file with the weights of one transformer"
            )
        if prefixes:
            return dialect, prefixes[0]
    tops = listed(sorted({".".join(key.split(".")[:2]) for key in state}), 8)
    if any(_of_decoder(key) or key.startswith("decoder") for key in state):
        raise InputError(
            f"{source}: holds a decoder, but no blocks of an encoder: its keys begin with {tops}; "
            "give the file of the whole model or of its encoder"
        )
    if any(gate in key for key in state for gate in _GATES):
        raise InputError(
            f"{source}: the MLPs of its blocks are gated, which those of this project are not: they can "
            "neither start a target nor be an auxiliary"
        )
    names = sorted({dialect.name for dialect in DIALECTS})
    raise InputError(
        f"{source}: its keys begin with {tops}, which match no known dialect ({listed(names)}); "
        "rename its keys to those of timm's VisionTransformer"
    )


def _of_decoder(path: str) -> bool:
    return not set(path.split(".")).isdisjoint(_DECODERS)


def _is_marked(state: Iterable[str], dialect: Dialect, prefix: str) -> bool:
    if not dialect.marks:
        return True
    inner = [key.removeprefix(prefix) for key in state]
    return any(key == mark or key.startswith(f"{mark}.") for key in inner for mark in dialect.marks)


def _nested(prefix: str) -> list[str]:
    """Return a prefix and those around it, the longest first: heads and decoders are beside the encoder."""
    words = prefix.split(".")[:-1]
    return ["".join(f"{word}." for word in words[:length]) for length in range(len(words), -1, -1)]


def _goal(key: str, paths: Mapping[str, str]) -> str | None:
    """Return what a key is called where the longest path that fits it leads, or None."""
    words = key.split(".")
    for length in range(len(words), 0, -1):
        start, rest = words[:length], words[length:]
        for path in (".".join(start), _generic(start)):
            if path in paths:
                if paths[path].startswith("blocks.N.") and not _IN_A_LAYER.fullmatch(".".join(rest)):
                    return None
                number = next((word for word in start if word.isdecimal()), "")
                return ".".join([paths[path].replace(".N.", f".{number}."), *rest])
    return None


def _generic(words: list[str]) -> str:
    """Return a path with N for its first number."""
    first = next((index for index, word in enumerate(words) if word.isdecimal()), None)
    return ".".join("N" if index == first else word for index, word in enumerate(words))


def _described(key: str, dialect: Dialect) -> str | None:
    words = key.split(".")
    paths = (".".join(words[:length]) for length in range(len(words), 0, -1))
    return next((dialect.left_out[path] for path in paths if path in dialect.left_out), None)


def _unexplained(keys: list[str], dialect: Dialect, source: str) -> str:
    if any("lora_" in key or ".base_layer." in key for key in keys):
        return (
            f"{source}: has adapters of peft, such as {keys[0]}: merge them into the model first "
            "(merge_and_unload), and save that"
        )
    causes = sorted({what for part, what in _STARTS_NO_TARGET.items() if any(part in key for key in keys)})
    cause = (
        f"the model has {' and '.join(causes)}, which targets of this project do not have, so none can start "
        "from it; as an auxiliary it works: name it as `file:` of an encoder that is only attached"
        if causes
        else "use a file of the plain model, or remove them if they belong to something else"
    )
    return f"{source}: looks like {dialect.name}, which has no {listed(keys, 3)}; {cause}"


def _made(
    mapped: dict[str, Tensor], made: list[str], source: str, *, blocks_only: bool, keep_pathways: bool
) -> dict[str, Tensor]:
    """Return the mapped tensors with stacked projections, layer scale, kernels and pathways as ours are."""
    state = {key: _without_kernel_axis(key, tensor) for key, tensor in mapped.items()}
    blocks = sorted(
        {match[1] for key in state if (match := re.match(r"(blocks\.\d+)\.", key))},
        key=lambda path: int(path.split(".")[1]),
    )
    steps = (_stack, _scale, _bias, *((_neutral,) if blocks_only else ()))
    for step in steps:
        words = Counter(word for block in blocks for word in step(state, block, source))
        made += [f"{word} in {count(number, 'block', 'blocks')}" for word, number in words.items()]
    _check_blocks(state, blocks, source)
    return _pathways(state, made, source, keep=keep_pathways)


def _without_kernel_axis(key: str, tensor: Tensor) -> Tensor:
    """Drop the last axis of Point-MAE's convolutions of kernel size 1, which are linear layers here."""
    is_kernel = key.startswith("patch_embed.") and "conv." in key and tensor.ndim == 3
    return tensor.squeeze(-1) if is_kernel and tensor.shape[-1] == 1 else tensor


def _stack(state: dict[str, Tensor], block: str, source: str) -> Iterable[str]:
    """Stack separate projections of a block to attn.qkv, with zeros where one of them has no bias."""
    if f"{block}.attn.q.weight" in state:
        names = [f"{block}.attn.{name}" for name in "qkv"]
        lacking = [name for name in names if f"{name}.weight" not in state]
        if lacking:
            raise InputError(f"{source}: lacks the weights of {listed(lacking)}; fetch or export it again")
        state[f"{block}.attn.qkv.weight"] = torch.cat([state.pop(f"{name}.weight") for name in names])
        yield "attn.qkv stacked from q, k and v"
    biases = {name: state.pop(f"{block}.attn.{name}.bias", None) for name in "qkv"}
    if f"{block}.attn.qkv.bias" in state and any(bias is not None for bias in biases.values()):
        raise InputError(f"{source}: has a bias of attn.qkv in {block} and separate ones; keep one of them")
    known = next((bias for bias in biases.values() if bias is not None), None)
    if known is not None:
        parts = [torch.zeros_like(known) if bias is None else bias for bias in biases.values()]
        state[f"{block}.attn.qkv.bias"] = torch.cat(parts)
        if biases["k"] is None:
            yield "attn.qkv.bias from q_bias, zeros and v_bias"


def _scale(state: dict[str, Tensor], block: str, source: str) -> Iterable[str]:
    """Multiply the layer scale of a block into the layers before it."""
    del source
    for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
        gamma = state.pop(f"{block}.{scale}", None)
        if gamma is None:
            continue
        for name in (f"{block}.{layer}.weight", f"{block}.{layer}.bias"):
            if name in state:
                tensor = state[name]
                factor = gamma.double().reshape(-1, *[1] * (tensor.ndim - 1))
                state[name] = (tensor.double() * factor).to(tensor.dtype)
        yield f"layer scale multiplied into {layer}"


def _bias(state: dict[str, Tensor], block: str, source: str) -> Iterable[str]:
    """Give layers without a bias one of zeros, which computes the same."""
    del source
    for layer in MATRICES:
        weight = state.get(f"{block}.{layer}.weight")
        if weight is not None and f"{block}.{layer}.bias" not in state:
            state[f"{block}.{layer}.bias"] = weight.new_zeros(len(weight))
            yield f"{layer}.bias of zeros"


def _neutral(state: dict[str, Tensor], block: str, source: str) -> Iterable[str]:
    """Give a block norms, of which an auxiliary makes no use."""
    del source
    first = state.get(f"{block}.mlp.fc1.weight")
    for norm in ("norm1", "norm2"):
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            if first is not None and first.ndim == 2 and f"{block}.{norm}.{name}" not in state:
                state[f"{block}.{norm}.{name}"] = first.new_full((first.shape[1],), value)
                yield f"unused {norm}.{name} of {'ones' if value else 'zeros'}"


def _check_blocks(state: Mapping[str, Tensor], blocks: Sequence[str], source: str) -> None:
    """Check that no block is missing, and that each is whole and as wide as the first."""
    layers = ("norm1", "norm2", *MATRICES)
    for number, block in enumerate(blocks):
        if block != f"blocks.{number}":
            raise _NotWholeError(f"has {block}, but not blocks.{number}")
        keys = [f"{block}.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        if missing := [key for key in keys if key not in state]:
            raise _NotWholeError(f"lacks {listed(missing, 3)}")
        width = state["blocks.0.norm1.weight"].numel()
        inner = state[f"{block}.mlp.fc1.bias"].numel()
        rows = {"attn.qkv": 3 * width, "mlp.fc1": inner}
        for key in keys:
            layer, kind = key.removeprefix(f"{block}.").rsplit(".", 1)
            shape: tuple[int, ...] = (rows.get(layer, width),)
            if kind == "weight" and layer in MATRICES:
                shape = (*shape, inner if layer == "mlp.fc2" else width)
            if tuple(state[key].shape) != shape:
                raise InputError(
                    f"{source}: {key} has the shape {tuple(state[key].shape)}, but a plain block that is "
                    f"{width} wide has {shape} there; use weights of a plain transformer"
                )


def _pathways(state: dict[str, Tensor], made: list[str], source: str, *, keep: bool) -> dict[str, Tensor]:
    """Rename M2PT's A and λ to those of `m2pt.pathway`, and merge them unless they are kept."""
    names = {"aux_weight": "weight", "cross_modal_scale": "scale"}
    renamed = {}
    for key, tensor in state.items():
        layer, _, last = key.rpartition(".")
        name = f"{layer}.pathways.{AUXILIARY}.{names[last]}" if last in names else key
        is_number = ".pathways." in name and name.endswith(".scale") and not tensor.ndim
        renamed[name] = tensor.reshape(1) if is_number else tensor
    if keep and not any(".pathways." in key for key in renamed):
        raise InputError(f"{source}: has no pathways to keep; leave out --keep-pathways")
    pathways = sum(".pathways." in key and key.endswith(".scale") for key in renamed)
    if pathways and not keep:
        made.append(f"{count(pathways, 'pathway', 'pathways')} merged")
        try:
            return merge_state_dict(renamed)
        except PathwayError as error:
            raise InputError(f"{source}: {error}") from None
    return renamed
