"""Optimizers and parallel models from before `attach`: they warn or refuse."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_vit import images, train, vit
from torch import distributed as dist
from torch import nn
from torch.distributed._composable import replicate
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from m2pt.pathway import PathwayError, attach, detach, is_pathway, load_pathways, save_pathways


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_parallel_model_from_before_would_not_average_the_pathways() -> None:
    model, x = vit(), images()
    before = DistributedDataParallel(model)
    before(x)
    attach(model, {"audio": vit(seed=1)}, scale_init=0.3)
    with pytest.raises(PathwayError, match=r"built before attach\(\).*wrap the model again"):
        before(x)
    with torch.no_grad():
        assert torch.equal(before(x), model(x))
    after = DistributedDataParallel(model)
    torch.testing.assert_close(after(x), model(x))
    attach(model, {"video": vit(seed=2)}, layers=["mlp.fc1"])
    with pytest.raises(PathwayError, match=r"built before attach\(\)"):
        after(x)
    detach(model, "video")
    after(x).sum().backward()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_pathway(name))
    torch.testing.assert_close(before(x), model(x))


@pytest.mark.usefixtures("one_process")
def test_a_model_that_was_replicated_before_is_refused_once_it_has_run() -> None:
    model, x = replicate(vit()), images()
    attach(model, {"audio": vit(seed=1)}, scale_init=0.3)
    model(x).sum().backward()  # replicates what it finds in the first forward
    state = copy.deepcopy(model.state_dict())
    around = DistributedDataParallel(model)
    with pytest.raises(PathwayError, match=r"as inside replicate\(\), has weights of the target.*then"):
        attach(model, {"video": vit(seed=2)})
    assert model.state_dict().keys() == state.keys()
    assert not around._forward_pre_hooks, "what was refused is not watched"
    model(x).sum().backward()


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore:.*FSDP|.*FullyShardedDataParallel", "ignore:.*NO_SHARD")
@pytest.mark.parametrize("part", ["", "module", "module.blocks"])
@pytest.mark.parametrize("use_orig_params", [False, True])
def test_a_model_in_a_flat_parameter_is_refused(part: str, use_orig_params: bool, tmp_path: Path) -> None:
    save_pathways(attach(vit(), {"audio": vit(seed=1)}), tmp_path / "file.pt")
    device = torch.device("cpu")
    model = FullyShardedDataParallel(vit(), use_orig_params=use_orig_params, device_id=device)
    keys = list(model.state_dict())
    for act in (
        lambda: attach(model.get_submodule(part), {"audio": vit(seed=1)}),
        lambda: load_pathways(model.get_submodule(part), tmp_path / "file.pt"),
    ):
        with pytest.raises(PathwayError, match=r"FullyShardedDataParallel keeps.*use fully_shard"):
            act()
    assert list(model.state_dict()) == keys


def test_an_optimizer_that_has_the_weight_from_before_it_was_untied_warns() -> None:
    model = vit()
    model.again = nn.Linear(96, 24)
    model.again.weight = model.blocks[0].mlp.fc2.weight
    early = torch.optim.SGD(model.parameters(), 0.1)
    attach(model, vit(seed=1), layers=["mlp.fc2"], untie=True, scale_trainable=False, matrix_trainable=False)
    with pytest.warns(UserWarning, match=r"built before attach\(\)"):
        train(model, early, range(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, torch.optim.SGD(model.parameters(), 0.1), range(1))
