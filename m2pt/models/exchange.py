"""The exchange format of weights: state dicts with timm's key names, as files store them.

The keys are those of the model without the prefix `tokenizer.`. For an image classifier with a linear head
they are exactly the keys of timm's `vit_base_patch16_224`. A ConvNeXt has timm's keys anyway; its stem counts
as tokenizer, its stages as blocks.
"""

import re
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.formats.weights import check_tensor

PREFIX = "tokenizer."
PARTS = ("tokenizer", "blocks", "norm", "head")
RELATIVE = ("rel_pos_h", "rel_pos_w")
"""Tables of relative positions, which a dense task adds to its backbone (`windows`) and starts at zero."""
AVERAGE = "ema."
"""Before the keys of the averaged merged weights, in a file that has them beside those of the last step."""
BATCHNORM_EPS = 1e-6
"""Epsilon of the batch norm in a `batchnorm_linear` head (MAE, `main_linprobe.py`)."""

_PART_OF_NAME = {"blocks": "blocks", "stages": "blocks", "norm": "norm", "fc_norm": "norm", "head": "head"}
_BLOCK = re.compile(r"(stages\.\d+\.)?blocks\.\d+\.")
_HEAD_NORM, _HEAD_LINEAR = "head.0.", "head.1."


def to_exchange(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a model's `state_dict()` to the exchange format."""
    return {key.removeprefix(PREFIX): value for key, value in state.items()}


def join_average(state: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an exchange state with the averaged merged model's beside it."""
    return {**state, **{f"{AVERAGE}{key}": value for key, value in average.items()}}


def split_average(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the two parts of `join_average`; the second is empty if the file has no average."""
    own = {key: value for key, value in state.items() if not key.startswith(AVERAGE)}
    average = {key.removeprefix(AVERAGE): value for key, value in state.items() if key not in own}
    return own, average


def part_of(key: str) -> str:
    """Return the part that an exchange key belongs to: blocks, norm, head, or else tokenizer."""
    return _PART_OF_NAME.get(key.split(".", 1)[0], "tokenizer")


def body_size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return (width, depth) of the blocks in an exchange state; (0, 0) without blocks.

    The width of a ConvNeXt is that of its first stage.
    """
    blocks = {found[0] for key in state if (found := _BLOCK.match(key))}
    norms = (state.get(key) for key in ("blocks.0.norm1.weight", "stages.0.blocks.0.norm.weight"))
    width = next((norm.numel() for norm in norms if norm is not None), 0)
    return (width, len(blocks)) if width else (0, 0)


def fold_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold the batch norm of a `batchnorm_linear` head into its linear layer, which is exact in evaluation.

    (x - μ)/√(σ² + ε)·Wᵀ + b = x·(W/√(σ² + ε))ᵀ + b - W·μ/√(σ² + ε), computed in float64 on the state dict
    alone. A state with another head is returned unchanged.
    """
    if f"{_HEAD_NORM}running_mean" not in state:
        return dict(state)
    mean, variance = (state[f"{_HEAD_NORM}running_{name}"].double() for name in ("mean", "var"))
    weight, bias = (state[f"{_HEAD_LINEAR}{name}"] for name in ("weight", "bias"))
    scaled = weight.double() / (variance + BATCHNORM_EPS).sqrt()
    folded = {key: value for key, value in state.items() if not key.startswith((_HEAD_NORM, _HEAD_LINEAR))}
    folded["head.weight"] = scaled.to(weight.dtype)
    folded["head.bias"] = (bias.double() - scaled @ mean).to(bias.dtype)
    return folded


def load_exchange(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    parts: Collection[str] = PARTS,
    source: str = "the weights",
) -> None:
    """Load parts of an exchange state into an `Encoder`, a subclass of it, or a ConvNeXt.

    The keys of these parts must match exactly; other parts of the state are ignored. Positions of another
    image size are interpolated.

    Args:
        model: model to load into.
        state: state dict in the exchange format.
        parts: any of tokenizer, blocks, norm, head.
        source: name of the file, for messages.

    Raises:
        InputError: blocks of another width or depth, missing or unexpected keys, another shape, or tensors
            that are not finite real numbers.
    """
    names = {
        key.removeprefix(PREFIX): key
        for key in model.state_dict()
        if key.rpartition(".")[2] not in RELATIVE  # of the task that follows
    }
    expected = {key: name for key, name in names.items() if part_of(key) in parts}
    given = {key: value for key, value in state.items() if part_of(key) in parts}
    current = model.state_dict()
    for key in sorted(expected.keys() & given.keys()):
        own = current[expected[key]]
        if not own.is_meta:  # a model on the meta device may load weights on the meta device
            check_tensor(key, given[key], source, number=own.is_floating_point())
    _check_body(model, given, source)
    if "tokenizer" in parts:
        given = _adapt(model, given, source)
    _check_keys(expected, given, state, source)
    for key, name in expected.items():
        if given[key].shape != current[name].shape:
            same = "backbone" if part_of(key) == "blocks" else "tokenizer and input settings"
            raise InputError(
                f"{source}: {key} has shape {tuple(given[key].shape)}, the model's has "
                f"{tuple(current[name].shape)}; use weights made with the same {same}"
            )
    model.load_state_dict({name: given[key] for key, name in expected.items()}, strict=False)


def _check_body(model: nn.Module, given: Mapping[str, Tensor], source: str) -> None:
    own = model.state_dict()
    width, depth = body_size(given)
    own_width, own_depth = body_size(own)
    body, own_body = (
        "ConvNeXt" if any(key.startswith("stages.") for key in each) else "transformer"
        for each in (given, own)
    )
    if depth and own_depth and body != own_body:
        raise InputError(
            f"{source}: the encoder is a {body}, the model is a {own_body}; use weights of the same body"
        )
    if depth and (width, depth) != (own_width, own_depth):
        raise InputError(
            f"{source}: the encoder is {width} wide with {depth} blocks, the model is {own_width} wide with "
            f"{own_depth} blocks; use weights of the same backbone"
        )


def _adapt(model: nn.Module, given: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:  # a ConvNeXt's stem fits an input of any size
        return given
    stored = {key: value for key, value in given.items() if part_of(key) == "tokenizer"}
    try:
        return {**given, **tokenizer.adapt(stored)}
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _check_keys(
    expected: Collection[str], given: Collection[str], state: Collection[str], source: str
) -> None:
    missing = sorted(set(expected) - set(given))
    unexpected = sorted(set(given) - set(expected))
    if missing or unexpected:
        faults = [
            f"{word} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
            for word, keys in (("lacks", missing), ("has unknown", unexpected))
            if keys
        ]
        held = f"; it has {', '.join(sorted(given)[:3])} ..." if missing and given else ""
        prefix = _prefix(missing, state)
        fix = (
            "use weights of this model" if prefix is None else f"its keys begin with {prefix!r}: remove that"
        )
        raise InputError(f"{source}: {'; '.join(faults)}{held}; {fix}")


def _prefix(missing: Collection[str], state: Collection[str]) -> str | None:
    """Return the prefix under which a state has all missing keys, or None."""
    first = next(iter(missing), None)
    for key in state if first is not None else ():
        prefix = key.removesuffix(f".{first}")
        if prefix != key and all(f"{prefix}.{name}" in state for name in missing):
            return f"{prefix}."
    return None
