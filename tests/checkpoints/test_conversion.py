"""Files of every dialect: mapped to the same weights, with the features of the model that wrote them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from small_vit import vit
from torch import Tensor, nn

from m2pt.checkpoints.conversion import convert
from m2pt.errors import InputError
from m2pt.formats.weights import load_weights
from m2pt.models.exchange import join_average, load_exchange
from m2pt.models.transformer import build_encoder, build_tokenizer, tokenizer_class
from m2pt.pathway import attach, effective_weight

DEPTH, DIM = 2, 24
SIZES = {
    "hidden_size": DIM,
    "num_attention_heads": 2,
    "num_hidden_layers": DEPTH,
    "intermediate_size": 4 * DIM,
}
BACKBONE = {"dim": DIM, "depth": DEPTH, "num_heads": 2, "mlp_ratio": 4.0}
BLOCK = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")

State = dict[str, Tensor]


def blocks(dim: int = DIM, depth: int = DEPTH, prefix: str = "blocks", *, qkv_bias: bool = True) -> State:
    """Random blocks with timm's keys below `prefix`."""
    shapes = {"norm1": (dim,), "norm2": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    shapes |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    state = {}
    for number in range(depth):
        for name in BLOCK:
            state[f"{prefix}.{number}.{name}.weight"] = torch.randn(shapes[name])
            if qkv_bias or name != "attn.qkv":
                state[f"{prefix}.{number}.{name}.bias"] = torch.randn(shapes[name][:1])
    return state


def layer(path: str, *shape: int) -> State:
    return {f"{path}.weight": torch.randn(shape), f"{path}.bias": torch.randn(shape[:1])}


def mae() -> State:
    """MAE, `mae_pretrain_vit_base.pth`."""
    table = {"cls_token": torch.randn(1, 1, DIM), "pos_embed": torch.randn(1, 17, DIM)}
    return {**table, **layer("patch_embed.proj", DIM, 3, 8, 8), **blocks(), **layer("norm", DIM)}


def mae_decoder() -> State:
    """What `main_pretrain.py` of MAE stores beside the encoder."""
    tables = {"mask_token": torch.randn(1, 1, 8), "decoder_pos_embed": torch.randn(1, 17, 8)}
    layers = {**layer("decoder_embed", 8, DIM), **layer("decoder_norm", 8), **layer("decoder_pred", 192, 8)}
    return {**tables, **layers, **blocks(8, 1, "decoder_blocks")}


def audiomae_decoder() -> State:
    """The windowed decoder of AudioMAE, whose blocks have a temperature and a network of positions."""
    extra = {"decoder_blocks.0.attn.tau": torch.ones(1, 2, 1, 1)}
    return {**mae_decoder(), **extra, **layer("decoder_blocks.0.attn.meta_mlp.fc1", 384, 2)}


def finetuned() -> State:
    """MAE, `mae_finetuned_vit_base.pth`: averaged tokens, hence `fc_norm` instead of `norm`."""
    state = {key: value for key, value in mae().items() if not key.startswith("norm.")}
    return {**state, **layer("fc_norm", DIM), **layer("head", 5, DIM)}


def with_query_and_value_bias(prefix: str) -> State:
    """VideoMAE's blocks, which have no bias of keys."""
    state = blocks(prefix=prefix, qkv_bias=False)
    for number in range(DEPTH):
        for name in ("q_bias", "v_bias"):
            state[f"{prefix}.{number}.attn.{name}"] = torch.randn(DIM)
    return state


def videomae() -> State:
    """VideoMAE, `checkpoint.pth` of the pretraining."""
    encoder = {**layer("encoder.patch_embed.proj", DIM, 3, 2, 8, 8), **layer("encoder.norm", DIM)}
    decoder = {**with_query_and_value_bias("decoder.blocks"), **layer("decoder.head", 384, DIM)}
    others = {"encoder_to_decoder.weight": torch.randn(8, DIM), "mask_token": torch.randn(1, 1, 8)}
    return {**encoder, **with_query_and_value_bias("encoder.blocks"), **decoder, **others}


def pointmae() -> State:
    """Point-MAE, `pretrain.pth`, below `base_model`."""
    tokens = {
        **{
            f"first_conv.0.{key}": value
            for key, value in {"weight": torch.randn(4, 3, 1), "bias": torch.randn(4)}.items()
        },
        **layer("first_conv.1", 4),
        "first_conv.1.running_mean": torch.randn(4),
        "first_conv.1.running_var": torch.rand(4),
        "first_conv.1.num_batches_tracked": torch.tensor(7),
        **layer("first_conv.3", 8, 4, 1),
        **layer("second_conv.0", 16, 16, 1),
        **layer("second_conv.1", 16),
        "second_conv.1.running_mean": torch.randn(16),
        "second_conv.1.running_var": torch.rand(16),
        "second_conv.1.num_batches_tracked": torch.tensor(7),
        **layer("second_conv.3", DIM, 16, 1),
    }
    encoder = {f"MAE_encoder.encoder.{key}": value for key, value in tokens.items()}
    places = {**layer("MAE_encoder.pos_embed.0", 128, 3), **layer("MAE_encoder.pos_embed.2", DIM, 128)}
    body = {**blocks(prefix="MAE_encoder.blocks.blocks", qkv_bias=False), **layer("MAE_encoder.norm", DIM)}
    decoder = {**blocks(prefix="MAE_decoder.blocks", qkv_bias=False), **layer("increase_dim.0", 96, DIM, 1)}
    others = {"mask_token": torch.randn(1, 1, DIM), **layer("decoder_pos_embed.0", 128, 3)}
    return {**encoder, **places, **body, **decoder, **others}


def finetuned_pointmae() -> State:
    """Point-MAE, finetuned for classification: the encoder's keys without `MAE_encoder.`, a head, a token."""
    kept = {
        key.removeprefix("MAE_encoder."): value for key, value in pointmae().items() if "MAE_encoder" in key
    }
    head = {**layer("cls_head_finetune.0", 8, 2 * DIM), "cls_token": torch.randn(1, 1, DIM)}
    return {**kept, **head, "cls_pos": torch.randn(1, 1, DIM)}


def without(state: Mapping[str, Tensor], key: str) -> State:
    return {each: value for each, value in state.items() if each != key}


def renamed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "encoder.", "net.")


