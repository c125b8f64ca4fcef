"""Which modules depend on the mode, against outputs; and what a switch leaves behind."""

import pytest
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from m2pt.agm.modes import depends_on_mode, evaluation_mode, mixes_samples


class Noise(nn.Module):
    """A stranger's module that reads its mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class Wrapped(nn.Module):
    """Reads its mode in a method with a decorator."""

    @torch.no_grad()
    def scale(self) -> float:
        return 2.0 if self.training else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale() * x


class Plain(nn.Module):
    """Does not read it; it has a method of a similar name."""

    def train(self, mode: bool = True) -> "Plain":
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def layer(dropout: float) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, dropout), 2, enable_nested_tensor=False)


def spectral_norm() -> nn.Module:
    """A layer that takes a step towards its largest singular value in training, and is not there yet."""
    linear = nn.Linear(8, 8)
    with torch.no_grad():
        linear.weight.copy_(torch.linspace(1, 0.9, 8).diag())  # so close that fifteen steps do not part them
    return parametrizations.spectral_norm(linear)


class NoisyAttention(nn.MultiheadAttention):
    """A subclass that reads its mode, though torch's class has no dropout here."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        found = super().forward(query, key, value)[0]
        return found + torch.randn_like(found) if self.training else found


DEPENDENT = {
    "batch norm": nn.BatchNorm1d(8),
    "dropout": nn.Dropout(0.5),
    "transformer": layer(0.5),
    "attention": nn.MultiheadAttention(8, 2, dropout=0.5),
    "drop path": DropPath(0.5),
    "noise": Noise(),
    "decorated": Wrapped(),
    "random slope": nn.RReLU(0.1, 0.9),
    "spectral norm": spectral_norm(),
    "subclass of attention": NoisyAttention(8, 2),
    "block": Block(8, 2, proj_drop=0.5),
}
INDEPENDENT = {
    "linear": nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU()),
    "dropout": nn.Dropout(0.0),
    "transformer": layer(0.0),
    "drop path": DropPath(0.0),
    "block": Block(8, 2),
    "batch norm without statistics": nn.BatchNorm1d(8, track_running_stats=False),
    "plain": Plain(),
}


def output(module: nn.Module) -> Tensor:
    x = torch.linspace(-2, 1, 320).view(5, 8, 8)
    torch.manual_seed(1)
    found = module(x, x, x) if isinstance(module, nn.MultiheadAttention) else module(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", DEPENDENT)
def test_dependent_modules_are_found(name: str) -> None:
    module = DEPENDENT[name]
    with evaluation_mode(module):
        evaluated = output(module)
        assert not depends_on_mode(module.modules())
    assert depends_on_mode(module.modules())
    assert not torch.equal(output(module), evaluated)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_modules_give_the_same_output_in_both_modes(name: str) -> None:
    module = INDEPENDENT[name]
    assert not depends_on_mode(module.modules())
    with evaluation_mode(module):
        evaluated = output(module)
    torch.testing.assert_close(output(module), evaluated)


def test_hooks_and_a_replaced_forward_count_as_dependent() -> None:
    hooked, replaced = nn.Linear(2, 2), nn.Linear(2, 2)
    hooked.register_forward_hook(lambda *_: None)
    replaced.forward = lambda x: x  # type: ignore[method-assign]
    assert depends_on_mode([hooked]) and depends_on_mode([replaced])


def test_recurrent_layers_stay_in_training_mode_without_dropout() -> None:
    module = nn.LSTM(8, 8, 2, dropout=0.5)
    x = torch.randn(3, 2, 8)
    assert depends_on_mode([module]) and not depends_on_mode([nn.LSTM(8, 8)])
    module.eval()
    expected = module(x)[0]
    module.train()
    with evaluation_mode(module):
        assert module.training
        assert torch.equal(module(x)[0], expected)
    assert module.training and module.dropout == 0.5


class WeightDrop(nn.LSTM):
    """A recurrent layer with a dropout of its own, which reads its mode."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


def test_a_recurrent_layer_that_reads_its_mode_is_switched() -> None:
    module, x = WeightDrop(8, 8), torch.randn(3, 2, 8)
    assert depends_on_mode([module])
    with evaluation_mode(module):
        assert not module.training
        assert torch.equal(module(x)[0], module(x)[0])
    assert module.training


def test_every_submodule_returns_to_its_own_mode_even_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    with pytest.raises(RuntimeError, match="stop"), evaluation_mode(module):
        assert not any(each.training for each in module.modules())
        raise RuntimeError("stop")
    assert [each.training for each in module.modules()] == [True, True, False]


class Merging(nn.Module):
    """Merges weights for evaluation, as low-rank adapters do, and counts its switches."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.weight, self.merged = 1.0, False
        self.parts = nn.ModuleList(parts)

    def train(self, mode: bool = True) -> "Merging":
        if self.merged == mode:
            self.weight += -1.0 if mode else 1.0
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class Flagged(nn.Module):
    """Has a flag of its own instead of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.learns = True

    def train(self, mode: bool = True) -> "Flagged":
        self.learns = mode
        return self


def test_modules_that_switch_themselves_are_switched_and_return() -> None:
    frozen = Merging().eval()
    module = nn.Sequential(Merging(nn.Dropout(), Merging(), frozen), nn.Dropout().eval(), Flagged())
    frozen.eval()
    modes = [each.training for each in module.modules()]
    merging = [each for each in module.modules() if isinstance(each, Merging)]
    assert [each.weight for each in merging] == [1, 1, 2]
    with evaluation_mode(module):
        assert [each.weight for each in merging] == [2, 2, 2]
        assert not module[2].learns and not module[2].training
    assert [each.weight for each in merging] == [1, 1, 2] and module[2].learns
    assert [each.training for each in module.modules()] == modes


def test_a_part_that_its_parent_keeps_in_evaluation_stays_there() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def train(self, mode: bool = True) -> "Frozen":
            super().train(mode)
            self.norm.eval()
            return self

    module = nn.Sequential(Frozen()).train()
    with evaluation_mode(module):
        assert not any(each.training for each in module.modules())
    assert [each.training for each in module.modules()] == [True, True, False]


def test_recurrent_layers_in_a_part_that_switches_itself_stay_in_training_mode() -> None:
    module = Merging(nn.LSTM(8, 8, 2, dropout=0.5))
    with evaluation_mode(module):
        assert module.weight == 2 and module.parts[0].training and module.parts[0].dropout == 0
    assert module.weight == 1 and module.parts[0].dropout == 0.5


def test_batch_norm_without_statistics_mixes_samples() -> None:
    assert mixes_samples([nn.BatchNorm1d(2, track_running_stats=False)])
    assert not mixes_samples([nn.BatchNorm1d(2), nn.Linear(2, 2)])
