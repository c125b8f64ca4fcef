"""Two gloo processes with `fully_shard`, before and after `attach`: losses and weights of one process."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_vit import vit
from torch import distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from two_processes import in_two_processes

from m2pt.pathway import (
    PathwayError,
    attach,
    load_pathways,
    merge,
    save_pathways,
    scaled,
    scales,
    unmerge,
)

STEPS, BATCH = 4, 4
ATTACHED_BEFORE = {"attach first": ("audio", "point"), "shard between": ("audio",), "shard first": ()}
"""Auxiliaries that are attached before `fully_shard`, by the order; the others are attached after it."""


def batches() -> torch.Tensor:
    return torch.randn(STEPS, BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def trained(
    model: nn.Module, rows: slice, steps: range = range(STEPS)
) -> tuple[list[float], torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    return [step(model, optimizer, number, rows) for number in steps], optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int, rows: slice) -> float:
    loss = model(batches()[number, rows]).float().square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def attach_each(model: nn.Module, names: tuple[str, ...] = ("audio", "point")) -> None:
    for name in names:
        attach(model, {name: vit(seed={"audio": 1, "point": 2}[name])}, scale_init=0.1)


def sharded(order: str, **settings: object) -> nn.Module:
    model, before = vit(), ATTACHED_BEFORE[order]
    attach_each(model, before)
    for block in model.blocks:
        fully_shard(block, **settings)
    fully_shard(model, **settings)
    attach_each(model, tuple(name for name in ("audio", "point") if name not in before))
    return model


def whole(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    full = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()
    }
    return copy.deepcopy(full)  # of replicated values it is the tensor itself


def one_rank(rank: int, folder: str, order: str) -> dict[str, Any]:
    rows = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    model = sharded(order)
    losses, optimizer = trained(model, rows)
    result = {"losses": losses, "state": whole(model.state_dict()), "scales": scales(model)}

    state, optimizer_state = get_state_dict(model, optimizer)
    checkpoint.save({"model": state, "optimizer": optimizer_state}, checkpoint_id=f"{folder}/checkpoint")
    save_pathways(model, f"{folder}/pathways.pt")
    again = sharded(order)
    _, other = trained(again, rows, range(1))
    state, optimizer_state = get_state_dict(again, other)
    checkpoint.load({"model": state, "optimizer": optimizer_state}, checkpoint_id=f"{folder}/checkpoint")
    set_state_dict(again, other, model_state_dict=state, optim_state_dict=optimizer_state)
    result["next"] = [step(each, opt, 0, rows) for each, opt in ((model, optimizer), (again, other))]

    with torch.no_grad():
        attached = model(batches()[0])
        merge(model)
        result["merged difference"] = float((model(batches()[0]) - attached).abs().max())
    result["merged keys"] = list(model.state_dict())
    return result


@pytest.mark.parametrize("order", ATTACHED_BEFORE)
def test_sharded_training_equals_that_of_one_process(order: str, tmp_path: Path) -> None:
    results = in_two_processes(one_rank, tmp_path, str(tmp_path), order)
    model = vit()
    keys = list(model.state_dict())
    attach_each(model)
    losses, _ = trained(model, slice(None))
    for number, loss in enumerate(losses):
        mean = sum(result["losses"][number] for result in results) / 2
        assert mean == pytest.approx(loss, rel=1e-4)
    assert losses[-1] != pytest.approx(losses[0], rel=1e-2)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(results[0]["state"][name], value, rtol=1e-3, atol=1e-4)
    assert results[0]["scales"] == pytest.approx(scales(model), abs=1e-4)
    for result in results:
        assert result["next"][0] == result["next"][1], "a checkpoint continues to the same bits"
        assert result["merged difference"] < 1e-5 and result["merged keys"] == keys
    loaded = vit()
    loaded.load_state_dict({name: results[0]["state"][name] for name in keys})
    load_pathways(loaded, tmp_path / "pathways.pt")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in results[0]["state"].items())


def one_rank_in_bf16(rank: int, order: str) -> dict[str, Any]:
    model = sharded(order, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    losses, _ = trained(model, slice(rank * BATCH // 2, (rank + 1) * BATCH // 2))
    return {"losses": losses, "state": whole(model.state_dict())}


@pytest.mark.parametrize("order", ["attach first", "shard first"])
def test_mixed_precision_trains_w_a_and_the_scale_in_float32(order: str, tmp_path: Path) -> None:
    results = in_two_processes(one_rank_in_bf16, tmp_path, order)
    model = vit()
    attach_each(model)
    before = copy.deepcopy(model.state_dict())
    losses, _ = trained(model, slice(None))
    for number, loss in enumerate(losses):
        assert sum(result["losses"][number] for result in results) / 2 == pytest.approx(loss, rel=0.05)
    for name in ("weight", "pathways.audio.weight", "pathways.audio.scale"):
        value = results[0]["state"][f"blocks.0.mlp.fc1.{name}"]
        assert value.dtype == torch.float32 and not torch.equal(value, before[f"blocks.0.mlp.fc1.{name}"])


def sharded_as_a_whole(order: str) -> nn.Module:
    """Return a model of one group of parameters, which stay gathered after a forward without gradients."""
    model = vit().eval()
    if order == "attach first":
        attach_each(model)
    fully_shard(model)
    with torch.no_grad():
        model(batches()[0])
    if order == "shard first":
        attach_each(model)
        with torch.no_grad():
            model(batches()[0])
    return model


def sharded_below_a_scope(folder: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield models whose first forward is in a block, or was marked by loading, when FSDP begins."""
    model = vit().eval()
    attach_each(model)
    save_pathways(model, f"{folder}/pathways")
    dist.barrier()
    for block in model.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            fully_shard(layer)
    yield "layers", model
    model = vit().eval()
    load_pathways(model, f"{folder}/pathways")
    assert type(model) is type(vit()), "what leads to no block is not marked"
    for block in model.blocks:
        fully_shard(block)
    yield "loaded", model


