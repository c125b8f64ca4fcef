"""Cross-Modal Re-parameterization against the explicit two-branch form of the paper's eq. 7-8."""

import copy
import io
import pickle
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from m2pt.pathway import PathwayError, attach, is_scale, merge, merge_state_dict, scales

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def vit(depth: int = 2, dim: int = 24, seed: int = 0) -> timm.models.VisionTransformer:
    """A timm ViT of 32x32 images with 16 tokens, all of its matrices random."""
    torch.manual_seed(seed)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=dim, depth=depth, num_heads=2, num_classes=5, global_pool="avg"
    )


def images(batch: int = 3, seed: int = 9) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        F.cross_entropy(model(images(seed=step)), torch.tensor([0, 1, 2])).backward()
        optimizer.step()


def parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    return dict(layer.named_parameters())


# One plain layer, the input it takes, and the linear map it applies without its bias.
LAYER_CASES: dict[
    str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]
] = {
    "linear": (lambda: nn.Linear(5, 7), (2, 3, 5), lambda x, w: x @ w.T),
    "linear without bias": (lambda: nn.Linear(5, 7, bias=False), (4, 5), lambda x, w: x @ w.T),
    "conv1d": (lambda: nn.Conv1d(3, 4, 1), (2, 3, 6), lambda x, w: torch.einsum("bil,oik->bol", x, w)),
    "conv2d": (
        lambda: nn.Conv2d(2, 3, 4, stride=4, bias=False),
        (2, 2, 8, 8),
        lambda x, w: torch.einsum("bihywx,oiyx->bohw", x.unflatten(2, (2, 4)).unflatten(4, (2, 4)), w),
    ),
    "conv3d": (
        lambda: nn.Conv3d(2, 3, (2, 1, 1), stride=(2, 1, 1)),
        (1, 2, 4, 3, 3),
        lambda x, w: torch.einsum("bitzhw,oizyx->bothw", x.unflatten(2, (2, 2)), w),
    ),
}


@pytest.mark.parametrize("auxiliaries", [1, 2])
@pytest.mark.parametrize("case", LAYER_CASES)
def test_equals_the_two_branch_form_in_output_and_every_gradient(case: str, auxiliaries: int) -> None:
    make, shape, product = LAYER_CASES[case]
    torch.manual_seed(0)
    holder = nn.ModuleDict({"layer": make()}).double()
    others = {f"aux{i}": nn.ModuleDict({"layer": make()}).double() for i in range(auxiliaries)}
    w = holder["layer"].weight.detach().clone().requires_grad_()
    b = holder["layer"].bias
    a = [other["layer"].weight.detach().clone().requires_grad_() for other in others.values()]
    s = [torch.tensor([0.3 - 0.5 * i], dtype=torch.double, requires_grad=True) for i in range(auxiliaries)]
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)

    expected = product(x, w) + sum(s[i] * product(x, a[i]) for i in range(auxiliaries))
    if b is not None:
        bias = b.detach().clone().requires_grad_()
        expected = expected + bias.view(-1, *[1] * (len(shape) - 2)) if "conv" in case else expected + bias
    upstream = torch.randn_like(expected)
    wanted = [x, w, *a, *s] + ([bias] if b is not None else [])
    expected_gradients = torch.autograd.grad(expected, wanted, upstream)

    attach(holder, others, layers=("layer",))
    own = parameters(holder["layer"])
    with torch.no_grad():
        for i in range(auxiliaries):
            own[f"pathways.aux{i}.scale"].copy_(s[i])
    output = holder["layer"](x)
    names = [*(f"pathways.aux{i}.weight" for i in range(auxiliaries))]
    names += [f"pathways.aux{i}.scale" for i in range(auxiliaries)] + (["bias"] if b is not None else [])
    gradients = torch.autograd.grad(output, [x, own["weight"], *(own[name] for name in names)], upstream)

    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for gradient, truth in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-12, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    target, audio, video = (nn.ModuleDict({"fc": nn.Linear(3, 4)}).double() for _ in range(3))
    attach(target, {"audio": audio, "video": video}, layers=("fc",), scale_init=0.4)
    names = list(parameters(target))
    values = tuple(p.detach().clone().requires_grad_() for p in target.parameters())

    def output(x: Tensor, *tensors: Tensor) -> Tensor:
        state = dict(zip(names, tensors, strict=True))
        return torch.func.functional_call(
            target["fc"], {n.removeprefix("fc."): t for n, t in state.items()}, x
        )

    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(output, (x, *values))
    assert torch.autograd.gradgradcheck(output, (x, *values))


