"""Weights that other parameters share: refused, or untied."""

import copy

import pytest
import torch
from small_vit import vit
from torch import nn

from m2pt.pathway import PathwayError, attach, merge, merge_state_dict


class Tied(nn.Module):
    """A language model in little: the last layer has the matrix of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(x))


def test_a_weight_shared_with_another_module_is_refused_or_untied() -> None:
    model, other, x = Tied(), Tied(), torch.arange(6)
    embedded = model.embedding(x)
    with pytest.raises(
        PathwayError, match=r"'head' of target block 0 is also 'embedding.weight'.*untie=True"
    ):
        attach(model, other, layers=["head"])
    assert type(model.head) is nn.Linear and model.head.weight is model.embedding.weight
    attach(model, other, layers=["head"], scale_init=0.5, untie=True)
    expected = model(x)
    merge(model)
    torch.testing.assert_close(model(x), expected)
    assert torch.equal(model.embedding(x), embedded)


def test_merging_refuses_a_weight_that_was_shared_out_of_sight_of_attach() -> None:
    model, other, x = Tied(), Tied(), torch.arange(6)
    attach([model.head], [other.head], layers=[""], scale_init=0.5)
    expected, state = model(x), copy.deepcopy(model.state_dict())
    with pytest.raises(PathwayError, match=r"'head.weight' is also 'embedding.weight'"):
        merge(model)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    torch.testing.assert_close(merge(model, untie=True)(x), expected)


@pytest.mark.parametrize(
    ("of_one", "of_other", "overlap"),
    [
        (slice(0, 96), slice(8, 104), True),
        (slice(8, 104), slice(0, 96), True),
        (slice(0, 96), slice(96, 192), False),
    ],
)
def test_weights_that_overlap_in_one_memory_are_shared_too(
    of_one: slice, of_other: slice, overlap: bool
) -> None:
    model, memory = vit(), torch.randn(192, 24)
    model.blocks[0].mlp.fc1.weight.data = memory[of_one]
    model.table = nn.Embedding(96, 24)
    model.table.weight.data = memory[of_other]
    before = model.table.weight.detach().clone()
    if overlap:
        with pytest.raises(PathwayError, match=r"'mlp.fc1' of target block 0 is also 'table.weight', or sha"):
            attach(model, vit(seed=1))
    attach(model, vit(seed=1), scale_init=0.3, untie=overlap)
    merge(model)
    assert torch.equal(model.table.weight, before)


@pytest.mark.parametrize("columns", [slice(0, 24), slice(23, 47), slice(24, 48)])
def test_columns_of_one_memory_overlap_where_they_have_elements_in_common(columns: slice) -> None:
    model, memory = vit(), torch.randn(96, 48)
    model.blocks[0].mlp.fc1.weight.data = memory[:, :24]
    model.register_buffer("table", memory[:, columns])
    before = model.table.clone()
    if columns.start < 24:
        with pytest.raises(PathwayError, match=r"'mlp.fc1' of target block 0 is also 'table', or shares"):
            attach(model, vit(seed=1))
    else:
        merge(attach(model, vit(seed=1), scale_init=0.3))
        assert torch.equal(model.table, before)


def test_buffers_without_memory_of_their_own_do_not_matter() -> None:
    model = vit()
    model.register_buffer("graph", torch.eye(4).to_sparse())
    model.register_buffer("nothing", torch.empty(0, 24))
    merge(attach(model, vit(seed=1), scale_init=0.3))
    merge_state_dict(attach(model, vit(seed=1)).state_dict())


def test_an_expanded_weight_is_refused_and_its_copy_is_not() -> None:
    model = vit()
    layer = model.blocks[0].mlp.fc1
    layer.weight = nn.Parameter(torch.randn(1, 24).expand(96, 24))
    with pytest.raises(PathwayError, match=r"the weight of 'mlp.fc1' of target block 0 is expanded"):
        attach(model, vit(seed=1))
    layer.weight = nn.Parameter(layer.weight.detach().contiguous())
    merge(attach(model, vit(seed=1), scale_init=0.3))


def test_weights_in_the_same_memory_are_shared_too() -> None:
    model = vit()
    model.table = nn.Embedding(96, 24)
    model.blocks[0].mlp.fc1.weight.data = model.table.weight.data
    with pytest.raises(PathwayError, match=r"'mlp.fc1' of target block 0 is also 'table.weight'.*untie=True"):
        attach(model, vit(seed=1))
    before = model.table.weight.detach().clone()
    merge(attach(model, vit(seed=1), scale_init=0.3, untie=True))
    assert torch.equal(model.table.weight, before)


def test_a_frozen_weight_is_untied_frozen() -> None:
    for attach_it, merge_it in (({"untie": True}, {}), ({}, {"untie": True})):
        model, other = Tied(), Tied()
        model.embedding.weight.requires_grad_(False)
        target = model if attach_it else [model.head]
        attach(
            target, other if attach_it else [other.head], layers=["head" if attach_it else ""], **attach_it
        )
        merge(model, **merge_it)
        assert model.head.weight is not model.embedding.weight and not model.head.weight.requires_grad
