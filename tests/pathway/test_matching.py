"""Which blocks and which matrices belong together, between libraries and between models of unequal size."""

import peft
import pytest
import torch
import torchvision
import transformers
from model_families import DEPTH, DIM, build, inputs, output
from small_vit import images, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, effective_weight, scales
from m2pt.pathway.layers import attached_layers

# The last block's matrices as timm has them, of shape (outputs, inputs): Q, K, V below each other, and so on.
PATHS = {
    "timm ViT": ("blocks.2", ["attn.qkv"], "attn.proj", "mlp.fc1", "mlp.fc2"),
    "torchvision ViT": (
        "encoder.layers.encoder_layer_2",
        ["self_attention.in_proj_weight"],
        "self_attention.out_proj",
        "mlp.0",
        "mlp.3",
    ),
    "torch TransformerEncoder": (
        "layers.2",
        ["self_attn.in_proj_weight"],
        "self_attn.out_proj",
        "linear1",
        "linear2",
    ),
    "open_clip vision": (
        "transformer.resblocks.2",
        ["attn.in_proj_weight"],
        "attn.out_proj",
        "mlp.c_fc",
        "mlp.c_proj",
    ),
    "transformers VideoMAE": (
        "encoder.layer.2",
        ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    "transformers AST": (
        "layers.2",
        ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attention.o_proj",
        "mlp.fc1",
        "mlp.fc2",
    ),
    "transformers BERT": (
        "encoder.layer.2",
        ["attention.self.query", "attention.self.key", "attention.self.value"],
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    "transformers Wav2Vec2": (
        "encoder.layers.2",
        ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attention.out_proj",
        "feed_forward.intermediate_dense",
        "feed_forward.output_dense",
    ),
    "transformers CLIP vision": (
        "encoder.layers.2",
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attn.out_proj",
        "mlp.fc1",
        "mlp.fc2",
    ),
    "transformers DistilBERT": (
        "transformer.layer.2",
        ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
    ),
    "transformers GPT-2": ("h.2", ["attn.c_attn"], "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
}


def matrices(model: nn.Module, family: str) -> list[torch.Tensor]:
    """The effective QKV, projection and both matrices of the MLP in the last block."""
    block, qkv, *others = PATHS[family]
    found = []
    for paths in (qkv, *([path] for path in others)):
        parts = []
        for path in paths:
            full = f"{block}.{path}"
            owner, name = full.rsplit(".", 1) if full.endswith("in_proj_weight") else (full, "weight")
            value = effective_weight(model.get_submodule(owner), name)
            parts.append(value.mT if "GPT-2" in family else value)
        found.append(torch.cat(parts).detach().clone())
    return found


@pytest.mark.parametrize("auxiliary", PATHS)
@pytest.mark.parametrize("target", PATHS)
def test_matrices_of_two_libraries_are_paired_by_role(target: str, auxiliary: str) -> None:
    model, other = build(target, 0), build(auxiliary, 1)
    w, a = matrices(model, target), matrices(other, auxiliary)
    attach(model, other, scale_init=0.5)
    for found, own, added in zip(matrices(model, target), w, a, strict=True):
        torch.testing.assert_close(found, own + 0.5 * added)
    output(model, inputs(target))


def test_explicit_pairs_of_fused_and_separate_layers() -> None:
    model, other = build("timm ViT", 0), build("transformers AST", 1)
    names = ["attention.q_proj", "attention.k_proj", "attention.v_proj"]
    expected = torch.cat([other.layers[1].get_submodule(name).weight for name in names])
    expected = model.blocks[1].attn.qkv.weight + 0.5 * expected
    attach(model.blocks, other.layers, layers={"attn.qkv": names}, scale_init=0.5)
    assert len(scales(model)) == DEPTH
    torch.testing.assert_close(effective_weight(model.blocks[1].attn.qkv), expected)

    model, other = build("transformers AST", 0), build("timm ViT", 1)
    rows = other.blocks[1].attn.qkv.weight[DIM : 2 * DIM]
    expected = model.layers[1].attention.k_proj.weight + 0.5 * rows
    attach(
        model.layers, other.blocks, layers={tuple(names): "attn.qkv", "mlp.fc1": "mlp.fc1"}, scale_init=0.5
    )
    assert len(scales(model)) == 4 * DEPTH
    torch.testing.assert_close(effective_weight(model.layers[1].attention.k_proj), expected)
    with pytest.raises(PathwayError, match=r"have \[32, 32\] output rows, the matrices of .* 96 in all"):
        attach(build("transformers AST", 0), other, layers={tuple(names[:2]): "attn.qkv"})


@pytest.mark.parametrize(
    ("target", "auxiliary", "message"),
    [
        ("timm ViT", "transformers Llama", r"has 'mlp.gate_proj' for which target block 0 has no partner"),
        (
            "transformers Llama",
            "timm ViT",
            r"'mlp.gate_proj' of target block 0 \(LlamaDecoderLayer\) has no partner in 'auxiliary' block 0 "
            r"\(Block\), which has .*'mlp.fc1', 'mlp.fc2'; leave it out, layers=\['self_attn.q_proj', "
            r".*'mlp.down_proj'\], or name all partners",
        ),
    ],
)
def test_what_has_no_partner_is_named(target: str, auxiliary: str, message: str) -> None:
    with pytest.raises(PathwayError, match=message):
        attach(build(target, 0), build(auxiliary, 1))


def test_a_model_with_two_towers_has_to_be_narrowed_down() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, **sizes},
        vision_config={"image_size": 32, "patch_size": 8, **sizes},
    )
    model, other = transformers.CLIPModel(config), transformers.CLIPModel(config)
    with pytest.raises(
        PathwayError, match=r"the target has several series of blocks: 'text_model.encoder.layers' "
    ):
        attach(model, other)
    attach(model.vision_model, other.text_model)
    assert len(scales(model)) == 12 and all(name.startswith("vision_model") for name in scales(model))


def test_a_convolutional_network_needs_names() -> None:
    model, other = (torchvision.models.resnet18() for _ in range(2))
    with pytest.raises(
        PathwayError, match=r"the target \(ResNet\) has no series of blocks with linear layers"
    ):
        attach(model, other)
    attach(model, other, layers=["layer1.0.conv1"])
    assert list(scales(model)) == ["layer1.0.conv1.pathways.auxiliary.scale"]


def test_the_decoder_of_a_masked_autoencoder_is_left_out() -> None:
    model = build("transformers ViTMAE", 0)
    with pytest.warns(
        UserWarning, match=r"the target has blocks that are left out: 'decoder.decoder_layers'"
    ):
        attach(model, build("transformers ViTMAE", 1))
    assert {name.split(".")[0] for name, _ in attached_layers(model)} == {"vit"}


def test_unequal_models_are_refused_with_a_way_out() -> None:
    for other, message in (
        (
            vit(depth=3),
            r"2 blocks \(Block\), the auxiliary 'auxiliary' has 3 \(Block\); they must be equal, or choose "
            r"unequal='slice'",
        ),
        (vit(dim=12), r"shape \(72, 24\).*shape \(36, 12\); they must be equal, or choose unequal='slice'"),
    ):
        with pytest.raises(PathwayError, match=message):
            attach(vit(), other)
    model, other = vit(), vit(seed=1)
    other.blocks[1].attn.num_heads, other.blocks[1].attn.head_dim = 4, 6
    with pytest.raises(PathwayError, match=r"2 heads, 'auxiliary' block 1 with 4"):
        attach(model, other)
    attach(model, other, unequal="slice")
    with pytest.raises(PathwayError, match=r"unequal must be 'error' or 'slice', got 'resize'"):
        attach(vit(), vit(seed=1), unequal="resize")


@pytest.mark.parametrize(("depth", "dim"), [(5, 36), (1, 12), (3, 24), (2, 36)])
def test_slices_of_an_unequal_auxiliary(depth: int, dim: int) -> None:
    model, other = vit(), vit(depth=depth, dim=dim, seed=1)
    w = [model.blocks[i].attn.qkv.weight.detach().clone() for i in range(2)]
    attach(model, other, scale_init=0.5, unequal="slice")
    for i, j in ((0, 0), (1, depth - 1)):
        added = torch.zeros(3, 24, 24)
        common = min(dim, 24)
        added[:, :common, :common] = other.blocks[j].attn.qkv.weight.view(3, dim, dim)[:, :common, :common]
        torch.testing.assert_close(
            effective_weight(model.blocks[i].attn.qkv), w[i] + 0.5 * added.view(72, 24)
        )
    model(images())


def test_an_attached_auxiliary_gives_what_it_computes_with() -> None:
    model, other = vit(), vit(seed=1)
    attach(other, {"third": vit(seed=2)}, scale_init=0.5)
    w, a = (effective_weight(each.blocks[1].mlp.fc1).detach().clone() for each in (model, other))
    attach(model, other, scale_init=0.25)
    torch.testing.assert_close(effective_weight(model.blocks[1].mlp.fc1), w + 0.25 * a)


class Adapted(nn.Linear):
    """A linear layer that adds an unmerged adapter in its forward, as loralib's does."""

    merged = False


def quantized(model: nn.Module, dtype: torch.dtype = torch.int8) -> None:
    layer = model.blocks[1].mlp.fc2
    layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)


