"""What must not go wrong silently: writes, wrong layers, early optimizers."""

import copy
import warnings

import pytest
import torch
from model_families import build, inputs, output
from small_vit import images, train, vit
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from m2pt.pathway import PathwayError, attach, effective_weight, merge, scales


@pytest.mark.parametrize("kind", ["full_backward_hook", "full_backward_pre_hook"])
def test_a_hook_of_the_backward_reads_and_writes_the_weight(kind: str) -> None:
    model = vit()
    attach(model, vit(seed=1), scale_init=0.3)
    layer = model.blocks[0].mlp.fc1

    def clear(module: nn.Module, *_: object) -> None:
        module.weight.data.zero_()

    getattr(layer, f"register_{kind}")(clear)
    model(images()).sum().backward()
    assert not layer.weight.any()


def test_a_forward_that_torch_fx_would_freeze_is_an_error() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.fc.weight)

    blocks = nn.Sequential(Block(), Block())
    attach(blocks, nn.Sequential(Block(), Block()), scale_init=0.3)
    with pytest.raises(PathwayError, match=r"torch.fx would keep 'weight' of AttachedLinear as a constant"):
        torch.fx.symbolic_trace(blocks)
    plain = (nn.Sequential(nn.Linear(4, 4)) for _ in range(2))
    traced = torch.fx.symbolic_trace(attach(*([each] for each in plain), ["0"])[0])
    assert [name for name, _ in traced.named_parameters() if "pathways" in name]  # a layer is called as it is
    with pytest.raises(PathwayError, match=r"is a GraphModule of torch\.fx"):
        attach(
            [torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4)))], [nn.Sequential(nn.Linear(4, 4))], ["0"]
        )


WRITES = {
    "data.copy_": lambda layer, value: layer.weight.data.copy_(value),
    "data =": lambda layer, value: setattr(layer.weight, "data", value.clone()),
    "data +=": lambda layer, value: layer.weight.data.add_(value - layer.weight.data),
    "copy_": lambda layer, value: layer.weight.copy_(value),
    "init": lambda layer, value: nn.init.zeros_(layer.weight).add_(value),
    "new parameter": lambda layer, value: setattr(layer, "weight", nn.Parameter(value.clone())),
    "load": lambda layer, value: layer.load_state_dict({"weight": value}, strict=False),
}


@pytest.mark.filterwarnings("ignore:.*what only one of them has")
@pytest.mark.parametrize("write", WRITES)
def test_a_write_reaches_the_weight(write: str) -> None:
    model, x = vit(), images()
    attach(model, vit(seed=1), scale_init=0.3)
    layer = model.blocks[0].mlp.fc1
    value = torch.randn_like(layer.weight)
    with torch.no_grad():
        WRITES[write](layer, value)
        torch.testing.assert_close(dict(model.named_parameters())["blocks.0.mlp.fc1.weight"].data, value)
        matrix = layer.pathways["auxiliary"].weight
        torch.testing.assert_close(effective_weight(layer), value + 0.3 * matrix)
        attached = model(x)
        torch.testing.assert_close(merge(model)(x), attached)


def test_reset_parameters_and_apply_reach_the_weight() -> None:
    model = vit()
    attach(model, vit(seed=1), scale_init=0.3)
    before = model.blocks[0].mlp.fc1.weight.detach().clone()
    model.blocks[0].mlp.fc1.reset_parameters()
    assert not torch.equal(model.blocks[0].mlp.fc1.weight, before)
    model.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Linear) else None)
    assert torch.equal(model.blocks[1].attn.qkv.weight, torch.ones(72, 24))


@pytest.mark.parametrize("forward", ["layer", "block", "model"])
def test_a_forward_of_any_depth_uses_the_effective_weight(forward: str) -> None:
    model = vit()
    attach(model, vit(seed=1), scale_init=0.3)
    merged = merge(copy.deepcopy(model))
    part = {"layer": "blocks.0.attn.qkv", "block": "blocks.0", "model": ""}[forward]
    x = images() if forward == "model" else torch.randn(2, 5, 24)
    torch.testing.assert_close(model.get_submodule(part)(x), merged.get_submodule(part)(x))


