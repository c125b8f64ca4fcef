"""Blocks that are compiled one by one are found, named and saved as the blocks inside."""

from pathlib import Path

import pytest
import torch
from small_vit import images, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, disabled, load_pathways, merge, parameter_groups, save_pathways


def compiled_blocks(model: nn.Module) -> nn.Module:
    """Compile every block, and a module and a layer in each."""
    for i, block in enumerate(model.blocks):
        block.mlp = torch.compile(block.mlp, backend="eager")
        block.attn.proj = torch.compile(block.attn.proj, backend="eager")
        model.blocks[i] = torch.compile(block, backend="eager")
    return model


@pytest.mark.parametrize("layers", ["all-linear", r"attn\..*|mlp\..*", ["attn.proj", "mlp.fc1"]])
def test_layers_of_compiled_blocks_have_the_same_paths(layers: object) -> None:
    model, compiled, x = vit().eval(), compiled_blocks(vit().eval()), images()
    compiled(x)  # what is compiled before attach() is compiled anew
    attach(model, vit(seed=1), layers=layers, scale_init=0.3)
    attach(compiled, compiled_blocks(vit(seed=1)), layers=layers, scale_init=0.3)
    assert [name.replace("_orig_mod.", "") for name in compiled.state_dict()] == list(model.state_dict())
    torch.testing.assert_close(compiled(x), model(x))
    torch.testing.assert_close(merge(compiled)(x), merge(model)(x))


@pytest.mark.parametrize("of_compiled", [False, True])
def test_a_file_does_not_say_what_was_compiled(of_compiled: bool, tmp_path: Path) -> None:
    made = [
        attach(model, {"audio": vit(seed=1)}, scale_init=0.3)
        for model in (vit().eval(), compiled_blocks(vit().eval()))
    ]
    for model, name in zip(made, ("plain", "compiled"), strict=True):
        save_pathways(model, tmp_path / name)
    files = [torch.load(tmp_path / name) for name in ("plain", "compiled")]
    assert [list(file["layers"]) for file in files] == [list(files[0]["layers"])] * 2
    assert [file["blocks"] for file in files] == [["blocks.0", "blocks.1"]] * 2
    loaded = load_pathways(
        vit().eval() if of_compiled else compiled_blocks(vit().eval()),
        tmp_path / ("plain", "compiled")[of_compiled],
    )
    torch.testing.assert_close(loaded(images()), made[0](images()))


def test_messages_name_paths_without_what_compiling_adds() -> None:
    model = attach(compiled_blocks(vit()), {"audio": vit(seed=1)})

    def shared() -> None:
        model.blocks[0].mlp.fc1.weight = model.blocks[1].mlp.fc1.weight
        merge(model)

    def inside_disabled() -> None:
        with disabled(model):
            merge(model)

    for act, message in (
        (lambda: attach(model, {"audio": vit(seed=1)}), r"^'attn.qkv' of target block 0 already"),
        (lambda: attach(model, {"other": vit(seed=1)}, ["norm"]), r"block 0 \(Block\).*kernel: 'attn.qkv'"),
        (inside_disabled, "^'audio' of 'blocks.0.attn.qkv' is switched off"),
        (shared, "'blocks.0.mlp.fc1.weight' is also 'blocks.1.mlp.fc1.weight'"),
    ):
        with pytest.raises(PathwayError, match=message):
            act()


def test_what_a_model_does_not_decay_is_not_decayed_in_its_compiled_blocks() -> None:
    model = vit()
    model.no_weight_decay = lambda: {"blocks.0.mlp.fc1.weight"}
    kept = model.blocks[0].mlp.fc1.weight
    for groups in (parameter_groups(model, 0.1), parameter_groups(compiled_blocks(model), 0.1)):
        assert any(
            each is kept for group in groups if group["name"] == "undecayed" for each in group["params"]
        )
