"""Files of every dialect: mapped to the same weights, or refused with the cause."""

import re
from collections.abc import Callable, Mapping

import pytest
import torch
from published_checkpoints import (
    BACKBONE,
    DEPTH,
    DIM,
    State,
    audiomae_decoder,
    blocks,
    finetuned,
    finetuned_pointmae,
    image_encoder,
    layer,
    mae,
    mae_decoder,
    pointmae,
    renamed,
    video_encoder,
    videomae,
)
from small_vit import vit
from torch import Tensor, nn

from m2pt.checkpoints.conversion import convert
from m2pt.errors import InputError
from m2pt.models.exchange import join_average, load_exchange
from m2pt.models.transformer import build_encoder, build_tokenizer, tokenizer_class
from m2pt.pathway import attach, effective_weight


def without(state: Mapping[str, Tensor], key: str) -> State:
    return {each: value for each, value in state.items() if each != key}


WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "encoder.", "net.")


@pytest.mark.parametrize("prefix", ["", *WRAPPERS])
@pytest.mark.parametrize(
    ("make", "dialect"),
    [
        (mae, "MAE or timm's ViT"),
        (finetuned, "MAE or timm's ViT"),
        (lambda: {**mae(), **mae_decoder()}, "MAE (pretraining)"),
        (lambda: {**mae(), **audiomae_decoder()}, "AudioMAE (pretraining)"),
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
    video_encoder(converted)


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
    assert merged.report["dialect"] == "M2PT (with pathways)"
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
    state = convert({**matrices, "reg_token": torch.zeros(1)}, "file", blocks_only=True).state
    encoder = image_encoder(state, parts=("blocks",))
    for key, value in matrices.items():
        assert torch.equal(encoder.state_dict()[key], value)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({**mae(), "reg_token": torch.zeros(1)}, "has no reg_token; the model has register tokens"),
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
        ({**mae(), "surprise": torch.zeros(1)}, "looks like MAE or timm's ViT, which has no surprise"),
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
            {**mae(), "blocks.0.mlp.fc1.weight.absmax": torch.zeros(1)},
            "blocks.0.mlp.fc1.weight.absmax shows that it is quantized; save the weights dequantized",
        ),
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


def test_positions_of_no_image_are_refused_with_the_file() -> None:
    with pytest.raises(
        InputError, match=r"^weights\.pth: pos_embed has 183 rows, which is not a class token"
    ):
        image_encoder({**mae(), "pos_embed": torch.zeros(1, 183, DIM)}, source="weights.pth")


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