def test_scale_zero_leaves_the_output_and_moves_only_the_scale_first() -> None:
    model, auxiliary = vit(seed=0), vit(seed=1)
    before = model(images())
    attach(model.blocks, auxiliary.blocks)
    assert torch.equal(model(images()), before)
    model(images()).square().mean().backward()
    own = parameters(model.blocks[0].attn.qkv)
    assert torch.count_nonzero(own["pathways.auxiliary.weight"].grad) == 0
    assert torch.count_nonzero(own["pathways.auxiliary.scale"].grad) == 1
    assert torch.count_nonzero(own["weight"].grad) > 0


def test_names_shapes_and_number_of_parameters() -> None:
    model, auxiliary = vit(), vit(seed=1)
    plain = {name: p.shape for name, p in model.state_dict().items()}
    attach(model.blocks, {"audio": auxiliary.blocks})
    added = {name: p.shape for name, p in model.state_dict().items() if name not in plain}
    assert {name: p.shape for name, p in model.state_dict().items() if name in plain} == plain
    assert set(added) == {
        f"blocks.{i}.{layer}.pathways.audio.{part}"
        for i in range(2)
        for layer in LAYERS
        for part in ("weight", "scale")
    }
    assert all(shape == (1,) for name, shape in added.items() if name.endswith("scale"))
    assert added["blocks.0.attn.qkv.pathways.audio.weight"] == (72, 24)
    assert scales(model) == {
        f"blocks.{i}.{layer}.pathways.audio.scale": 0.0 for i in range(2) for layer in LAYERS
    }
    assert {name for name in model.state_dict() if is_scale(name)} == set(scales(model))
    assert not is_scale("blocks.0.ls1.scale") and not is_scale("logit_scale")


def test_layers_keep_their_class_and_the_auxiliary_is_only_copied() -> None:
    model, auxiliary = vit(), vit(seed=1)
    before = copy.deepcopy(auxiliary.state_dict())
    attach(model.blocks, auxiliary.blocks, scale_init=0.1)
    assert isinstance(model.blocks[0].mlp.fc1, nn.Linear)
    train(model, torch.optim.SGD(model.parameters(), 0.1), range(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in auxiliary.state_dict().items())
    own = parameters(model.blocks[0].mlp.fc1)["pathways.auxiliary.weight"]
    assert not torch.equal(own, before["blocks.0.mlp.fc1.weight"])


def test_fixed_scale_is_not_trained() -> None:
    model = vit()
    attach(model.blocks, vit(seed=1).blocks, scale_init=0.01, scale_trainable=False)
    assert not any(p.requires_grad for name, p in model.named_parameters() if is_scale(name))
    train(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1), range(2))
    assert set(scales(model).values()) == {torch.tensor(0.01).item()}


