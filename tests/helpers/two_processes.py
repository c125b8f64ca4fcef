"""Two gloo processes, forked from one that has imported torch and timm once for all tests."""

import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch.multiprocessing import start_processes

IMPORTED = [
    "pytest",
    "small_vit",
    "m2pt.pathway",
    "torch._dynamo",  # every optimizer imports it
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
]
"""What the processes need not import again; they are forked before any of it computes."""


def in_two_processes(work: Callable[..., Any], folder: Path, *given: object) -> list[Any]:
    """Return what `work(rank, *given)` returns in each process; raise what it raises."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    start_processes(_one_rank, (work, str(folder), given), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _one_rank(rank: int, work: Callable[..., Any], folder: str, given: tuple[object, ...]) -> None:
    gc.freeze()  # not what is imported, but what the test makes is searched for garbage and by `attach`
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(work(rank, *given), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
