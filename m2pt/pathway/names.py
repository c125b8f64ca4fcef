"""Names of the parameters of pathways in a state dict: `blocks.0.attn.qkv.pathways.audio.scale`.

A matrix A is named as the layer's parameter W. Its scale is `scale` for `weight`, `in_proj_scale` for
`in_proj_weight`, and `gate_up_proj__scale` for a name of another kind, `gate_up_proj`.
"""

import re
from typing import NamedTuple

_KEY = re.compile(r"(?P<layer>(?:.*\.)?)pathways\.(?P<auxiliary>[^\W\d]\w*)\.(?P<name>[^.]+)")
_WEIGHT = re.compile(r"(|.*_)weight")
_SCALE = re.compile(r"(|.*_)scale")
_OTHER = "__scale"


class PathwayKey(NamedTuple):
    """What a key of a state dict says: the key of W, the auxiliary's name, and the keys of A and λ."""

    target: str
    auxiliary: str
    matrix: str
    scale: str


def scale_name(name: str) -> str:
    """Return the name of the scale that belongs to a matrix: `scale`, `in_proj_scale`."""
    return f"{name.removesuffix('weight')}scale" if _WEIGHT.fullmatch(name) else f"{name}{_OTHER}"


def matrix_name(name: str) -> str:
    """Return the name of the matrix that a scale belongs to, and the name itself if it is no scale's."""
    if name.removesuffix(_OTHER) not in ("", name):
        return name.removesuffix(_OTHER)
    return f"{name.removesuffix('scale')}weight" if _SCALE.fullmatch(name) else name


def is_clear(name: str) -> bool:
    """Return whether a layer's parameter of this name and its scale can be told apart."""
    return matrix_name(name) == name == matrix_name(scale_name(name))


def parse(key: str) -> PathwayKey | None:
    """Return what the key says, None if it is none of a pathway."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    matrix = matrix_name(match["name"])
    prefix = key.removesuffix(match["name"])
    return PathwayKey(
        f"{match['layer']}{matrix}", match["auxiliary"], f"{prefix}{matrix}", f"{prefix}{scale_name(matrix)}"
    )


def is_scale(name: str) -> bool:
    """Return whether a parameter of this name is a cross-modal scale, to give it its own lr for example."""
    key = parse(name)
    return key is not None and name == key.scale


def is_pathway(name: str) -> bool:
    """Return whether a parameter of this name is a matrix or a scale of a pathway."""
    return parse(name) is not None