@pytest.mark.parametrize("prefix", ["", *WRAPPERS])
@pytest.mark.parametrize(
    ("make", "dialect"),
    [
        (mae, "timm's ViT"),
        (finetuned, "timm's ViT"),
        (lambda: {**mae(), **mae_decoder()}, "MAE, pretraining"),
        (lambda: {**mae(), **audiomae_decoder()}, "AudioMAE, pretraining"),
    ],
)
def test_files_with_timms_keys_keep_them(make: Callable[[], State], dialect: str, prefix: str) -> None:
    state = make()
    converted = convert(renamed(state, prefix), "file")
    decoder = sum(key.startswith(("decoder_", "mask_token")) for key in state)
    assert converted.state.keys() == {key for key in state if not key.startswith(("decoder_", "mask_token"))}
    assert all(torch.equal(value, state[key]) for key, value in converted.state.items())
    expected = {"dialect": dialect, "mapped": f"{len(state) - decoder} tensors"}
    expected |= {"left out": f"decoder of the pretraining ({decoder} tensors)"} if decoder else {}
    expected |= {"prefix": f"{prefix} (removed)"} if prefix else {}
    assert converted.report == expected


@pytest.mark.parametrize("prefix", ["", *WRAPPERS])
@pytest.mark.parametrize("stage", ["pretraining", "finetuned"])
def test_videomaes_bias_of_keys_is_zero(stage: str, prefix: str) -> None:
    state = videomae()
    if stage == "finetuned":
        state = {
            key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")
        }
        state |= {**layer("fc_norm", DIM), **layer("head", 5, DIM)}
    converted = convert(renamed(state, prefix), "file").state
    inner = "encoder." if stage == "pretraining" else ""
    for number in range(DEPTH):
        block = f"blocks.{number}.attn"
        bias = [state[f"{inner}{block}.q_bias"], torch.zeros(DIM), state[f"{inner}{block}.v_bias"]]
        assert torch.equal(converted[f"{block}.qkv.bias"], torch.cat(bias))
        assert torch.equal(converted[f"{block}.qkv.weight"], state[f"{inner}{block}.qkv.weight"])
    encoder = build_encoder(
        "video",
        input={"frames": 4, "image_size": 16},
        tokenizer={"patch_size": 8, "tubelet_size": 2},
        backbone=BACKBONE,
    )
    load_exchange(encoder, converted, parts=("tokenizer", "blocks"))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("make", [pointmae, finetuned_pointmae])
