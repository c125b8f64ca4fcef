"""A file of pathways is attached without the auxiliary; states with other pathways are not ignored."""

import warnings
from pathlib import Path

import peft
import pytest
import torch
import transformers as hf
from model_families import build, inputs, output
from safetensors.torch import load_file
from small_vit import images, train, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, load_pathways, merge, merge_state_dict, save_pathways, scales
from m2pt.pathway.names import is_pathway, is_scale


def test_a_trained_model_comes_back_to_the_same_bits(tmp_path: Path) -> None:
    model = vit()
    attach(model, {"audio": vit(seed=1)}, scale_groups={"attn.qkv": 6})
    attach(model, {"video": vit(seed=2)}, layers=["mlp.fc1"], scale_init=0.2, scale_trainable=False)
    train(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1), range(3))
    save_pathways(model, tmp_path / "pathways.pt")
    plain = {name: value for name, value in model.state_dict().items() if not is_pathway(name)}

    loaded = vit(seed=5)
    loaded.load_state_dict(plain)
    load_pathways(loaded, tmp_path / "pathways.pt")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(loaded(images()), model(images()))
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in loaded.named_parameters()} == trained
    assert [path.name for path in tmp_path.iterdir()] == ["pathways.pt"]


@pytest.mark.parametrize("family", ["torchvision ViT", "transformers GPT-2"])
def test_parameters_of_attention_and_transposed_layers(family: str, tmp_path: Path) -> None:
    model, given = build(family, 0), inputs(family)
    attach(model, build(family, 1), scale_init=0.2)
    save_pathways(model, tmp_path / "file")
    again = build(family, 0)
    load_pathways(again, tmp_path / "file")
    assert torch.equal(output(again, given), output(model, given))


def test_what_is_trained_of_a_pathway_is_kept(tmp_path: Path) -> None:
    model = vit()
    attach(model, {"audio": vit(seed=1)})
    layer = model.blocks[0].mlp.fc1.pathways["audio"]
    layer.weight.requires_grad_(False)
    model.blocks[1].mlp.fc1.pathways["audio"].scale.requires_grad_(False)
    save_pathways(model, tmp_path / "file")
    again = vit()
    load_pathways(again, tmp_path / "file")
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in again.named_parameters()} == trained
    assert list(trained.values()).count(False) == 2

    content = torch.load(tmp_path / "file", weights_only=True)
    del content["layers"]["blocks.0.mlp.fc1"]["weight"]["audio"]["matrix_trainable"]  # as files were before
    torch.save(content, tmp_path / "file")
    again = vit()
    load_pathways(again, tmp_path / "file")
    assert again.blocks[0].mlp.fc1.pathways["audio"].weight.requires_grad


def test_the_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    model = vit()
    attach(model, vit(seed=1))
    (tmp_path / "other").touch()
    save_pathways(model, tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]