@pytest.mark.parametrize("order", ["normal", "reversed"])
def test_merge_restores_the_plain_model(order: str) -> None:
    model, image, video = vit(depth=3), vit(depth=3, seed=1), vit(depth=3, seed=2)
    keys, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    shapes = [tensor.shape for tensor in model.state_dict().values()]
    w = {name: tensor.double() for name, tensor in copy.deepcopy(model.state_dict()).items()}
    attach(model.blocks, {"image": image.blocks, "video": video.blocks}, order=order, scale_init=0.25)
    attached_output = model(images())
    state = merge_state_dict(model.state_dict())

    assert merge(model) is model
    assert list(model.state_dict()) == keys and list(state) == keys
    assert [tensor.shape for tensor in model.state_dict().values()] == shapes
    assert [type(module) for module in model.modules()] == classes
    torch.testing.assert_close(model(images()), attached_output)
    for i in range(3):
        j = i if order == "normal" else 2 - i
        for layer in LAYERS:
            own, other = f"blocks.{i}.{layer}.weight", f"blocks.{j}.{layer}.weight"
            expected = w[own] + 0.25 * (image.state_dict()[other] + video.state_dict()[other].double())
            torch.testing.assert_close(model.state_dict()[own].double(), expected, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_merge_in_float32_of_low_precision_weights() -> None:
    model, auxiliary = (nn.ModuleDict({"fc": nn.Linear(64, 64)}).bfloat16() for _ in range(2))
    w, a = model["fc"].weight.detach().float(), auxiliary["fc"].weight.detach().float()
    attach(model, auxiliary, layers=("fc",), scale_init=0.37)
    scale = scales(model)["fc.pathways.auxiliary.scale"]
    assert torch.equal(merge(model)["fc"].weight, (w + scale * a).bfloat16())


def test_merged_vit_base_is_timms_vit_base() -> None:
    def empty() -> nn.Module:
        with torch.device("meta"):
            return timm.create_model("vit_base_patch16_224", global_pool="avg", num_classes=10)

    model = empty().to_empty(device="cpu").eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    # Its own auxiliary: W + 0.5 W, so the truth is known without another 86 million numbers.
    before = model.blocks[11].mlp.fc2.weight[0].clone()
    attach(model.blocks, model.blocks, scale_init=0.5)
    assert sum(p.numel() for p in model.parameters() if p.shape == (1,)) == 48
    with torch.inference_mode():
        attached_output = model(torch.ones(1, 3, 224, 224))
        fresh = empty()
        fresh.load_state_dict(merge(model).state_dict(), strict=True, assign=True)
        torch.testing.assert_close(fresh.eval()(torch.ones(1, 3, 224, 224)), attached_output)
    torch.testing.assert_close(fresh.blocks[11].mlp.fc2.weight[0], 1.5 * before)


def test_deepcopy_and_pickle_are_independent_and_merging_one_leaves_the_other() -> None:
    model = vit()
    attach(model.blocks, vit(seed=1).blocks, scale_init=0.2)
    output = model(images())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images()), output)
        torch.testing.assert_close(merge(twin)(images()), output)
        with torch.no_grad():
            twin.blocks[0].attn.qkv.weight.zero_()
        assert torch.equal(model(images()), output)
    train(model, torch.optim.SGD(model.parameters(), 0.1), range(1))
    assert any(value != pytest.approx(0.2, abs=1e-9) for value in scales(model).values())


def test_state_dict_in_the_middle_of_training_continues_bit_for_bit() -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = vit()
        attach(model.blocks, {"audio": vit(seed=1).blocks})
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    model, optimizer = build()
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, range(3, 6))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, resumed_optimizer = build()
    resumed.load_state_dict(saved["model"], strict=True)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    train(resumed, resumed_optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))
    assert all(value != 0 for value in scales(model).values())