def test_gpt2_onto_linear_is_transposed() -> None:
    gpt2, timm_vit = build("transformers GPT-2", 0), build("timm ViT", 1)
    expected = timm_vit.blocks[1].attn.proj.weight + 0.5 * gpt2.h[1].attn.c_proj.weight.T  # square
    attach(timm_vit, gpt2, scale_init=0.5)
    torch.testing.assert_close(effective_weight(timm_vit.blocks[1].attn.proj), expected)

    gpt2, timm_vit = build("transformers GPT-2", 0), build("timm ViT", 1)
    expected = gpt2.h[2].mlp.c_fc.weight + 0.5 * timm_vit.blocks[2].mlp.fc1.weight.T
    given = inputs("transformers GPT-2")
    attach(gpt2, timm_vit, scale_init=0.5)
    torch.testing.assert_close(effective_weight(gpt2.h[2].mlp.c_fc), expected)
    attached = output(gpt2, given)
    torch.testing.assert_close(output(merge(gpt2), given), attached)


@pytest.mark.parametrize(
    ("layers", "paths"),
    [
        ("mlp.fc1", {"mlp.fc1"}),
        (r"mlp\..*", {"mlp.fc1", "mlp.fc2"}),
        ("all-linear", {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}),
        (["attn.proj"], {"attn.proj"}),
    ],
)
def test_layers_by_pattern_or_name(layers: object, paths: set[str]) -> None:
    model = vit()
    attach(model, vit(seed=1), layers=layers)
    assert set(scales(model)) == {
        f"blocks.{i}.{path}.pathways.auxiliary.scale" for i in range(2) for path in paths
    }


@pytest.mark.parametrize("layers", ["fc9", "(", ""])
def test_a_pattern_that_matches_nothing_names_the_layers(layers: str) -> None:
    with pytest.raises(PathwayError, match="layers="):
        attach(vit(), vit(seed=1), layers=layers)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    model, auxiliary = vit(), vit(seed=1)
    with torch.no_grad():
        auxiliary.blocks[1].mlp.fc2.weight[0, 0] = value
    with pytest.raises(PathwayError, match=r"'mlp.fc2' of target block 1 that are not finite"):
        attach(model, auxiliary)
    with pytest.raises(PathwayError, match="must be a finite number"):
        attach(model, vit(seed=1), scale_init=value)
    assert not any("pathways" in name for name in model.state_dict())


def test_an_optimizer_built_before_warns_once() -> None:
    model = vit()
    early = torch.optim.SGD(model.parameters(), 0.1)
    attach(model, vit(seed=1))
    with pytest.warns(UserWarning, match=r"built before attach\(\)"):
        train(model, early, range(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, early, range(1))
        train(model, torch.optim.SGD(model.parameters(), 0.1), range(1))


def test_an_optimizer_built_before_several_attachments_warns_once_and_steps() -> None:
    model = vit()
    early = torch.optim.SGD(model.parameters(), 0.1)
    early.register_step_pre_hook(lambda *given: None)
    attach(model, {"audio": vit(seed=1)})
    attach(model, {"video": vit(seed=2)})
    before = model.blocks[0].mlp.fc1.weight.detach().clone()
    with pytest.warns(UserWarning, match=r"built before attach\(\)") as caught:
        train(model, early, range(2))
    assert len(caught) == 1 and not torch.equal(model.blocks[0].mlp.fc1.weight, before)
    attach(model, {"text": vit(seed=3)})
    with pytest.warns(UserWarning, match=r"built before attach\(\)"):
        train(model, early, range(1))


def test_an_optimizer_that_was_given_the_pathways_does_not_warn() -> None:
    model = vit()
    early = torch.optim.SGD(model.parameters(), 0.1)
    attach(model, vit(seed=1))
    early.add_param_group({"params": [p for name, p in model.named_parameters() if ".pathways." in name]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, early, range(1))


def parametrized(model: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(model.blocks[1].mlp.fc2)


def pruned(model: nn.Module) -> None:
    prune.l1_unstructured(model.blocks[1].mlp.fc2, "weight", 0.5)


def spectral(model: nn.Module) -> None:
    nn.utils.spectral_norm(model.blocks[1].mlp.fc2)


def quantized(model: nn.Module, dtype: torch.dtype = torch.int8) -> None:
    layer = model.blocks[1].mlp.fc2
    layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)


def float8(model: nn.Module) -> None:
    quantized(model, torch.float8_e4m3fn)


class Special(torch.Tensor):
    """A tensor subclass, as quantization libraries have them."""


def subclassed(model: nn.Module) -> None:
    layer = model.blocks[1].mlp.fc2
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Special))


def lazy(model: nn.Module) -> None:
    model.blocks[1].mlp.fc2 = nn.LazyLinear(24)


