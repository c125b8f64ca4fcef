"""Sharding a training: each process keeps its share of weights, gradients and moments (`shard` of a recipe).

FSDP2 (`torch.distributed.fsdp.fully_shard`) trains a copy of the model. The model itself stays whole, on the
CPU, and takes the weights over where they are looked at or saved: files do not tell how they were made.
"""

import copy
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from m2pt.errors import InputError
from m2pt.pathway.sharding import distributed_as, is_distributed, whole


class Shards:
    """The sharded copy of a model.

    Args:
        model: whole, on the CPU and equal in all processes; it is not changed but by `gather`.
        accelerator: of the processes that share it.

    Attributes:
        trained: the copy, on the accelerator's device and in its precision. Its parameters are shards.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # which other trainings need not import

        self._model = model
        self.trained: nn.Module = accelerator.prepare_model(copy.deepcopy(model), evaluation_mode=True)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for block in _blocks(self.trained):
            fully_shard(block, mesh=mesh)
        fully_shard(self.trained, mesh=mesh)

    @torch.no_grad()
    def gather(self) -> None:
        """Give the model the weights and buffers of the copy; all processes call it."""
        own = self._model.state_dict()
        for name, value in self.trained.state_dict().items():
            own[name].copy_(whole(value))  # one at a time: together they may not fit on the device

    @torch.no_grad()
    def scatter(self) -> None:
        """Give the copy the weights and buffers of the model; all processes call it."""
        given = self._model.state_dict()
        for name, own in self.trained.state_dict().items():
            own.copy_(distributed_as(own, given[name]))

    def exchange_gradients(self, wanted: bool) -> None:
        """Say whether the next backward pass ends with the exchange of the gradients."""
        trained: Any = self.trained
        trained.set_requires_gradient_sync(wanted)


def check_shardable(precision: str, *, has_method: bool) -> None:
    """Check what the settings do not tell: the precision that "auto" became, and whether there is a method.

    Raises:
        InputError: the training needs whole weights or gradients in each process.
    """
    if precision == "fp16":
        raise InputError(
            "shard: not together with precision fp16, which auto is on this device; leave shard out, or set "
            "precision: no"
        )
    if has_method:
        raise InputError("shard: joint trainings are not sharded; leave it out")


def is_sharded(optimizer: Optimizer) -> bool:
    """Return whether the optimizer's parameters are shards."""
    return any(is_distributed(parameter) for group in optimizer.param_groups for parameter in group["params"])


def whole_state(optimizer: Optimizer, *, keep: bool) -> dict[str, Any]:
    """Return an optimizer's state dict with whole moments; of a sharded model all processes call it.

    Without `keep` the moments are left out: only the process that writes them needs the memory.
    """
    state = optimizer.state_dict()
    moments: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            gathered = whole(value).cpu() if is_distributed(value) else value
            if keep:
                moments.setdefault(number, {})[name] = gathered
    return {**state, "state": moments}


def sharded_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict of `whole_state` with each moment laid out as its parameter of the optimizer is.

    Raises:
        LookupError: it is of an optimizer with more parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {name: _as(parameters[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


def _as(parameter: nn.Parameter, value: Any) -> Any:
    is_moment = isinstance(value, Tensor) and value.shape == parameter.shape
    return distributed_as(parameter, value) if is_moment and is_distributed(parameter) else value


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of the model's transformers, each to be gathered by itself."""
    lists = [
        each
        for module in model.modules()
        if isinstance(each := getattr(module, "blocks", None), nn.ModuleList)
    ]
    return list(dict.fromkeys(block for each in lists for block in each))