def test_pointmae_fits_the_point_cloud_encoder(make: Callable[[], State], prefix: str) -> None:
    state = make()
    converted = convert(renamed(state, prefix), "file").state
    inner = "MAE_encoder." if make is pointmae else ""
    assert torch.equal(converted["blocks.1.mlp.fc1.weight"], state[f"{inner}blocks.blocks.1.mlp.fc1.weight"])
    assert torch.equal(converted["blocks.1.attn.qkv.bias"], torch.zeros(3 * DIM))
    kernel = state[f"{inner}encoder.second_conv.0.weight"]
    assert torch.equal(converted["patch_embed.second_conv.0.weight"], kernel[:, :, 0])
    encoder = build_encoder(
        "pointcloud",
        input={"points": 32},
        tokenizer={"groups": 4, "group_size": 8, "hidden": 4},
        backbone=BACKBONE,
    )
    load_exchange(encoder, converted, parts=("tokenizer", "blocks", "norm"))


def test_a_tokenizer_recognizes_its_own_modality_alone() -> None:
    settings: dict[str, tuple[dict[str, int], dict[str, int]]] = {
        "image": ({"image_size": 32}, {"patch_size": 8}),
        "video": ({"frames": 4, "image_size": 16}, {"patch_size": 8, "tubelet_size": 2}),
        "audio": ({"frames": 32, "mel_bins": 16}, {"patch_size": 8, "stride": 8}),
        "pointcloud": ({"points": 32}, {"groups": 4, "group_size": 8, "hidden": 4}),
        "text": ({"length": 8}, {}),
    }
    for name, (values, own) in settings.items():
        state = build_tokenizer(name, dim=DIM, input=values, settings=own).state_dict()
        assert [each for each in settings if tokenizer_class(each).recognizes(state)] == [name]


def saved(model: Any, folder: Path) -> State:
    """Write a model of transformers and read its file."""
    model.save_pretrained(folder)
    return load_weights(folder / "model.safetensors")[0]


IMAGE = {"image_size": 32, "patch_size": 8}


