"""Which matrix of a transformer block does what, by the names that model libraries give them.

It lets `attach` pair a block of one library with a block of another: timm's `attn.qkv` is the same matrix as
the rows of transformers' `attention.q_proj`, `.k_proj` and `.v_proj` below each other.
"""

import re

ROLES: dict[str, str] = {
    "qkv": r"(qkv|c_attn|in_proj_weight)",
    "q": r"(q|q_proj|q_lin|query)",
    "k": r"(k|k_proj|k_lin|key)",
    "v": r"(v|v_proj|v_lin|value)",
    "out": r"(attn|attention|self_attn|self_attention|SelfAttention)"
    r"\.(proj|out_proj|out_lin|o_proj|c_proj|o|output\.dense)",
    "gate": r"(gate_proj|wi_0)",
    "fc1": r"(fc1|c_fc|up_proj|wi|wi_1|linear1|lin1|intermediate\.dense|intermediate_dense|mlp\.0)",
    "fc2": r"(fc2|mlp\.c_proj|down_proj|wo|linear2|lin2|output\.dense|output_dense|mlp\.3)",
}
"""The end of a matrix's path, for each role; the first that matches counts."""

MLP = ("gate", "fc1", "fc2")
"""Roles that nothing in an attention has, whatever it is called: `crossattention.output.dense`."""

FUSED = {"qkv": ("q", "k", "v")}
"""Roles whose output rows are those of others below each other."""


def role_of(path: str) -> str | None:
    """Return the role of the matrix at `path` inside a block, if its name tells."""
    for role, ending in ROLES.items():
        if re.search(rf"(^|\.){ending}$", path):
            return None if role in MLP and re.search(r"att(n|ention)", path, re.IGNORECASE) else role
    return None
