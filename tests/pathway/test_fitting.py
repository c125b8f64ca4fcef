"""Fused and separate matrices: which rows go where, and what cannot be fitted is refused.

The truth is the models' own: a layer that attends with W + λA has the queries, keys and values of W + λA.
"""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from model_families import build
from small_vit import vit
from timm.models.gcvit import WindowAttentionGlobal
from timm.models.tiny_vit import TinyVit
from timm.models.vision_transformer import ParallelThingsBlock
from torch import Tensor, nn

from m2pt.pathway import PathwayError, attach

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT: dict[str, Any] = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64}
WORDS: dict[str, Any] = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def timm_vit(**settings: Any) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 4, "depth": 2, "mlp_ratio": 2}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **settings)


def hf_vit(width: int) -> nn.Module:
    sizes = {**SIZES, "hidden_size": width, "intermediate_size": 64}
    return hf.ViTModel(hf.ViTConfig(image_size=16, patch_size=8, **sizes))


def llama(heads: int = 2) -> nn.Module:
    return hf.LlamaModel(hf.LlamaConfig(**SIZES, **WORDS, intermediate_size=64, num_key_value_heads=heads))


def modern_bert() -> nn.Module:
    tokens = {"cls_token_id": 3, "sep_token_id": 4}
    return hf.ModernBertModel(hf.ModernBertConfig(**SIZES, **WORDS, **tokens, intermediate_size=64))


def gpt2() -> nn.Module:
    return hf.GPT2Model(hf.GPT2Config(**(GPT | WORDS)))


def big_code(*, multi_query: bool) -> nn.Module:
    return hf.GPTBigCodeModel(hf.GPTBigCodeConfig(**GPT | WORDS, multi_query=multi_query))


def deberta() -> nn.Module:
    return hf.DebertaModel(hf.DebertaConfig(**SIZES, **WORDS, intermediate_size=32))


def codegen() -> nn.Module:
    return hf.CodeGenModel(hf.CodeGenConfig(**(GPT | WORDS), rotary_dim=4))


def phi(heads: int = 4) -> nn.Module:
    return hf.Phi3Model(hf.Phi3Config(**SIZES, **WORDS, intermediate_size=64, num_key_value_heads=heads))


def minimax() -> nn.Module:
    kinds = {"layer_types": ["linear_attention"] * 2, "head_dim": 8, "num_local_experts": 2}
    return hf.MiniMaxModel(hf.MiniMaxConfig(**SIZES, **WORDS, **kinds, intermediate_size=16))


def tiny_vit() -> nn.Module:
    model = TinyVit(embed_dims=(16, 32, 32, 32), depths=(1, 2, 1, 1), num_heads=(1, 4, 4, 4))
    return model.stages[1].blocks


def swin(*depths: int) -> nn.Module:
    sizes = {"img_size": 32, "embed_dim": 32, "num_heads": (4, 4), "window_size": 4, "mlp_ratio": 2}
    return timm.create_model("swin_tiny_patch4_window7_224", depths=depths, **sizes)


def bert(**settings: Any) -> nn.Module:
    return hf.BertModel(hf.BertConfig(**SIZES, **WORDS, intermediate_size=32, **settings))


def gated(*, gate_last: bool) -> nn.Module:
    return nn.ModuleList(timm.layers.GluMlp(8, 16, gate_last=gate_last) for _ in range(2))


def gmlp(width: int) -> nn.Module:
    return timm.models.mlp_mixer.SpatialGatingBlock(width, 4)


def mamba(width: int) -> nn.Module:
    return hf.MambaModel(
        hf.MambaConfig(vocab_size=9, hidden_size=width, state_size=4, num_hidden_layers=1)
    ).layers[0]


def deepseek(width: int) -> nn.Module:
    config = hf.DeepseekV3Config(
        hidden_size=width,
        num_attention_heads=2,
        q_lora_rank=width // 2,
        kv_lora_rank=width // 2,
        qk_nope_head_dim=width // 4,
        qk_rope_head_dim=4,
        v_head_dim=width // 4,
    )
    return hf.models.deepseek_v3.modeling_deepseek_v3.DeepseekV3Attention(config, 0)


