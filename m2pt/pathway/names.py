"""Names of the parameters of pathways in a state dict: `blocks.0.attn.qkv.pathways.audio.scale`."""

import re
from typing import NamedTuple

_KEY = re.compile(r"(?P<layer>(?:.*\.)?)pathways\.(?P<auxiliary>[^.]+)\.(?P<rest>\w*?)(?P<part>weight|scale)")


class PathwayKey(NamedTuple):
    """What a key of a state dict says: the key of W, the auxiliary's name, and the keys of A and λ."""

    target: str
    auxiliary: str
    matrix: str
    scale: str


def parse(key: str) -> PathwayKey | None:
    """Return what the key says, None if it is none of a pathway."""
    match = _KEY.fullmatch(key)
    if match is None or (match["rest"] and not match["rest"].endswith("_")):
        return None
    stem = key.removesuffix(match["part"])
    return PathwayKey(
        f"{match['layer']}{match['rest']}weight", match["auxiliary"], f"{stem}weight", f"{stem}scale"
    )


def is_scale(name: str) -> bool:
    """Return whether a parameter of this name is a cross-modal scale, to give it its own lr for example."""
    key = parse(name)
    return key is not None and name == key.scale


def is_pathway(name: str) -> bool:
    """Return whether a parameter of this name is a matrix or a scale of a pathway."""
    return parse(name) is not None