def image_encoder(
    state: State, parts: tuple[str, ...] = ("tokenizer", "blocks", "norm"), source: str = "file"
) -> nn.Module:
    encoder = build_encoder("image", input={"image_size": 32}, tokenizer={"patch_size": 8}, backbone=BACKBONE)
    load_exchange(encoder, state, parts=parts, source=source)
    return encoder.eval()


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("head", [False, True])
def test_features_of_a_vit_of_transformers(head: bool, in_memory: bool, tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SIZES, **IMAGE, layer_norm_eps=1e-6)
    model = transformers.ViTForImageClassification(config) if head else transformers.ViTModel(config)
    body = randomized(model).vit if head else randomized(model)
    state = model.state_dict() if in_memory else saved(model, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    expected = body(x).last_hidden_state
    torch.testing.assert_close(image_encoder(convert(state, "file").state)(x), expected, rtol=1e-5, atol=1e-5)


def randomized(model: nn.Module) -> Any:
    """Give all parameters values of some size: transformers initializes biases with zeros."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.ndim < 2 else nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_features_of_a_vitmae_of_transformers(tmp_path: Path) -> None:
    decoder = {f"decoder_{key}": value for key, value in SIZES.items()}
    config = transformers.ViTMAEConfig(**SIZES, **IMAGE, **decoder, mask_ratio=0.0, layer_norm_eps=1e-6)
    model = randomized(transformers.ViTMAEForPreTraining(config))
    state = saved(model, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    expected = model.vit(x, noise=torch.arange(16.0).expand(2, 16)).last_hidden_state
    converted = convert(state, "file")
    assert "decoder of the pretraining" in converted.report["left out"]
    torch.testing.assert_close(image_encoder(converted.state)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pretraining", [True, False])
def test_features_of_a_videomae_of_transformers(pretraining: bool, tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(
        **SIZES, image_size=16, patch_size=8, num_frames=4, layer_norm_eps=1e-6
    )
    kind = "VideoMAEForPreTraining" if pretraining else "VideoMAEForVideoClassification"
    model = randomized(getattr(transformers, kind)(config))
    x = torch.randn(2, 4, 3, 16, 16)
    expected = model.videomae(x).last_hidden_state
    encoder = build_encoder(
        "video",
        input={"frames": 4, "image_size": 16},
        tokenizer={"patch_size": 8, "tubelet_size": 2},
        backbone=BACKBONE,
    )
    load_exchange(encoder, convert(saved(model, tmp_path), "file").state, parts=("tokenizer", "blocks"))
    encoder.norm = nn.Identity()
    torch.testing.assert_close(encoder.eval()(x.transpose(1, 2)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["AST", "DeiT", "Beit", "Dinov2", "Dinov2WithRegisters"])
def test_other_models_of_transformers_are_auxiliaries(kind: str, tmp_path: Path) -> None:
    sizes = dict(SIZES)
    if kind.startswith("Dinov2"):
        del sizes["intermediate_size"]
    images = {"num_mel_bins": 32, "max_length": 64} if kind == "AST" else IMAGE
    config = getattr(transformers, f"{kind}Config")(**sizes, **images)
    model = randomized(getattr(transformers, f"{kind}Model")(config))
    state = convert(saved(model, tmp_path), "file", blocks_only=True).state
    query = next(
        value for key, value in model.state_dict().items() if key.endswith("0.attention.q_proj.weight")
    )
    assert torch.equal(state["blocks.0.attn.qkv.weight"][:DIM], query)
    load_exchange(image_encoder({}, parts=()), state, parts=("blocks",))
    in_memory = convert(model.state_dict(), "file", blocks_only=True).state
    assert all(torch.equal(value, in_memory[key]) for key, value in state.items() if "norm" not in key)
    if kind in ("AST", "DeiT", "Dinov2WithRegisters"):
        with pytest.raises(InputError, match="none can start from it; as an auxiliary it works"):
            convert(saved(model, tmp_path), "file")


def test_layer_scale_is_multiplied_into_the_layers_before_it() -> None:
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": 2,
        "num_classes": 5,
    }
    scaled = randomized(timm.models.VisionTransformer(**settings, init_values=0.1))
    plain = timm.models.VisionTransformer(**settings).eval()
    plain.load_state_dict(convert(scaled.state_dict(), "file").state)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(x), scaled(x))


def m2pt(model: nn.Module) -> State:
    """The state of an attached model, with the keys of the released code."""
    names = {".pathways.auxiliary.weight": ".aux_weight", ".pathways.auxiliary.scale": ".cross_modal_scale"}
    state = dict(model.state_dict())
    for ours, theirs in names.items():
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    return state


def test_a_finetuned_model_of_m2pt_is_merged_or_keeps_its_pathways() -> None:
    model = vit()
    attach(model, vit(seed=1), scale_init=0.3)
    given = m2pt(model)
    merged = convert(given, "file")
    assert merged.report["dialect"] == "M2PT, finetuned with pathways"
    assert merged.report["made"] == "8 pathways merged"
    expected = effective_weight(model.blocks[1].attn.qkv)
    torch.testing.assert_close(merged.state["blocks.1.attn.qkv.weight"], expected)
    vit().load_state_dict(merged.state)
    kept = convert(given, "file", keep_pathways=True).state
    assert kept.keys() == model.state_dict().keys()
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_of_an_averaged_model_of_ours_the_average_is_taken() -> None:
    model, average = attach(vit(), vit(seed=1), scale_init=0.3), vit(seed=2).state_dict()
    given = join_average(model.state_dict(), average)
    taken = convert(given, "attached.safetensors")
    assert taken.report["taken"] == "the average" and taken.state.keys() == average.keys()
    assert all(torch.equal(value, taken.state[key]) for key, value in average.items())
    kept = convert(given, "attached.safetensors", keep_pathways=True)
    assert kept.report["taken"] == f"the last step, not its average ({len(average)} tensors)"
    assert kept.state.keys() == model.state_dict().keys()


def test_an_auxiliary_needs_its_matrices_and_nothing_else() -> None:
    given = mae()
    matrices = {key: value for key, value in given.items() if key.startswith("blocks.") and value.ndim == 2}
    assert len(matrices) == 4 * DEPTH
    state = convert({**matrices, "dist_token": torch.zeros(1)}, "file", blocks_only=True).state
    encoder = image_encoder(state, parts=("blocks",))
    for key, value in matrices.items():
        assert torch.equal(encoder.state_dict()[key], value)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({**mae(), "dist_token": torch.zeros(1)}, "has no dist_token; the model has a distillation token"),
        ({**mae(), "blocks.0.attn.q_norm.weight": torch.zeros(1)}, "norms of queries and keys"),
        (
            {key.replace("mlp.fc1", "mlp.w12"): value for key, value in mae().items()},
            "the MLPs of its blocks are gated",
        ),
        (
            {**videomae(), "encoder.blocks.1.attn.qkv.bias": torch.zeros(3 * DIM)},
            "has a bias of attn.qkv in blocks.1 and separate ones",
        ),
        (
            {**mae(), **renamed(mae(), "ema.")},
            "several prefixes, (none), ema.: it is a model",
        ),
        ({**mae(), "surprise": torch.zeros(1)}, "looks like timm's ViT, which has no surprise"),
        (mae_decoder(), "holds a decoder, but no blocks of an encoder"),
        (renamed(blocks(), "decoder."), "holds a decoder, but no blocks of an encoder"),
        (
            {**renamed(mae(), "student."), **renamed(mae(), "teacher.")},
            "student., teacher.: it is a model of",
        ),
        ({"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "its keys begin with conv1.weight, fc"),
        ({**mae(), "norm.weight": torch.full((DIM,), torch.nan)}, "norm.weight is not finite"),
        ({**mae(), "blocks.0.attn.rel_pos_h": torch.zeros(7, 12)}, "the model has relative positions"),
        (
            {key.replace("attn.qkv.", "attn.qkv.base_layer."): value for key, value in mae().items()},
            "has adapters of peft, such as blocks.0.attn.qkv.base_layer.weight: merge them",
        ),
        (
            {**mae(), "blocks.0.mlp.fc1.lora_A.default.weight": torch.zeros(2, DIM)},
            "has adapters of peft, such",
        ),
        ({**mae(), "blocks.0.mlp.fc1.weight_scale": torch.zeros(1)}, "has no blocks.0.mlp.fc1.weight_scale"),
        (
            without(mae(), "blocks.1.mlp.fc2.weight"),
            "lacks blocks.1.mlp.fc2.weight; fetch or export it again",
        ),
        (without(mae(), "blocks.0.norm1.bias"), "lacks blocks.0.norm1.bias; fetch"),
        (
            {key.replace("blocks.1.", "blocks.2."): value for key, value in mae().items()},
            "has blocks.2, but not blocks.1; fetch",
        ),
        (
            {**mae(), "blocks.1.mlp.fc1.weight": torch.zeros(4 * DIM, 25)},
            "blocks.1.mlp.fc1.weight has the shape (96, 25), but a plain block that is 24 wide has (96, 24)",
        ),
        (
            {**mae(), **layer("blocks.0.mlp.fc1", 8 * DIM, DIM)},  # a gated MLP
            "blocks.0.mlp.fc2.weight has the shape (24, 96), but a plain block that is 24 wide has (24, 192)",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_with_its_cause(state: State, words: str) -> None:
    with pytest.raises(InputError) as error:
        convert(state, "weights.pth")
    assert words in str(error.value) and str(error.value).startswith("weights.pth")


def test_features_of_a_deit3_of_timm() -> None:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": DIM, "depth": DEPTH, "num_heads": 2}
    model = timm.create_model("deit3_small_patch16_224", num_classes=3, **sizes).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    encoder = image_encoder(convert(model.state_dict(), "file").state)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model.forward_features(x), rtol=1e-4, atol=1e-4)


def test_positions_of_no_image_are_refused_with_the_file() -> None:
    with pytest.raises(
        InputError, match=r"^weights\.pth: pos_embed has 183 rows, which is not a class token"
    ):
        image_encoder({**mae(), "pos_embed": torch.zeros(1, 183, DIM)}, source="weights.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_head_beside_the_encoder_is_found_below_any_prefix(prefix: str) -> None:
    config = transformers.VideoMAEConfig(**SIZES, image_size=16, patch_size=8, num_frames=4, num_labels=3)
    state = randomized(transformers.VideoMAEForVideoClassification(config)).state_dict()
    converted = convert(renamed(state, prefix), "file")
    assert torch.equal(converted.state["head.weight"], state["classifier.weight"])
    assert torch.equal(converted.state["fc_norm.bias"], state["fc_norm.bias"])
    assert converted.report["prefix"] == f"{prefix}videomae. (removed)" and "left out" not in converted.report


def test_what_an_auxiliary_lacks_is_said_with_what_it_has_instead() -> None:
    state = {key.replace("attn.qkv", "attn.in_proj"): value for key, value in mae().items()}
    with pytest.raises(InputError, match=r"lacks blocks\.0\.attn\.qkv.*; it has blocks\.0\.attn\.in_proj"):
        convert(state, "file", blocks_only=True)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_fsdp_wrapped_module._orig_mod"])
@pytest.mark.parametrize("make", [mae, videomae, pointmae])
def test_wrappers_of_single_blocks_are_removed(make: Callable[[], State], wrapper: str) -> None:
    given = make()
    wrapped = {re.sub(r"(blocks\.\d\.)", rf"\1{wrapper}.", key): value for key, value in given.items()}
    assert wrapped.keys() != given.keys()
    expected, converted = convert(given, "file"), convert(renamed(wrapped, "module."), "file")
    assert converted.report["wrappers"] == "between the numbers of blocks and their layers (removed)"
    assert "wrappers" not in expected.report
    assert converted.state.keys() == expected.state.keys()
    assert all(torch.equal(value, expected.state[key]) for key, value in converted.state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_computed_with_in_float32(dtype: torch.dtype) -> None:
    scales = {f"blocks.{number}.ls1.gamma": torch.rand(DIM) for number in range(DEPTH)}
    half = {key: value.to(dtype) for key, value in {**mae(), **scales}.items()}
    converted = convert(half, "file")
    assert converted.report["made"].startswith(
        f"float32 of {str(dtype)[6:]} in {len(half)} tensors; layer sc"
    )
    expected = half["blocks.0.ls1.gamma"].float()[:, None] * half["blocks.0.attn.proj.weight"].float()
    torch.testing.assert_close(converted.state["blocks.0.attn.proj.weight"], expected, rtol=1e-6, atol=0)
    assert {value.dtype for value in converted.state.values()} == {torch.float32}


def test_a_scale_without_axes_is_one_number() -> None:
    given = {**mae(), "blocks.0.attn.qkv.aux_weight": torch.ones(3 * DIM, DIM)}
    converted = convert({**given, "blocks.0.attn.qkv.cross_modal_scale": torch.tensor(0.5)}, "file")
    expected = given["blocks.0.attn.qkv.weight"] + 0.5
    torch.testing.assert_close(converted.state["blocks.0.attn.qkv.weight"], expected)


def test_pathways_are_kept_only_of_a_file_that_has_some() -> None:
    with pytest.raises(InputError, match="has no pathways to keep; leave out --keep-pathways"):
        convert(mae(), "weights.pth", keep_pathways=True)


def test_an_auxiliary_of_another_width_is_refused_because_of_its_width() -> None:
    state = convert(blocks(dim=12), "file", blocks_only=True).state
    with pytest.raises(InputError, match="the encoder is 12 wide with 2 blocks, the model is 24 wide"):
        image_encoder(state, parts=("blocks",))