def added(block: nn.Module, path: str) -> Tensor:
    return block.get_submodule(path).get_submodule("pathways.auxiliary").weight.detach()


def test_slices_of_grouped_queries_are_those_of_q_k_and_v() -> None:
    model, other = timm_vit(), llama()
    attach(model, other, layers=["attn.qkv"], unequal="slice")
    own = other.layers[1].self_attn
    nothing = torch.zeros(16, 32)
    expected = [own.q_proj.weight, own.k_proj.weight, nothing, own.v_proj.weight, nothing]
    assert torch.equal(added(model.blocks[1], "attn.qkv"), torch.cat(expected))


def test_slices_of_parts_that_a_mapping_names() -> None:
    model, other = modern_bert(), hf_vit(48)
    names = [f"attention.{part}_proj" for part in "qkv"]
    attach(model.layers, other.layers, layers={"attn.Wqkv": names}, unequal="slice")
    expected = torch.cat([other.layers[1].get_submodule(name).weight[:32, :32] for name in names])
    assert torch.equal(added(model.layers[1], "attn.Wqkv"), expected)
    # and the other way round, from rows of one matrix to three
    model, other = hf_vit(48), modern_bert()
    attach(model.layers, other.layers, layers={tuple(names): "attn.Wqkv"}, unequal="slice")
    for name, part in zip(names, other.layers[0].attn.Wqkv.weight.chunk(3), strict=True):
        found = added(model.layers[0], name)
        assert torch.equal(found[:32, :32], part) and not found[32:].any() and not found[:, 32:].any()


def test_fused_matrices_of_one_arrangement_are_taken_as_they_are() -> None:
    for kind in (lambda: big_code(multi_query=False), lambda: big_code(multi_query=True)):
        model, other = kind(), kind()
        attach(model, other)
        assert torch.equal(added(model.h[0], "attn.c_attn"), other.h[0].attn.c_attn.weight)


def test_fused_parts_of_unequal_sizes_are_not_sliced_as_thirds() -> None:
    names = [f"self_attn.{part}_proj" for part in "qkv"]
    model, other = phi(heads=2), llama()
    attach(model, other, layers={"self_attn.qkv_proj": names})
    expected = torch.cat([other.layers[1].get_submodule(name).weight for name in names])
    assert torch.equal(added(model.layers[1], "self_attn.qkv_proj"), expected)
    with pytest.raises(PathwayError, match=r"is fused, fewer rows than Q, K and V of all heads: slicing"):
        attach(phi(heads=2), llama(4), layers={"self_attn.qkv_proj": names}, unequal="slice")
    small, large = (nn.ModuleList([WindowAttentionGlobal(n, 4, (2, 2))]) for n in (24, 48))
    with pytest.raises(PathwayError, match=r"'qkv' of target block 0 is fused, fewer rows"):
        attach(small, large, layers=["qkv"], unequal="slice")


@pytest.mark.parametrize("unequal", ["error", "slice"])
@pytest.mark.parametrize(
    ("target", "auxiliary", "layers", "message"),
    [
        (lambda: big_code(multi_query=False), gpt2, ["attn.c_attn"], "each head together"),
        (lambda: big_code(multi_query=True), gpt2, ["attn.c_attn"], "K and V of one"),
        (timm_vit, lambda: big_code(multi_query=False), ["attn.qkv"], "each head together"),
        (timm_vit, tiny_vit, ["attn.qkv"], "each head together"),
        (tiny_vit, timm_vit, ["attn.qkv"], "each head together"),
        (lambda: hf_vit(32), lambda: big_code(multi_query=False), ["attention.q_proj"], "cannot lie below"),
        (tiny_vit, lambda: hf_vit(32), {"attn.qkv": ["attention.q_proj"] * 3}, "cannot lie below"),
        (phi, minimax, ["self_attn.qkv_proj"], "each head together"),
        (
            deberta,
            bert,
            {"attention.self.in_proj": [f"attention.self.{part}" for part in ("query", "key", "value")]},
            "each head together, so separate",
        ),
        (codegen, llama, {"attn.qkv_proj": [f"self_attn.{p}_proj" for p in "qkv"]}, "four shards together"),
        (lambda: gated(gate_last=True), lambda: gated(gate_last=False), ["fc1"], "the gate last.*gate first"),
    ],
)
def test_rows_that_are_arranged_otherwise_are_refused(
    target: Callable[[], nn.Module],
    auxiliary: Callable[[], nn.Module],
    layers: Any,
    message: str,
    unequal: Any,
) -> None:
    with pytest.raises(PathwayError, match=message):
        attach(target(), auxiliary(), layers=layers, unequal=unequal)