def one_rank_of_one_group(rank: int, folder: str, order: str) -> dict[str, torch.Tensor]:
    x, outputs = batches()[0], {}
    with torch.no_grad():
        for part in ("model", "blocks"):
            model = sharded_as_a_whole(order)
            parts = [model] if part == "model" else list(model.blocks)
            for each in parts:
                with scaled(each, 0):
                    outputs[f"{part}: without"] = model(x)
                outputs[f"{part}: as before"] = model(x)
            for each in parts:
                merge(each)
            outputs[f"{part}: merged"] = model(x)
            outputs[f"{part}: merged again"] = model(x)
            copied = vit().eval()
            copied.load_state_dict(whole(model.state_dict()))
            outputs[f"{part}: merged state"] = copied(x)
        for name, model in sharded_below_a_scope(folder) if order == "attach first" else ():
            outputs[f"{name}: first forward"] = model(x)
            outputs[f"{name}: second forward"] = model(x)
        model = sharded_as_a_whole(order)
        merge(model, keep_terms=True)
        outputs["model: merged with its terms"] = model(x)
        outputs["model: unmerged"] = unmerge(model)(x)
    return outputs


@pytest.mark.parametrize("order", ["attach first", "shard first"])
def test_gathered_weights_are_not_taken_for_the_model_s_own(order: str, tmp_path: Path) -> None:
    results = in_two_processes(one_rank_of_one_group, tmp_path, str(tmp_path), order)
    model, x = vit().eval(), batches()[0]
    plain = model(x)
    attach_each(model)
    expected = model(x)
    for outputs in results:
        for name, output in outputs.items():
            truth = plain if name == "model: without" else expected
            if name != "blocks: without":  # of the last block only
                torch.testing.assert_close(
                    output, truth.detach(), msg=lambda text, name=name: f"{name}: {text}"
                )


def one_rank_with_a_value_that_is_not_finite(rank: int) -> None:
    model, auxiliary = sharded("shard first"), vit(seed=3)
    keys = list(model.state_dict())
    with torch.no_grad():
        auxiliary.blocks[1].mlp.fc2.weight[-1, -1] = float("nan")  # in the shard of the second process
    with pytest.raises(PathwayError, match=r"'mlp.fc2' of target block 1 that are not finite"):
        attach(model, {"video": auxiliary})
    assert list(model.state_dict()) == keys


def test_every_process_refuses_values_that_are_not_finite_in_one_shard(tmp_path: Path) -> None:
    in_two_processes(one_rank_with_a_value_that_is_not_finite, tmp_path)


def one_rank_compiled(rank: int) -> list[float]:
    model = torch.compile(sharded("shard first"), backend="aot_eager")
    losses, _ = trained(model, slice(rank * BATCH // 2, (rank + 1) * BATCH // 2), range(2))
    return losses


def test_a_model_that_was_sharded_before_is_compiled(tmp_path: Path) -> None:
    results = in_two_processes(one_rank_compiled, tmp_path)
    model = vit()
    attach_each(model)
    losses, _ = trained(model, slice(None), range(2))
    for number, loss in enumerate(losses):
        mean = sum(result[number] for result in results) / 2
        assert mean == pytest.approx(loss, rel=1e-4)
