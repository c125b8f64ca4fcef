"""What "all-linear" takes of a block, and what it says that it leaves out."""

import warnings

import pytest
import torch
from torch import nn

from m2pt.pathway import attach, scales


class Experts(nn.Module):
    """Experts in stacked matrices, beside a router; a vector for each head is no stack of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.proj = nn.Linear(4, 4)
        self.up = nn.Parameter(torch.randn(3, 4, 4))
        self.logit_scale = nn.Parameter(torch.ones(3, 1, 1))
        self.position = nn.Parameter(torch.ones(1, 5, 4))
        self.conv = nn.Conv1d(4, 4, 3)


def test_all_linear_says_that_it_leaves_out_stacked_experts() -> None:
    model, other = (nn.ModuleList([Experts(), Experts()]) for _ in range(2))
    with pytest.warns(UserWarning) as caught:
        attach(model, other)
    assert [str(each.message) for each in caught] == [
        "'all-linear' leaves out the stacked or recurrent matrices 'up' of target block 0; to attach 'up' "
        "too, name the layers=['router', 'proj', 'up']"
    ]
    assert len(scales(model)) == 4
    model = nn.ModuleList([Experts(), Experts()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(model, other, layers=["router", "proj", "up"])
    assert len(scales(model)) == 6


@pytest.mark.parametrize(
    ("layer", "names", "hint"),
    [
        (nn.GRU, "'rnn.weight_ih_l0', 'rnn.weight_hh_l0'", ""),
        (
            nn.GRUCell,
            "'rnn.weight_ih', 'rnn.weight_hh'",
            "; to attach 'rnn.weight_ih', 'rnn.weight_hh' too, name the "
            "layers=['up', 'rnn.weight_ih', 'rnn.weight_hh']",
        ),
    ],
)
def test_all_linear_says_that_it_leaves_out_recurrent_layers(
    layer: type[nn.Module], names: str, hint: str
) -> None:
    model, other = (nn.ModuleDict({"up": nn.Linear(4, 4), "rnn": layer(4, 4)}) for _ in range(2))
    with pytest.warns(UserWarning) as caught:
        attach([model], [other])
    assert [str(each.message) for each in caught] == [
        f"'all-linear' leaves out the stacked or recurrent matrices {names} of target block 0{hint}"
    ]


def test_a_norm_of_two_dimensions_is_no_linear_layer() -> None:
    def blocks() -> nn.Module:
        parts = {"norm": lambda: nn.LayerNorm([3, 4]), "up": lambda: nn.Linear(4, 4)}
        return nn.ModuleList(nn.ModuleDict({name: make() for name, make in parts.items()}) for _ in range(2))

    assert list(scales(attach(blocks(), blocks()))) == [f"{i}.up.pathways.auxiliary.scale" for i in range(2)]