def test_autocast_rounds_the_sum_once_and_gives_float32_gradients() -> None:
    target, auxiliary = (nn.ModuleDict({"fc": nn.Linear(16, 8)}) for _ in range(2))
    w, a, b = (t.detach().clone() for t in (target["fc"].weight, auxiliary["fc"].weight, target["fc"].bias))
    attach(target, auxiliary, layers=("fc",), scale_init=0.01)
    x = torch.randn(32, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = target["fc"](x)
    rounded = (w + torch.tensor(0.01) * a).bfloat16()
    assert torch.equal(output, F.linear(x.bfloat16(), rounded, b.bfloat16()))

    upstream = torch.randn_like(output)
    output.backward(upstream)
    gradient = (upstream.mT @ x.bfloat16()).float()
    own = parameters(target["fc"])
    torch.testing.assert_close(own["weight"].grad, gradient)
    torch.testing.assert_close(own["pathways.auxiliary.weight"].grad, gradient * 0.01)
    torch.testing.assert_close(own["pathways.auxiliary.scale"].grad, (gradient * a).sum().reshape(1))


class FullSizeAllocations(TorchDispatchMode):
    """Names of the operations that made a new tensor of at least `size` elements."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        known = {
            t.untyped_storage().data_ptr() for t in [*args, *(kwargs or {}).values()] if isinstance(t, Tensor)
        }
        output = func(*args, **(kwargs or {}))
        is_new = isinstance(output, Tensor) and output.untyped_storage().data_ptr() not in known
        if is_new and output.numel() >= self.size:
            self.names.append(func.overloadpacket.__name__)
        return output


def test_one_effective_weight_forward_and_one_gradient_backward() -> None:
    target, auxiliary = (nn.ModuleDict({"fc": nn.Linear(64, 96)}) for _ in range(2))
    attach(target, auxiliary, layers=("fc",))
    x = torch.randn(4, 64)
    with FullSizeAllocations(64 * 96) as forward:
        output = target["fc"](x)
    assert forward.names == ["empty_like"]
    with FullSizeAllocations(64 * 96) as backward:
        output.backward(torch.ones_like(output))
    assert sorted(backward.names) == ["mm", "mul"]  # G, which is dW, and dA = λ G


def test_frozen_matrices_leave_one_gradient_and_keep_none() -> None:
    target, auxiliary = (nn.ModuleDict({"fc": nn.Linear(64, 96)}) for _ in range(2))
    attach(target, auxiliary, layers=("fc",))
    for name, parameter in target.named_parameters():
        parameter.requires_grad_(is_scale(name))
    x, a = torch.randn(4, 64), auxiliary["fc"].weight.detach()
    output = target["fc"](x)
    with FullSizeAllocations(64 * 96) as backward:
        output.backward(torch.ones_like(output))
    assert backward.names == ["mm"]
    assert [name for name, p in target.named_parameters() if p.grad is not None] == [
        "fc.pathways.auxiliary.scale"
    ]
    scale = parameters(target)["fc.pathways.auxiliary.scale"]
    torch.testing.assert_close(scale.grad, (x @ a.T).sum().reshape(1))


class WeightReader(nn.Module):
    """An attention in VideoMAE's manner: uses the layer's weight and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12, bias=False)
        self.q_bias = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight, self.q_bias)