def float8(model: nn.Module) -> None:
    quantized(model, torch.float8_e4m3fn)


def subclassed(model: nn.Module) -> None:
    class Special(torch.Tensor):
        pass

    layer = model.blocks[1].mlp.fc2
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Special))


def adapted(model: nn.Module) -> None:
    model.blocks[1].mlp.fc2.__class__ = Adapted


def without_values(model: nn.Module) -> None:
    model.blocks[1].mlp.fc2.to("meta")


def lora(model: nn.Module) -> None:
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["fc2"], init_lora_weights=False))


@pytest.mark.parametrize("unequal", ["error", "slice"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quantized, r"'mlp.fc2' of 'auxiliary' block 1 is a Parameter of torch.int8.*dequantize"),
        (float8, r"'mlp.fc2' of 'auxiliary' block 1 is a Parameter of torch.float8.*dequantize"),
        (subclassed, r"'mlp.fc2' of 'auxiliary' block 1 is a Special.*dequantize"),
        (adapted, r"'mlp.fc2' of 'auxiliary' block 1 has adapters that are not merged: merge_and_unload"),
        (lora, r"'mlp.fc2' of 'auxiliary' block 0 has adapters that are not merged: merge_and_unload"),
        (without_values, r"'auxiliary' for 'mlp.fc2' of target block 1 is on the meta device"),
    ],
)
def test_an_auxiliary_whose_numbers_are_not_its_weights_is_refused(change, message, unequal) -> None:
    model, other = vit(), vit(seed=1)
    change(other)
    with pytest.raises(PathwayError, match=message):
        attach(model, other, unequal=unequal)
    assert list(model.state_dict()) == list(vit().state_dict())


