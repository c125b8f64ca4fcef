"""The dialects of published checkpoints: for each, what its keys are called in the exchange format.

A path stands for the parameter of that name and for all below it, `N` for the number of a block; of several
that fit, the longest counts. Besides keys of the exchange format (`m2pt.models.exchange`), which are timm's,
a path may lead to these, of which `m2pt.checkpoints.conversion` makes such keys:

    blocks.N.attn.{q,k,v}       separate projections, stacked to attn.qkv; a missing bias is zero
    blocks.N.{ls1,ls2}          layer scale, multiplied into attn.proj and mlp.fc2

and, below a matrix, `aux_weight` and `cross_modal_scale`, which are M2PT's A and λ.

Sources: the state dicts of the models that MAE, AudioMAE, VideoMAE, Point-MAE and M2PT release or train, and
the files that timm and transformers write.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

DECODER = "decoder of the pretraining"
HEAD = "head of another task"
TRANSFORMERS = "Hugging Face transformers"


@dataclass(frozen=True)
class Dialect:
    """How a code base names its parameters.

    Attributes:
        name: for messages.
        anchor: a key that every file of this dialect has, after any prefix.
        keys: path in the file: path in the exchange format.
        left_out: path in the file: what it is.
        marks: paths of which the file has at least one, to tell it from dialects with the same anchor.
    """

    name: str
    anchor: str
    keys: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()


def _same(*paths: str) -> dict[str, str]:
    return {path: path for path in paths}


_NORMS = ("norm", "fc_norm", "head")
_TIMM_BLOCK = {
    **_same(
        *(f"blocks.N.{name}" for name in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"))
    ),
    "blocks.N.attn.q_bias": "blocks.N.attn.q.bias",
    "blocks.N.attn.v_bias": "blocks.N.attn.v.bias",
    "blocks.N.ls1.gamma": "blocks.N.ls1",
    "blocks.N.ls2.gamma": "blocks.N.ls2",
    "blocks.N.gamma_1": "blocks.N.ls1",
    "blocks.N.gamma_2": "blocks.N.ls2",
}
_TIMM = {**_same("cls_token", "dist_token", "pos_embed", "patch_embed", "embedding", *_NORMS), **_TIMM_BLOCK}
_MAE_DECODER = dict.fromkeys(
    (
        "mask_token",
        "decoder_embed",
        "decoder_pos_embed",
        "decoder_blocks",
        "decoder_norm",
        "decoder_pred",
        "encoder_to_decoder",
        "decoder",
    ),
    DECODER,
)
_TIMM_LEFT_OUT = {**_MAE_DECODER, "pre_logits": HEAD, "head_dist": HEAD, "fc": HEAD, "attn_pool": HEAD}

_POINT_HEADS = (
    "cls_token",
    "cls_pos",
    "cls_head_finetune",
    "label_conv",
    "propagation_0",
    *(f"{name}{number}" for name in ("convs", "bns") for number in (1, 2, 3)),
)

_TRANSFORMERS_BLOCK = {
    # as transformers writes files, in all of its versions
    "encoder.layer.N.layernorm_before": "blocks.N.norm1",
    "encoder.layer.N.layernorm_after": "blocks.N.norm2",
    "encoder.layer.N.norm1": "blocks.N.norm1",
    "encoder.layer.N.norm2": "blocks.N.norm2",
    "encoder.layer.N.attention.attention.query": "blocks.N.attn.q",
    "encoder.layer.N.attention.attention.key": "blocks.N.attn.k",
    "encoder.layer.N.attention.attention.value": "blocks.N.attn.v",
    "encoder.layer.N.attention.attention.q_bias": "blocks.N.attn.q.bias",
    "encoder.layer.N.attention.attention.v_bias": "blocks.N.attn.v.bias",
    "encoder.layer.N.attention.output.dense": "blocks.N.attn.proj",
    "encoder.layer.N.intermediate.dense": "blocks.N.mlp.fc1",
    "encoder.layer.N.output.dense": "blocks.N.mlp.fc2",
    "encoder.layer.N.mlp.fc1": "blocks.N.mlp.fc1",
    "encoder.layer.N.mlp.fc2": "blocks.N.mlp.fc2",
    "encoder.layer.N.attention.q_proj": "blocks.N.attn.q",
    "encoder.layer.N.attention.k_proj": "blocks.N.attn.k",
    "encoder.layer.N.attention.v_proj": "blocks.N.attn.v",
    "encoder.layer.N.attention.o_proj": "blocks.N.attn.proj",
    "encoder.layer.N.lambda_1": "blocks.N.ls1",
    "encoder.layer.N.lambda_2": "blocks.N.ls2",
    "encoder.layer.N.layer_scale1.lambda1": "blocks.N.ls1",
    "encoder.layer.N.layer_scale2.lambda1": "blocks.N.ls2",
    # as they are called in the memory of version 5
    "layers.N.layernorm_before": "blocks.N.norm1",
    "layers.N.layernorm_after": "blocks.N.norm2",
    "layers.N.attention.q_proj": "blocks.N.attn.q",
    "layers.N.attention.k_proj": "blocks.N.attn.k",
    "layers.N.attention.v_proj": "blocks.N.attn.v",
    "layers.N.attention.o_proj": "blocks.N.attn.proj",
    "layers.N.mlp.fc1": "blocks.N.mlp.fc1",
    "layers.N.mlp.fc2": "blocks.N.mlp.fc2",
    "layers.N.lambda_1": "blocks.N.ls1",
    "layers.N.lambda_2": "blocks.N.ls2",
}
_TRANSFORMERS = {
    **_TRANSFORMERS_BLOCK,
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    **_same("fc_norm"),
    "classifier": "head",
    "pooler.layernorm": "fc_norm",
}
_TRANSFORMERS_LEFT_OUT = {
    **_MAE_DECODER,
    "embeddings.mask_token": DECODER,
    "pooler.dense": HEAD,
    "classifier.layernorm": HEAD,
    "classifier.dense": HEAD,
    "lm_head": HEAD,
    "cls_classifier": HEAD,
    "distillation_classifier": HEAD,
}


def _transformers(anchor: str) -> Dialect:
    return Dialect(TRANSFORMERS, anchor, _TRANSFORMERS, _TRANSFORMERS_LEFT_OUT)


def _under(prefix: str, keys: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}{path}": goal for path, goal in keys.items()}


_POINT = {
    "encoder": "patch_embed",
    "pos_embed": "pos_embed",
    "norm": "norm",
    **_under("blocks.", _TIMM_BLOCK),
}

DIALECTS = (
    Dialect(
        "timm's ConvNeXt",
        "stages.0.blocks.0.mlp.fc1.weight",
        _same("stem", "stages", "norm_pre", *_NORMS),
    ),
    Dialect(
        "Point-MAE (pretraining)",
        "MAE_encoder.blocks.blocks.0.mlp.fc1.weight",
        _under("MAE_encoder.", _POINT),
        dict.fromkeys(("MAE_decoder", "decoder_pos_embed", "increase_dim", "mask_token"), DECODER),
    ),
    Dialect(
        "Point-MAE (finetuned)",
        "blocks.blocks.0.mlp.fc1.weight",
        _POINT,
        dict.fromkeys(_POINT_HEADS, HEAD),
    ),
    Dialect(
        "VideoMAE (pretraining)",
        "encoder.blocks.0.mlp.fc1.weight",
        _under("encoder.", _TIMM),
        _MAE_DECODER,
        marks=("encoder_to_decoder",),
    ),
    Dialect(
        "M2PT (with pathways)",
        "blocks.0.mlp.fc1.weight",
        _TIMM,
        _TIMM_LEFT_OUT,
        marks=("blocks.0.attn.qkv.aux_weight", "blocks.0.mlp.fc1.aux_weight"),
    ),
    Dialect(
        "AudioMAE (pretraining)",
        "blocks.0.mlp.fc1.weight",
        _TIMM,
        _TIMM_LEFT_OUT,
        marks=("decoder_blocks.0.attn.tau", "decoder_blocks.0.attn.meta_mlp"),
    ),
    Dialect("MAE (pretraining)", "blocks.0.mlp.fc1.weight", _TIMM, _TIMM_LEFT_OUT, marks=("decoder_blocks",)),
    Dialect(
        "VideoMAE or BEiT", "blocks.0.mlp.fc1.weight", _TIMM, _TIMM_LEFT_OUT, marks=("blocks.0.attn.q_bias",)
    ),
    Dialect("MAE or timm's ViT", "blocks.0.mlp.fc1.weight", _TIMM, _TIMM_LEFT_OUT),
    _transformers("encoder.layer.0.intermediate.dense.weight"),
    _transformers("layers.0.mlp.fc1.weight"),
    _transformers("encoder.layer.0.mlp.fc1.weight"),
)