def scripted(model: nn.Module) -> None:
    model.blocks[1].mlp.fc2 = torch.jit.script(model.blocks[1].mlp.fc2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "change", [parametrized, pruned, spectral, quantized, float8, subclassed, lazy, scripted]
)
def test_a_layer_that_cannot_have_pathways_leaves_the_model_as_it_was(change) -> None:
    model = vit()
    change(model)
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(PathwayError, match=r"'mlp.fc2'"):
        attach(model, vit(seed=1), layers=["attn.qkv", "mlp.fc1", "mlp.fc2"])
    assert list(model.state_dict()) == keys and [type(module) for module in model.modules()] == classes


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("change", [parametrized, pruned, spectral, lazy])
def test_all_linear_never_leaves_out_a_layer_that_both_models_have(change) -> None:
    model, other = vit(), vit(seed=1)
    change(model)
    change(other)
    with pytest.raises(PathwayError, match=r"'mlp.fc2' of target block 1 .* that is a parameter"):
        attach(model, other)
    attach(model, other, layers=["attn.qkv", "mlp.fc1"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("change", [parametrized, pruned, spectral])
def test_changing_the_weight_into_something_else_afterwards_is_an_error(change) -> None:
    model = vit()
    attach(model, vit(seed=1))
    with pytest.raises(PathwayError, match=r"merge first"):
        change(model)
        model(images())


def test_attention_of_torch_is_reached_in_its_fast_path_too() -> None:
    family = "torch TransformerEncoder"
    model, given = build(family, 0), inputs(family)
    attach(model, build(family, 1), scale_init=0.3)
    assert "layers.0.self_attn.pathways.auxiliary.in_proj_weight" in model.state_dict()
    slow = output(model, given)
    with torch.inference_mode():
        torch.testing.assert_close(output(model, given), slow, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output(merge(model), given), slow, rtol=1e-4, atol=1e-5)


def test_checkpointed_blocks_have_the_same_gradients() -> None:
    model = vit()
    attach(model, vit(seed=1), scale_init=0.3)
    model(images()).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.set_grad_checkpointing(True)
    model(images()).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def patched_layer(model: nn.Module) -> None:
    model.blocks[1].mlp.fc2.forward = model.blocks[1].mlp.fc2.forward


def patched_module_between(model: nn.Module) -> None:
    model.blocks[1].mlp.forward = lambda x: x


def patched_block(model: nn.Module) -> None:
    model.blocks[1].forward = torch.compile(model.blocks[1].forward, backend="eager")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (patched_layer, r"'mlp.fc2' of target block 1 \(Linear\)"),
        (patched_module_between, r"'mlp' of target block 1 \(Mlp\)"),
        (patched_block, r"target block 1 \(Block\)"),
    ],
)
def test_a_forward_of_one_module_alone_is_refused_before_attach_and_kept_after_it(change, name: str) -> None:
    model = vit()
    change(model)
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(PathwayError, match=rf"{name} has a forward of its own.*attach first"):
        attach(model, vit(seed=1), scale_init=0.5)
    assert list(model.state_dict()) == keys and [type(module) for module in model.modules()] == classes
    if change is not patched_module_between:  # it computes something else
        model = vit()
        attach(model, vit(seed=1), scale_init=0.5)
        expected = model(images())
        change(model)
        torch.testing.assert_close(model(images()), expected)


@pytest.mark.parametrize("part", ["weight", "scale"])
def test_a_matrix_or_scale_that_is_no_longer_a_parameter_is_an_error(part: str) -> None:
    model = vit()
    attach(model, {"a": vit(seed=1)}, scale_init=0.5)
    prune.l1_unstructured(model.blocks[1].mlp.fc2.pathways["a"], part, 0.5)
    for use in (lambda: model(images()), lambda: merge(model)):
        with pytest.raises(PathwayError, match=rf"'{part}' of a pathway is no longer a parameter"):
            use()


class Fixed(nn.Module):
    """A module whose class cannot be changed, since a subclass needs a word more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def __init_subclass__(cls, **words: object) -> None:
        if not words:
            raise TypeError("a word is missing")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_module_above_a_layer_that_cannot_change_its_class_leaves_the_model_as_it_was() -> None:
    model, other = (nn.ModuleDict({"body": nn.ModuleDict({"fixed": Fixed()})}) for _ in range(2))
    classes = [type(module) for module in model.modules()]
    with pytest.raises(PathwayError, match=r"'body.fixed' \(Fixed\), which is around .*: a word is missing"):
        attach(model, other, layers=["body.fixed.inner"])
    assert [type(module) for module in model.modules()] == classes and not scales(model)


def test_values_that_overflow_the_dtype_of_the_target_are_refused() -> None:
    model, auxiliary = vit().half(), vit(seed=1)
    with torch.no_grad():
        auxiliary.blocks[1].mlp.fc2.weight[0, 0] = 1e6
    with pytest.raises(
        PathwayError, match=r"'mlp.fc2' of target block 1 that are not finite in torch.float16"
    ):
        attach(model, auxiliary)