@pytest.mark.parametrize("name", ["kv", "qk"])
def test_a_matrix_that_is_fused_in_an_unknown_way_is_not_sliced(name: str) -> None:
    small, large = (nn.ModuleList([nn.ModuleDict({name: nn.Linear(n, 2 * n)})]) for n in (8, 12))
    with pytest.raises(
        PathwayError, match=rf"'{name}' of target block 0 is fused: slicing would mix its parts"
    ):
        attach(small, large, layers=[name], unequal="slice")
    with pytest.raises(PathwayError, match="fused, the gate last: slicing"):
        attach(
            gated(gate_last=True),
            nn.ModuleList(timm.layers.GluMlp(8, 24) for _ in range(2)),
            layers=["fc1"],
            unequal="slice",
        )


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (gmlp, "mlp_channels.fc1"),
        (lambda width: timm.models.mambaout.GatedConvBlock(width), "fc1"),
        (mamba, "mixer.in_proj"),
        (mamba, "mixer.x_proj"),
        (deepseek, "q_b_proj"),
        (deepseek, "kv_a_proj_with_mqa"),
        (deepseek, "kv_b_proj"),
    ],
)
def test_what_is_fused_by_its_name_or_by_what_follows_is_not_sliced(
    build: Callable[[int], nn.Module], path: str
) -> None:
    with pytest.raises(
        PathwayError, match=rf"'{path}' of target block 0 is fused.*slicing would mix its parts"
    ):
        attach([build(16)], [build(24)], layers=[path], unequal="slice")


def test_layers_of_a_plain_mlp_are_sliced_whatever_their_names_and_ratio() -> None:
    for ratio in (1, 2, 4):
        small, large = (
            nn.ModuleDict({"a": nn.Linear(n, ratio * n), "b": nn.Linear(ratio * n, n), "c": nn.Linear(n, n)})
            for n in (8, 12)
        )
        attach([small], [large], layers=["a", "b", "c"], unequal="slice")
        assert torch.equal(added(small, "a"), large["a"].weight[: 8 * ratio, :8])


@pytest.mark.parametrize("shape", [(2, 4, 5), (3, 6, 5), (3, 4, 6), (3, 4)])
def test_stacked_matrices_are_not_sliced(shape: tuple[int, ...]) -> None:
    """Their first two dimensions are no rows and columns."""

    def experts(*shape: int) -> nn.Module:
        made = nn.Module()
        made.register_parameter("down_proj", nn.Parameter(torch.randn(shape)))
        return made

    attach([experts(3, 4, 5)], [experts(3, 4, 5)], layers=["down_proj"], unequal="slice")
    with pytest.raises(PathwayError, match=r"'down_proj' of target block 0 .* of single matrices alone"):
        attach([experts(3, 4, 5)], [experts(*shape)], layers=["down_proj"], unequal="slice")


def test_kernels_are_sliced_in_channels_alone() -> None:
    target, other = (nn.ModuleList([nn.ModuleDict({"conv": nn.Conv2d(n, n, 3)})]) for n in (4, 6))
    attach(target, other, layers=["conv"], unequal="slice")
    assert torch.equal(added(target[0], "conv"), other[0]["conv"].weight[:4, :4])
    wide = nn.ModuleList([nn.ModuleDict({"conv": nn.Conv2d(4, 4, 7)})])
    target = nn.ModuleList([nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3)})])
    with pytest.raises(PathwayError, match="fits rows and columns of single matrices"):
        attach(target, wide, layers=["conv"], unequal="slice")


