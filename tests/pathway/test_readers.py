"""Adapters of peft over attached layers, and fusing with norms: exact, or an error that says what to do."""

import copy
from typing import Any

import peft
import pytest
import torch
from small_vit import images, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, merge

ON = {"target_modules": ["qkv", "fc1"]}

ADDING: dict[str, Any] = {
    "LoRA": lambda: peft.LoraConfig(**ON, r=2, init_lora_weights=False),
    "LoRA with biases": lambda: peft.LoraConfig(**ON, r=2, init_lora_weights=False, lora_bias=True),
    "PiSSA": lambda: peft.LoraConfig(**ON, r=2, init_lora_weights="pissa"),
    "AdaLoRA": lambda: peft.AdaLoraConfig(**ON, total_step=10),
    "C3A": lambda: peft.C3AConfig(**ON, block_size=12),
    "DeLoRA": lambda: peft.DeloraConfig(**ON, r=2),
    "FourierFT": lambda: peft.FourierFTConfig(**ON, n_frequency=20),
    "LoHa": lambda: peft.LoHaConfig(**ON, r=2),
    "LoKr": lambda: peft.LoKrConfig(**ON, r=2),
    "MiSS": lambda: peft.MissConfig(**ON, r=4),
    "RandLora": lambda: peft.RandLoraConfig(**ON, r=2),
    "SHiRA": lambda: peft.ShiraConfig(**ON, r=2),
    "VB-LoRA": lambda: peft.VBLoRAConfig(**ON, r=2, vector_length=12, num_vectors=4),
    "VeRA": lambda: peft.VeraConfig(**ON, r=2),
    "WaveFT": lambda: peft.WaveFTConfig(**ON, n_frequency=20),
}
DEPENDING: dict[str, Any] = {
    "DoRA": lambda: peft.LoraConfig(**ON, r=2, use_dora=True),
    "IA3": lambda: peft.IA3Config(**ON, feedforward_modules=["fc1"]),
    "OFT": lambda: peft.OFTConfig(**ON, oft_block_size=4, r=0),
    "BOFT": lambda: peft.BOFTConfig(**ON, boft_block_size=4),
    "DEFT": lambda: peft.DeftConfig(**ON, r=2),
    "FRoD": lambda: peft.FrodConfig(**ON),
    "HRA": lambda: peft.HRAConfig(**ON, r=2),
    "HiRA": lambda: peft.HiraConfig(**ON, r=2),
    "MiSS, bat": lambda: peft.MissConfig(**ON, r=4, init_weights="bat"),
    "RoAd": lambda: peft.RoadConfig(**ON, group_size=6),
}


def attached(scale: float = 0.5) -> nn.Module:
    return attach(vit(depth=1).eval(), {"audio": vit(depth=1, seed=1)}, scale_init=scale)


def trained(wrapped: nn.Module) -> nn.Module:
    """Move every parameter of the adapters, as training would."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and "pathways" not in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return wrapped.eval()


@pytest.mark.parametrize("kind", ADDING)
def test_adapters_that_add_to_w_are_merged_unmerged_and_switched_off(kind: str) -> None:
    model, x = attached(), images()
    wrapped = trained(peft.get_peft_model(model, ADDING[kind]()))
    before = wrapped(x)
    with wrapped.disable_adapter():
        without = wrapped(x)
    assert not torch.allclose(without, before)
    wrapped.merge_adapter()
    torch.testing.assert_close(wrapped(x), before)
    with wrapped.disable_adapter():  # they are taken out of W in the forward
        torch.testing.assert_close(wrapped(x), without)
    torch.testing.assert_close(wrapped(x), before)
    unloaded = wrapped.merge_and_unload()
    torch.testing.assert_close(unloaded(x), before)
    torch.testing.assert_close(merge(unloaded)(x), before)


@pytest.mark.filterwarnings("ignore:.*CUDA:UserWarning")
@pytest.mark.parametrize("kind", DEPENDING)
def test_adapters_that_depend_on_w_begin_at_the_sum_and_are_merged_after_it(kind: str) -> None:
    model, x = attached(), images()
    start = model(x)
    wrapped = peft.get_peft_model(model, DEPENDING[kind]()).eval()
    torch.testing.assert_close(wrapped(x), start)
    before = trained(wrapped)(x)
    assert not torch.allclose(before, start)
    for act in (wrapped.merge_and_unload, wrapped.merge_adapter):
        with pytest.raises(
            PathwayError, match=r"AttachedLinear\(in_features=24.*merge\(\) the pathways first"
        ):
            act()
        torch.testing.assert_close(wrapped(x), before)
    merge(wrapped)
    torch.testing.assert_close(wrapped(x), before)
    torch.testing.assert_close(wrapped.merge_and_unload()(x), before)


def test_lora_of_convolutions_is_merged_too() -> None:
    model, other = (nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3)}) for _ in range(2))
    attach(model, other, layers=["conv"], scale_init=0.5)
    assert type(type(model["conv"])(3, 2, 3)) is nn.Conv2d, "a new layer like it has no pathways"
    config = peft.LoraConfig(target_modules=["conv"], r=2, init_lora_weights=False)
    peft.inject_adapter_in_model(config, model)
    x = torch.randn(2, 3, 8, 8)
    before = model["conv"](x)
    model["conv"].merge()
    torch.testing.assert_close(model["conv"](x), before)


def test_dora_of_convolutions_begins_at_the_sum_too() -> None:
    model, other = (nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3)}) for _ in range(2))
    attach(model, other, layers=["conv"], scale_init=0.5)
    x = torch.randn(2, 3, 8, 8)
    before = model["conv"](x)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["conv"], r=2, use_dora=True), model)
    torch.testing.assert_close(model["conv"](x), before)
    with pytest.raises(
        PathwayError, match=r"peft's lora.Conv2d would change 'weight' of AttachedConv2d\(3, 4"
    ):
        model["conv"].merge()
    merge(model)
    model["conv"].merge()
    torch.testing.assert_close(model["conv"](x), before)


def test_an_adapter_is_not_merged_into_a_layer_that_would_not_see_it() -> None:
    wrapped, x = trained(peft.get_peft_model(attached(), ADDING["LoRA"]())), images()
    before = wrapped(x)
    merge(wrapped, keep_terms=True)
    with pytest.raises(PathwayError, match=r"keep_terms=True and would not see .* unmerge\(\) the model"):
        wrapped.merge_adapter()
    torch.testing.assert_close(merge(wrapped)(x), before)


@pytest.mark.parametrize(
    ("layer", "norm", "fuse"),
    [
        (lambda: nn.Conv2d(3, 4, 3), nn.BatchNorm2d, nn.utils.fuse_conv_bn_eval),
        (lambda: nn.Linear(3, 4), nn.BatchNorm1d, nn.utils.fuse_linear_bn_eval),
    ],
)
def test_a_layer_is_fused_with_a_norm_after_it_is_merged(layer: Any, norm: Any, fuse: Any) -> None:
    own, after = layer().eval(), norm(4).eval()
    after.running_var.fill_(4.0)
    attach([own], [layer()], [""], scale_init=0.5)
    x = torch.randn(2, 3, 8, 8) if isinstance(own, nn.Conv2d) else torch.randn(2, 3)
    before, state = after(own(x)), copy.deepcopy(own.state_dict())
    with pytest.raises(PathwayError, match=rf"{fuse.__name__} would multiply 'weight'.*merge\(\) the model"):
        fuse(own, after)
    assert all(torch.equal(own.state_dict()[name], value) for name, value in state.items())
    torch.testing.assert_close(fuse(merge(own), after)(x), before)