class TransposedLinear(nn.Module):
    """Somebody's own layer: y = x W, in the manner of GPT-2's Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_attention_that_reads_the_weight_and_foreign_layer_classes() -> None:
    x = torch.randn(5, 4)
    reader, other = WeightReader(), WeightReader()
    w, a = reader.qkv.weight.detach().clone(), other.qkv.weight.detach().clone()
    attach([reader], [other], layers=("qkv",), scale_init=2.0)
    torch.testing.assert_close(reader(x), x @ w.T + 2 * (x @ a.T) + 1)
    reader(x).sum().backward()
    assert parameters(reader)["qkv.pathways.auxiliary.scale"].grad is not None

    own, other_own = nn.Sequential(TransposedLinear()), nn.Sequential(TransposedLinear())
    w, a = own[0].weight.detach().clone(), other_own[0].weight.detach().clone()
    attach([own], [other_own], layers=("0",), scale_init=2.0)
    torch.testing.assert_close(own(x), x @ w + 2 * (x @ a))
    assert type(merge(own)[0]) is TransposedLinear


def test_a_second_auxiliary_may_come_later_under_its_own_name() -> None:
    model, point, audio = vit(), vit(seed=1), vit(seed=2)
    w = model.blocks[1].mlp.fc1.weight.detach().clone()
    attach(model.blocks, {"point": point.blocks}, scale_init=0.5)
    attach(model.blocks, {"audio": audio.blocks}, layers=("mlp.fc1",), scale_init=0.1, order="reversed")
    expected = w + 0.5 * point.blocks[1].mlp.fc1.weight + 0.1 * audio.blocks[0].mlp.fc1.weight
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, expected)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        PathwayError, match=r"'attn.qkv' of target block 0 already has a pathway called 'point'"
    ):
        attach(model.blocks, {"point": audio.blocks})
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize(
    ("auxiliary", "arguments", "message"),
    [
        (lambda: vit(depth=3).blocks, {}, r"target has 2 blocks, the auxiliary 'auxiliary' has 3"),
        (
            lambda: vit(dim=12).blocks,
            {"order": "reversed"},
            r"'attn.qkv' of target block 0 has a weight of shape \(72, 24\), "
            r"'attn.qkv' of 'auxiliary' block 1 has one of shape \(36, 12\)",
        ),
        (lambda: {"audio": [nn.Identity()] * 2}, {}, r"no layer 'attn.qkv' of 'audio' block 0 \(Identity\)"),
        (lambda: vit().blocks, {"layers": ("mlp.fc9",)}, r"no layer 'mlp.fc9' of target block 0.*'mlp.fc2'"),
        (lambda: vit().blocks, {"layers": ("mlp.act",)}, r"no layer 'mlp.act' of target block 0"),
        (
            lambda: vit().blocks,
            {"layers": ("norm1",)},
            r"'norm1' of target block 0 \(LayerNorm\) has no weight matrix",
        ),
        (lambda: vit().blocks, {"layers": ("attn.qkv", "attn.qkv")}, r"named twice or shared"),
        (lambda: vit().blocks, {"layers": ()}, r"nothing to attach"),
        (
            lambda: vit().blocks,
            {"order": "backwards"},
            r"order is 'backwards'; it must be 'normal', 'reversed' or 'shuffled'",
        ),
        (lambda: {"key.dot": vit().blocks}, {}, r"an auxiliary cannot be called 'key.dot'"),
        (lambda: {"items": vit().blocks}, {}, r"an auxiliary cannot be called 'items'"),
    ],
)
def test_a_mismatch_is_named_and_changes_nothing(
    auxiliary: Callable[[], object], arguments: dict[str, object], message: str
) -> None:
    model = vit()
    keys, output = list(model.state_dict()), model(images())
    with pytest.raises(PathwayError, match=message):
        attach(model.blocks, auxiliary(), **arguments)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images()), output)


@pytest.mark.parametrize("depth", [2, 3, 4, 6, 12])
def test_shuffled_blocks_are_never_in_normal_order(depth: int) -> None:
    layers = [nn.Linear(1, 1, bias=False) for _ in range(2 * depth)]
    for number, layer in enumerate(layers):
        nn.init.constant_(layer.weight, number % depth)
    target, auxiliary = nn.ModuleList(layers[:depth]), nn.ModuleList(layers[depth:])
    attach(
        [nn.ModuleDict({"fc": layer}) for layer in target],
        [nn.ModuleDict({"fc": layer}) for layer in auxiliary],
        layers=["fc"],
        order="shuffled",
    )
    partners = [int(layer.pathways["auxiliary"].weight.item()) for layer in target]
    assert sorted(partners) == list(range(depth)) and partners != list(range(depth))
    drawn = random.Random(depth).sample(range(depth), depth)  # what finished results were made with
    assert partners == drawn or drawn == list(range(depth))


@pytest.mark.parametrize("part", ["pathways.audio.weight", "pathways.audio.scale", "weight"])
def test_merging_an_incomplete_state_dict_names_the_missing_key(part: str) -> None:
    model = vit()
    attach(model.blocks, {"audio": vit(seed=1).blocks})
    state = model.state_dict()
    del state[f"blocks.1.mlp.fc2.{part}"]
    with pytest.raises(PathwayError, match=rf"no 'blocks.1.mlp.fc2.{part}'"):
        merge_state_dict(state)


def test_merging_a_plain_model_changes_nothing() -> None:
    model = vit()
    state = copy.deepcopy(model.state_dict())
    for merged in (merge(model).state_dict(), merge_state_dict(model.state_dict())):
        assert list(merged) == list(state)
        assert all(torch.equal(tensor, state[name]) for name, tensor in merged.items())


def test_compiles_into_one_graph() -> None:
    model, auxiliary = (nn.ModuleDict({"fc": nn.Linear(6, 4)}) for _ in range(2))
    attach(model, auxiliary, layers=("fc",), scale_init=0.3)
    x = torch.randn(2, 6)
    compiled = torch.compile(model["fc"], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model["fc"](x))


def test_importing_the_pathway_takes_torch_alone() -> None:
    code = (
        "import sys, torch; had = set(sys.modules); import m2pt.pathway; print(sorted({*sys.modules} - had))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "['m2pt', 'm2pt.pathway']"