@pytest.mark.parametrize(
    ("target", "auxiliary"),
    [
        (lambda: timm_vit(block_fn=ParallelThingsBlock), timm_vit),
        (lambda: swin(2, 2), lambda: swin(1, 1)),
        (lambda: bert(is_decoder=True, add_cross_attention=True), bert),
        (lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 64), 2), timm_vit),
    ],
)
def test_one_matrix_never_helps_two_of_a_block(
    target: Callable[[], nn.Module], auxiliary: Callable[[], nn.Module]
) -> None:
    model = target()
    keys = list(model.state_dict())
    with pytest.raises(PathwayError, match="has no partner in"):
        attach(model, auxiliary())
    assert list(model.state_dict()) == keys


def test_one_of_two_attentions_can_be_chosen() -> None:
    model, other = bert(is_decoder=True, add_cross_attention=True), hf_vit(32)
    attach(model, other.layers, layers=["attention.self.query"])
    found = added(model.encoder.layer[1], "attention.self.query")
    assert torch.equal(found, other.layers[1].attention.q_proj.weight)


def test_the_output_of_an_attention_is_no_layer_of_the_mlp() -> None:
    """`attention.wo` of Meta's Llama, where nothing tells but the name."""

    def blocks(part: str, name: str) -> nn.ModuleList:
        made = (nn.ModuleDict({part: nn.ModuleDict({name: nn.Linear(8, 8)})}) for _ in range(2))
        return nn.ModuleList(made)

    with pytest.raises(PathwayError, match=r"'mlp.fc2' of target block 0 .* has no partner"):
        attach(blocks("mlp", "fc2"), blocks("attention", "wo"), layers=["mlp.fc2"])


def test_a_module_of_the_user_that_is_called_pathways_is_attached_too() -> None:
    def model() -> nn.Module:
        layers = {"pathways": nn.ModuleList([nn.Linear(4, 4)]), "out": nn.Linear(4, 4)}
        return nn.ModuleList([nn.ModuleDict(layers)])

    target, other = model(), model()
    attach(target, other, layers="all-linear")
    assert torch.equal(added(target[0], "pathways.0"), other[0]["pathways"][0].weight)


def test_a_convolution_whose_class_is_called_conv1d_is_not_turned() -> None:
    class Conv1D(nn.Conv1d):
        pass

    target, other = (nn.ModuleList([nn.ModuleDict({"conv": Conv1D(3, 3, 3)})]) for _ in range(2))
    attach(target, other, layers=["conv"])
    assert torch.equal(added(target[0], "conv"), other[0]["conv"].weight)


def test_families_that_fit_still_do() -> None:
    for target, auxiliary in (("timm ViT", "transformers GPT-2"), ("transformers Llama",) * 2):
        attach(build(target, 0), build(auxiliary, 1))
    attach(vit(), vit(seed=1))


def experts(model: type[nn.Module], config: type) -> nn.Module:
    sizes = {"hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    return model(config(vocab_size=9, num_key_value_heads=2, num_local_experts=3, **sizes))


def test_stacked_experts_of_one_shape_whose_rows_are_arranged_otherwise_are_refused() -> None:
    layers = [f"mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")]
    target, other = (experts(hf.GptOssModel, hf.GptOssConfig) for _ in range(2))
    attach(target, {"same": other}, layers)
    other.layers[0].mlp.experts.is_concatenated = True  # as of Aria
    with pytest.raises(
        PathwayError, match=r"gate_up_proj.*gate and up in turn.*gate and up as halves.*correspond"
    ):
        attach(target, {"audio": other}, layers)
    attach(target, {"audio": other}, layers[1:])
    with pytest.raises(PathwayError, match=r"whose rows are inputs.*whose rows are outputs"):
        attach(target, {"video": experts(hf.MixtralModel, hf.MixtralConfig)}, layers)