@pytest.mark.parametrize("layers", ["all-linear", r"attention\.self\.(query|key)"])
def test_layers_that_peft_has_wrapped_are_found_by_their_own_paths(layers: str) -> None:
    model, plain, other = (
        build(family, i) for i, family in enumerate(["transformers BERT"] * 2 + ["timm ViT"])
    )
    plain.load_state_dict(model.state_dict())
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))
    for each in (wrapped, plain):
        attach(each, other, layers=layers, scale_init=0.5)
    found = {name.removeprefix("base_model.model.").replace(".base_layer", "") for name in scales(wrapped)}
    assert found == set(scales(plain)) and any(".query." in name for name in found)
    assert torch.equal(
        output(wrapped, inputs("transformers BERT")), output(plain, inputs("transformers BERT"))
    )


def test_an_auxiliary_with_merged_adapters_is_taken_as_merged() -> None:
    model, other = vit(), vit(seed=1)
    wrapped = peft.get_peft_model(other, peft.LoraConfig(target_modules=["fc2"], init_lora_weights=False))
    wrapped.merge_adapter()
    merged = other.blocks[1].mlp.fc2.base_layer.weight.detach().clone()
    expected = model.blocks[1].mlp.fc2.weight.detach() + 0.5 * merged
    assert not torch.equal(merged, vit(seed=1).blocks[1].mlp.fc2.weight)
    attach(model, other, layers=["mlp.fc2"], scale_init=0.5)
    torch.testing.assert_close(effective_weight(model.blocks[1].mlp.fc2), expected)