class Wrapper(nn.Module):
    """Stands for DistributedDataParallel."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def compiled_blocks(model: nn.Module) -> nn.Module:
    for i, block in enumerate(model.blocks):
        model.blocks[i] = torch.compile(block, backend="eager")
    return model


WRAPPERS = {
    "none": lambda model: model,
    "data parallel": Wrapper,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "both": lambda model: torch.compile(Wrapper(model), backend="eager"),
    "blocks": compiled_blocks,
}


@pytest.mark.parametrize("to", WRAPPERS)
@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_a_file_of_a_wrapper_fits_the_model_and_other_wrappers(wrapped: str, to: str, tmp_path: Path) -> None:
    model, again = vit(), vit()
    attach(model, {"audio": vit(seed=1)}, scale_init=0.3)
    save_pathways(WRAPPERS[wrapped](model), tmp_path / "file")
    load_pathways(WRAPPERS[to](again), tmp_path / "file")
    assert len(scales(again)) == 8
    assert [*again.state_dict().values()][-1].shape == [*model.state_dict().values()][-1].shape


def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pathways.pt"
    with pytest.raises(PathwayError, match="no pathways to save"):
        save_pathways(vit(), path)
    with pytest.raises(PathwayError, match=r"torch's format, so name it pathways.pt"):
        save_pathways(vit(), path.with_suffix(".safetensors"))
    model = vit()
    attach(model, {"audio": vit(seed=1)})
    save_pathways(model, path)
    with pytest.raises(FileNotFoundError, match=f"the folder {tmp_path / 'none'} for file.pt does not exist"):
        save_pathways(model, tmp_path / "none/file.pt")
    with pytest.raises(PathwayError, match=r"'blocks.0.attn.qkv' already has a pathway named 'audio'"):
        load_pathways(model, path)
    for other, message in (
        (vit(depth=1), r"no layer 'blocks.1.attn.qkv'"),
        (vit(dim=12), r"'blocks.0.attn.qkv' has a weight of shape \(36, 12\)"),
    ):
        keys = list(other.state_dict())
        with pytest.raises(PathwayError, match=message):
            load_pathways(other, path)
        assert list(other.state_dict()) == keys
    matrix, scale = torch.ones(72, 24), torch.ones(1)
    saved = {"matrix": matrix, "scale": scale, "scale_trainable": True}
    for content in (
        {"model": 1},
        {"format": "m2pt pathways 1"},
        {"format": "m2pt pathways 1", "layers": [1]},
        *(
            {"format": "m2pt pathways 1", "layers": {"blocks.0.attn.qkv": {"weight": {"audio": entry}}}}
            for entry in (
                {},
                {**saved, "scale": torch.ones(5)},
                {**saved, "scale": 1.0},
                {**saved, "more": 1},
                {**saved, "of": 5},
                {**saved, "of": ["torch.float32", "x"]},
            )
        ),
    ):
        torch.save(content, path)
        with pytest.raises(PathwayError, match="is no file of save_pathways"):
            load_pathways(vit(), path)
    path.write_bytes(b"damaged")
    with pytest.raises(PathwayError, match="is no file of save_pathways"):
        load_pathways(vit(), path)
    with pytest.raises(FileNotFoundError):
        load_pathways(vit(), tmp_path / "none")


def test_the_suffix_of_a_file_does_not_matter_when_it_is_read(tmp_path: Path) -> None:
    model, again = vit(), vit()
    attach(model, {"audio": vit(seed=1)}, scale_init=0.3)
    save_pathways(model, tmp_path / "file.pt")
    (tmp_path / "file.pt").rename(tmp_path / "file.safetensors")
    assert load_pathways(again, tmp_path / "file.safetensors") is again
    assert torch.equal(again(images()), model(images()))


def test_other_weights_than_those_that_the_pathways_were_trained_beside_warn(tmp_path: Path) -> None:
    model, own = vit(), vit()
    attach(model, {"audio": vit(seed=1)})
    save_pathways(model, tmp_path / "file.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pathways(vit(), tmp_path / "file.pt")
        load_pathways(vit(seed=3).double(), tmp_path / "file.pt")  # in another dtype nothing can be said
    with torch.no_grad():
        own.blocks[1].mlp.fc2.weight[0, 0] += 1e-6
    with pytest.warns(UserWarning, match=r"file.pt was saved beside other weights W in 1 of 8 matrices"):
        load_pathways(own, tmp_path / "file.pt")


def test_a_scale_that_was_kept_in_a_wider_dtype_keeps_it_beside_narrower_weights(tmp_path: Path) -> None:
    model = attach(vit().bfloat16(), {"audio": vit(seed=1)}, scale_init=0.3)
    for name, parameter in model.named_parameters():
        if is_scale(name):
            parameter.data = parameter.data.float() + 1e-5
    save_pathways(model, tmp_path / "kept.pt")
    for to in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        loaded = load_pathways(vit().to(to), tmp_path / "kept.pt")
        assert scales(loaded) == scales(model)
        for name, parameter in loaded.named_parameters():
            kept = is_scale(name) and to.itemsize < 4
            assert parameter.dtype == (torch.float32 if kept else to)
        assert merge(loaded).state_dict().keys() == vit().state_dict().keys()

    save_pathways(attach(vit(), {"audio": vit(seed=1)}, scale_init=0.3), tmp_path / "wide.pt")
    loaded = load_pathways(vit().bfloat16(), tmp_path / "wide.pt")  # one dtype, as fully_shard needs it
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_a_matrix_that_is_transposed_in_the_model_is_refused(tmp_path: Path) -> None:
    square = {"vocab_size": 50, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_inner": 16, "bos_token_id": 1}
    model, other = (hf.GPT2Model(hf.GPT2Config(**square, eos_token_id=2)) for _ in range(2))
    attach(model, other, layers=["attn.c_proj"])
    save_pathways(model, tmp_path / "file.pt")
    code = hf.GPTBigCodeModel(hf.GPTBigCodeConfig(**square, eos_token_id=2, pad_token_id=0))
    with pytest.raises(PathwayError, match=r"of 'h.0.attn.c_proj' is transposed.*than Linear"):
        load_pathways(code, tmp_path / "file.pt")


def test_a_shared_weight_is_untied_on_request(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = vit()
        model.again = nn.Linear(96, 24)
        model.again.weight = model.blocks[0].mlp.fc2.weight
        return model

    model, path = attach(tied(), {"audio": vit(seed=1)}, scale_init=0.3, untie=True), tmp_path / "file.pt"
    save_pathways(model, path)
    with pytest.raises(PathwayError, match="untie=True"):
        load_pathways(tied(), path)
    assert torch.equal(load_pathways(tied(), path, untie=True)(images()), model(images()))


def test_pathways_of_a_plain_model_fit_one_that_peft_has_wrapped_and_back(tmp_path: Path) -> None:
    plain, path = vit(), tmp_path / "file.pt"
    attach(plain, {"audio": vit(seed=1)}, scale_init=0.3)
    save_pathways(plain, path)
    lora = peft.LoraConfig(target_modules=["qkv"])
    wrapped = load_pathways(peft.get_peft_model(vit(), lora), path)
    assert torch.equal(wrapped(images()), plain(images()))  # LoRA starts at 0
    save_pathways(wrapped, path)
    assert torch.equal(load_pathways(vit(), path)(images()), plain(images()))


def test_loading_a_state_without_the_pathways_warns_once_for_each_load() -> None:
    model = vit()
    attach(model, {"audio": vit(seed=1)}, scale_init=0.3)
    for _ in range(2):
        with pytest.warns(UserWarning) as caught:
            model.load_state_dict(vit(seed=3).state_dict(), strict=False)
        (warning,) = (str(each.message) for each in caught)
        assert warning.startswith("'blocks.0.attn.qkv' has the pathways 'audio', the state none: ")
    other = vit()
    attach(other, {"video": vit(seed=1)})
    with pytest.warns(UserWarning, match=r"has the pathways 'audio', the state 'video'"):
        model.load_state_dict(other.state_dict(), strict=False)
    with pytest.raises(RuntimeError, match=r"pathways.audio.scale"):
        model.load_state_dict(vit(seed=3).state_dict())


def test_from_pretrained_of_an_attached_model_says_what_it_leaves_out(tmp_path: Path, caplog) -> None:
    import transformers

    model = build("transformers ViT", 0)
    attach(model, build("transformers ViT", 1), scale_init=0.2)
    model.save_pretrained(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).architectures == ["ViTModel"]
    transformers.utils.logging.enable_propagation()
    plain, report = transformers.ViTModel.from_pretrained(tmp_path, output_loading_info=True)
    transformers.utils.logging.disable_propagation()
    assert any("pathways" in name for name in report["unexpected_keys"])
    assert "pathways" in caplog.text
    assert torch.equal(plain.layers[0].mlp.fc1.weight, model.layers[0].mlp.fc1.weight)


def mixtral(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    return hf.MixtralModel(
        hf.MixtralConfig(vocab_size=9, num_key_value_heads=2, num_local_experts=3, **sizes)
    ).eval()


def test_stacked_experts_are_merged_from_a_file_and_from_a_state_that_has_them(tmp_path: Path) -> None:
    model, layers = mixtral(0), ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    attach(model, {"audio": mixtral(1)}, layers, scale_init=0.3)
    words = torch.arange(6)[None]
    expected = model(words)[0]
    save_pathways(model, tmp_path / "audio.pt")
    with pytest.raises(PathwayError, match=r"'layers' is a mapping.*load_pathways\(\) and merge\(\) the"):
        merge_state_dict(torch.load(tmp_path / "audio.pt"))
    model.save_pretrained(tmp_path)
    split = load_file(tmp_path / "model.safetensors")
    with pytest.raises(PathwayError, match=r"no '.*experts.*proj'.*split it.*merge\(\) the model before it"):
        merge_state_dict(split)

    loaded = merge(load_pathways(mixtral(0), tmp_path / "audio.pt"))
    torch.testing.assert_close(loaded(words)[0], expected)
    again = mixtral(2)
    again.load_state_dict(merge_state_dict(model.state_dict()))
    torch.testing.assert_close(again(words)[0], expected)
    loaded.save_pretrained(tmp_path)
    torch.testing.assert_close(hf.MixtralModel.from_pretrained(tmp_path).eval()(words)[0], expected)
