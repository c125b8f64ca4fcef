"""Device, precision and processes of a training."""

# Why Accelerate: in 0.1 s of import time (Lightning Fabric: 5 s) it reads torchrun's environment, wraps DDP,
# autocast and the gradient scaler, and leaves us the loop, which a bit-exact resume needs.
import torch
from accelerate import Accelerator
from torch import distributed

from m2pt.datasets.seeded import seed_generators
from m2pt.errors import InputError

STEP_STREAM = 1
"""Last word of a step's seed, so that it is no sample's: numpy pads (seed, epoch, index) with zeros."""


def launch(precision: str = "auto", device: str = "auto") -> Accelerator:
    """Take the device and, if `m2pt launch` or torchrun started this process, join the process group.

    The number of threads stays what it is: Accelerate would divide the machine's cores among the processes.

    Args:
        precision: as in `resolve`.
        device: as in `resolve`.

    Raises:
        InputError: as `resolve`.
    """
    device, precision = resolve(precision, device)
    threads = torch.get_num_threads()
    accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu")
    torch.set_num_threads(threads)
    return accelerator


def resolve(precision: str = "auto", device: str = "auto") -> tuple[str, str]:
    """Return the kind of device, "cpu" or "cuda", and the precision, "no", "bf16" or "fp16".

    Args:
        precision: "no", "bf16", "fp16", or "auto": bf16 or else fp16 on a CUDA device, and "no" elsewhere.
        device: "auto" (a CUDA device if there is one, else the CPU), "cpu" or "cuda".

    Raises:
        InputError: a device that is not there, or fp16 without a GPU.
    """
    cuda = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose auto, cpu or cuda")
    if device == "cuda" and not cuda:
        raise InputError("device is cuda, but torch sees no CUDA device: choose auto or cpu")
    gpu = cuda and device != "cpu"
    if precision == "fp16" and not gpu:
        raise InputError("precision is fp16, which needs a GPU: choose auto, bf16 or no")
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "no"
    return "cuda" if gpu else "cpu", precision


def rank_and_world() -> tuple[int, int]:
    """Number of this process, from 0, and of all in the group it has joined; (0, 1) if it has joined none."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def leave() -> None:
    """Leave the process group, if one was joined; from then on no process waits for another."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def seed_step(device: torch.device, seed: int, step: int, micro: int) -> None:
    """Seed Python, NumPy, torch and the device for forward pass `micro` of step `step`.

    Passes are numbered through all processes, so that what is drawn does not depend on who does which.
    """
    seed_generators(seed, step, micro, 0, STEP_STREAM)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(torch.initial_seed())
