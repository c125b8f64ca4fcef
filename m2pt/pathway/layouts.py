"""How the rows of a fused matrix are arranged, which its shape does not tell.

timm, torch and most of transformers stack Q, K and V: all rows of Q, then of K, then of V. Some classes keep
those of each head together, and a gated MLP may have its gate first or last, or row by row beside the rest.
"""

import re
from collections.abc import Collection

from torch import nn

from m2pt.pathway.layers import plain_class
from m2pt.pathway.roles import FUSED, role_of

STACKED = "Q, K and V below each other"
UNEVEN = "fewer rows than Q, K and V of all heads"
DOUBLE = "twice the rows that a layer beside it takes"
BY_HEAD = "Q, K and V of each head together"
BY_SHARD = "Q, V and K of each of four shards together"

_ARRANGEMENTS = dict.fromkeys(
    (
        "timm.models.efficientformer.Attention",
        "timm.models.levit.Attention",
        "timm.models.tiny_vit.Attention",
        "transformers.models.bloom.modeling_bloom.BloomAttention",
        "transformers.models.deberta.modeling_deberta.DisentangledSelfAttention",
        "transformers.models.falcon.modeling_falcon.FalconAttention",
        "transformers.models.gpt_bigcode.modeling_gpt_bigcode.GPTBigCodeAttention",
        "transformers.models.gpt_neox.modeling_gpt_neox.GPTNeoXAttention",
        "transformers.models.gpt_neox_japanese.modeling_gpt_neox_japanese.GPTNeoXJapaneseAttention",
        "transformers.models.minimax.modeling_minimax.MiniMaxLightningAttention",
        "transformers.models.persimmon.modeling_persimmon.PersimmonAttention",
    ),
    BY_HEAD,
) | {"transformers.models.codegen.modeling_codegen.CodeGenAttention": BY_SHARD}
"""How classes that do not stack Q, K and V arrange the rows of their fused matrix, as their sources show."""

_QKV = re.compile(r"(^|[._])W?qkv(_proj)?$|(^|\.)query_key_value$")
_LOOKS_FUSED = re.compile(
    r"qkv|query_key_value|(?<![a-z])(kv|qk)(?![a-z])|q_b_proj|c_attn|in_proj|(?<![a-z])x_proj|w_pack"
    r"|gate_(and_)?up|up_gate|(?-i:\bWi\b)|weights_in|w12|w13|fused\w*$",
    re.IGNORECASE,
)


def layout(owner: nn.Module, path: str, rows: int, taken: Collection[int]) -> str | None:
    """Return the arrangement of the rows of the matrix at `path`, None if it is not known to be fused.

    Args:
        owner: the module that uses the matrix, an attention or an MLP.
        path: of the matrix, in the block.
        rows: number of its output rows.
        taken: how many inputs each of the other linear layers of the owner takes.
    """
    kind, settings = plain_class(owner), vars(owner)
    if "gate_last" in settings:
        return f"the gate {'last' if settings['gate_last'] else 'first'}" if role_of(path) == "fc1" else None
    if "is_transposed" in settings and "is_concatenated" in settings:  # experts of transformers
        rows_are = "inputs" if settings["is_transposed"] else "outputs"
        gate = f", gate and up {'as halves' if settings['is_concatenated'] else 'in turn'}"
        return f"experts whose rows are {rows_are}{gate if looks_fused(path) else ''}"
    arrangement = _ARRANGEMENTS.get(f"{kind.__module__}.{kind.__name__}")
    role = role_of(path)
    if role not in FUSED and not _QKV.search(path) and not (arrangement and looks_fused(path)):
        # a gated MLP has its gate there too
        is_double = role in (None, "fc1") and rows not in taken and any(rows == 2 * each for each in taken)
        return DOUBLE if is_double else None
    if settings.get("multi_query"):
        return "Q of all heads, K and V of one"
    if arrangement or settings.get("head_first"):
        return arrangement or BY_HEAD
    heads, width = settings.get("num_heads"), settings.get("head_dim")
    is_short = isinstance(heads, int) and isinstance(width, int) and rows < 3 * heads * width
    return UNEVEN if is_short or settings.get("num_key_value_groups", 1) != 1 else STACKED


def looks_fused(path: str) -> bool:
    """Return whether a matrix is fused by its name, whatever the arrangement: `kv_b_proj`."""
    return _LOOKS_FUSED.search(path) is not None
