"""A sum that `merge(keep_terms=True)` keeps: it moves with the model, and is refused once it is stale."""

import copy
from collections.abc import Iterator

import pytest
import torch
from small_vit import images, vit
from torch import nn

from m2pt.pathway import PathwayError, attach, merge, unmerge


def merged(scale: float = 0.3) -> nn.Module:
    return merge(attach(vit().eval(), vit(seed=1), scale_init=scale), keep_terms=True)


def test_parameters_that_are_given_other_memory_are_noticed() -> None:
    model, other = merged(), unmerge(merged(scale=0.9))
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(other.parameters()), model.parameters())
    with torch.no_grad():
        with pytest.raises(PathwayError, match=r"changed after merge.*unmerge"):
            model(images())
        assert torch.equal(unmerge(model)(images()), other(images()))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_the_step_of_a_fused_optimizer_is_noticed(kind: type[torch.optim.Optimizer]) -> None:
    model = attach(vit().eval(), vit(seed=1), scale_init=0.3)
    optimizer = kind(model.parameters(), lr=0.1, fused=True)
    model(images()).sum().backward()
    before = merge(model, keep_terms=True).blocks[0].mlp.fc1.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.blocks[0].mlp.fc1.weight, before)
    with torch.no_grad():
        for use in (model, lambda _: copy.deepcopy(model)):
            with pytest.raises(PathwayError, match=r"changed after merge.*unmerge"):
                use(images())
        expected = unmerge(model)(images())
        torch.testing.assert_close(merge(model)(images()), expected)


@pytest.fixture(params=[False, True], ids=["as usual", "by swapping"])
def converts_by_swapping(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(request.param)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("converts_by_swapping")
def test_a_merged_model_is_moved_and_cast() -> None:
    model = merged()
    with torch.no_grad():
        expected = model(images())
        model.double()
        torch.testing.assert_close(model(images().double()), expected.double(), rtol=1e-5, atol=1e-6)
        unmerge(model)
        torch.testing.assert_close(model(images().double()), expected.double(), rtol=1e-5, atol=1e-6)


def test_what_was_written_before_a_cast_is_noticed_after_it() -> None:
    model = merged()
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight.mul_(2)
        model.double()
        with pytest.raises(PathwayError, match=r"changed after merge.*unmerge"):
            model(images().double())