def test_a_target_without_values_takes_an_auxiliary_without_values_only() -> None:
    with torch.device("meta"):
        model, other = vit(), vit()
    with pytest.raises(
        PathwayError, match=r"the target's 'attn.qkv' of target block 0 is on the meta device"
    ):
        attach(model, vit(seed=1), scale_init=0.5)
    attach(model, other)
    trained = vit()
    attach(trained, vit(seed=1), scale_init=0.5)
    model.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(model(images()), trained(images()))


def test_heads_are_read_from_the_config_of_attention_that_has_no_number_of_its_own() -> None:
    def llama(heads: int) -> nn.Module:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 50}
        config = transformers.LlamaConfig(num_attention_heads=heads, num_key_value_heads=heads, **sizes)
        return transformers.LlamaModel(config)

    with pytest.raises(PathwayError, match=r"block 0 has attention with 4 heads, 'auxiliary' block 0 with 2"):
        attach(llama(4), llama(2))
    attach(llama(4), llama(2), unequal="slice")
    timm_vit = build("timm ViT", 0)
    with pytest.raises(PathwayError, match=r"with 2 heads, 'auxiliary' block 0 with 4"):
        attach(timm_vit.blocks[:2], llama(4), layers={"attn.proj": "self_attn.o_proj"})


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1(x))


def sequential(*, with_blocks: bool = True) -> nn.Module:
    body = nn.Sequential(Block(), Block()) if with_blocks else Block()
    return nn.Sequential(nn.Linear(4, 4), body, nn.Linear(4, 4))


def test_of_a_sequential_model_the_blocks_are_found() -> None:
    model = sequential()
    attach(model, sequential())
    names = {f"1.{i}.{layer}.pathways.auxiliary.scale" for i in range(2) for layer in ("fc1", "fc2")}
    assert set(scales(model)) == names
    model = nn.Sequential(vit())
    attach(model, vit(seed=1))
    assert all(name.startswith("0.blocks.") for name in scales(model)) and len(scales(model)) == 8
    model = vit(depth=1)
    attach(model.blocks, vit(depth=1).blocks)
    assert len(scales(model)) == 4


def test_a_sequential_model_without_a_series_needs_its_blocks_or_layers() -> None:
    model, other = (sequential(with_blocks=False) for _ in range(2))
    with pytest.raises(
        PathwayError, match=r"the target is a Sequential of different modules.*layers=\[...\]"
    ):
        attach(model, other)
    assert not scales(model)
    attach(list(model), list(other))
    assert len(scales(model)) == 4


@pytest.mark.parametrize("head", ["head", "classifier", "lm_head"])
def test_the_head_of_a_model_without_a_series_is_never_attached_unasked(head: str) -> None:
    def small() -> nn.Module:
        return nn.ModuleDict({"stem": nn.Linear(4, 4), "body": Block(), head: nn.Linear(4, 4)})

    model = small()
    with pytest.raises(PathwayError, match=rf"the target \(ModuleDict\) has no series.*its head '{head}'"):
        attach(model, small())
    assert not scales(model)
    attach(model, small(), layers=["body.fc1", head])
    assert len(scales(model)) == 2
    model = vit()
    attach(model.blocks[0], vit(seed=1).blocks[0])
    assert len(scales(model)) == 4


def test_blocks_that_are_attached_in_part_are_still_one_series() -> None:
    model, other = vit(depth=3), vit(depth=3, seed=1)
    attach(model.blocks[:2], {"audio": other.blocks[:2]})
    attach(model, {"video": other})
    assert len(scales(model)) == 20
    attach(vit(depth=3), model)


def test_layers_may_be_any_iterable() -> None:
    for layers in (
        (name for name in ("mlp.fc1", "mlp.fc2")),
        {"mlp.fc1": (name for name in ("mlp.fc1",)), "mlp.fc2": "mlp.fc2"},
    ):
        model = vit()
        attach(model, {"audio": vit(seed=1), "video": vit(seed=2)}, layers=layers)
        assert len(scales(model)) == 8
