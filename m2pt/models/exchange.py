"""Weights in the form in which files carry them: timm's key names.

A model's own keys with `tokenizer.` removed; of an image classifier with a linear head these are exactly the
keys of timm's `vit_base_patch16_224`. A ConvNeXt has timm's keys as it is; its stem counts as tokenizer, its
stages count as blocks.
"""

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from m2pt.errors import InputError
from m2pt.formats.weights import check_tensor

if TYPE_CHECKING:  # renaming keys, as merging does, needs no timm
    from m2pt.models.convolutional import ConvNeXtClassifier
    from m2pt.models.transformer import Encoder

PREFIX = "tokenizer."
PARTS = ("tokenizer", "blocks", "norm", "head")

_PART_OF_NAME = {"blocks": "blocks", "stages": "blocks", "norm": "norm", "fc_norm": "norm", "head": "head"}
_BLOCK = re.compile(r"(stages\.\d+\.)?blocks\.\d+\.")


def to_exchange(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a model's `state_dict()` for a file."""
    return {key.removeprefix(PREFIX): value for key, value in state.items()}


def part_of(key: str) -> str:
    """The part that an exchange key belongs to: blocks, norm, head, or else tokenizer."""
    return _PART_OF_NAME.get(key.split(".", 1)[0], "tokenizer")


def body_size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """(width, depth) of the blocks in an exchange state, of a ConvNeXt the first width; (0, 0) if none."""
    blocks = {found[0] for key in state if (found := _BLOCK.match(key))}
    norms = (state.get(key) for key in ("blocks.0.norm1.weight", "stages.0.blocks.0.norm.weight"))
    width = next((norm.numel() for norm in norms if norm is not None), 0)
    return (width, len(blocks)) if width else (0, 0)


def load_exchange(
    model: "Encoder | ConvNeXtClassifier",
    state: Mapping[str, Tensor],
    *,
    parts: Collection[str] = PARTS,
    source: str = "the weights",
) -> None:
    """Load named parts of an exchange state into an `Encoder` or a subclass of it, or into a ConvNeXt.

    Within the parts every key must be there and none may be left over; other parts of the state are ignored.
    Positions of another image size are interpolated.

    Args:
        model: where to load.
        state: as `to_exchange` gives it.
        parts: of tokenizer, blocks, norm, head.
        source: the file's name, for messages.

    Raises:
        InputError: blocks of another width or depth, missing or unexpected keys, another shape, tensors that
            are no finite real numbers.
    """
    own = {key.removeprefix(PREFIX): key for key in model.state_dict()}
    expected = {key: own[key] for key in own if part_of(key) in parts}
    given = {key: value for key, value in state.items() if part_of(key) in parts}
    current = model.state_dict()
    for key in sorted(expected.keys() & given.keys()):
        own = current[expected[key]]
        if not own.is_meta:  # a model without content may take weights without content
            check_tensor(key, given[key], source, number=own.is_floating_point())
    _check_body(model, given, source)
    if "tokenizer" in parts:
        given = _adapt(model, given)
    _check_keys(expected, given, source)
    for key, name in expected.items():
        if given[key].shape != current[name].shape:
            raise InputError(
                f"{source}: {key} has shape {tuple(given[key].shape)}, the model's has "
                f"{tuple(current[name].shape)}; use weights made with the same tokenizer and input settings"
            )
    model.load_state_dict({name: given[key] for key, name in expected.items()}, strict=False)


def _check_body(model: "Encoder | ConvNeXtClassifier", given: Mapping[str, Tensor], source: str) -> None:
    width, depth = body_size(given)
    own_width, own_depth = body_size(model.state_dict())
    if depth and (width, depth) != (own_width, own_depth):
        raise InputError(
            f"{source}: the encoder is {width} wide with {depth} blocks, the model is {own_width} wide with "
            f"{own_depth} blocks; use weights of the same backbone"
        )


def _adapt(model: "Encoder | ConvNeXtClassifier", given: dict[str, Tensor]) -> dict[str, Tensor]:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:  # a ConvNeXt's stem fits an input of any size
        return given
    stored = {key: value for key, value in given.items() if part_of(key) == "tokenizer"}
    return {**given, **tokenizer.adapt(stored)}


def _check_keys(expected: Collection[str], given: Collection[str], source: str) -> None:
    missing = sorted(set(expected) - set(given))
    unexpected = sorted(set(given) - set(expected))
    if missing or unexpected:
        faults = [
            f"{word} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
            for word, keys in (("lacks", missing), ("has unknown", unexpected))
            if keys
        ]
        raise InputError(f"{source}: {'; '.join(faults)}; use weights of the same modality, pool and head")
