"""Device, precision, processes and activation checkpointing of a training."""

from typing import Any

# Why Accelerate: in 0.1 s of import time (Lightning Fabric: 5 s) it reads torchrun's environment, wraps DDP,
# autocast and the gradient scaler, and leaves the loop to us, which a bit-exact resume needs.
import torch
from accelerate import Accelerator
from torch import distributed, nn

from m2pt.datasets.base import seed_generators
from m2pt.errors import InputError

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)

STEP_STREAM, METHOD_STREAM = 1, 2
"""Last word of the seed of a forward pass and of a method's hook. Those of samples, (seed, epoch, index), end
with 0, since numpy pads them with zeros."""


def launch(precision: str = "auto", device: str = "auto", *, tf32: bool = False) -> Accelerator:
    """Select the device and, if `m2pt launch` or torchrun started this process, join the process group.

    The number of threads does not change: Accelerate would divide the machine's cores among the processes.

    Args:
        precision: as in `resolve`.
        device: as in `resolve`.
        tf32: as in `round_to_tf32`.

    Raises:
        InputError: as `resolve`.
    """
    device, precision = resolve(precision, device)
    round_to_tf32(tf32)
    threads = torch.get_num_threads()
    accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu")
    torch.set_num_threads(threads)
    return accelerator


def round_to_tf32(tf32: bool) -> None:
    """Set whether a GPU rounds the factors of float32 products and convolutions to TF32.

    Torch's default differs between the two.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def checkpoint_activations(model: nn.Module) -> None:
    """Have the parts of a model that can do so compute their blocks again in the backward pass.

    Raises:
        InputError: as `checkpointed_parts`.
    """
    for part in checkpointed_parts(model):
        part.set_grad_checkpointing(True)


def checkpointed_parts(model: nn.Module) -> list[Any]:
    """Return the parts of a model that can compute their blocks again.

    Raises:
        InputError: no part has timm's `set_grad_checkpointing`.
    """
    parts: list[Any] = [each for each in model.modules() if hasattr(each, "set_grad_checkpointing")]
    if not parts:
        raise InputError(
            f"activation_checkpointing: {type(model).__name__} has no set_grad_checkpointing(); leave it out"
        )
    return parts


def put_channels_last(model: nn.Module) -> None:
    """Store the weights of 2-D convolutions with the channels last; their results have that layout then.

    Raises:
        InputError: as `convolutions`.
    """
    for module in convolutions(model):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def convolutions(model: nn.Module) -> list[nn.Module]:
    """Return the 2-D convolutions of a model.

    Raises:
        InputError: it has none.
    """
    found: list[nn.Module] = [each for each in model.modules() if isinstance(each, _CONVOLUTIONS)]
    if not found:
        raise InputError(f"channels_last: {type(model).__name__} has no 2-D convolution; leave it out")
    return found


def resolve(precision: str = "auto", device: str = "auto") -> tuple[str, str]:
    """Return the kind of device, "cpu" or "cuda", and the precision, "no", "bf16" or "fp16".

    Args:
        precision: "no", "bf16", "fp16", or "auto": bf16 or else fp16 on a CUDA device, and "no" elsewhere.
        device: "auto" (a CUDA device if there is one, else the CPU), "cpu" or "cuda".

    Raises:
        InputError: the device does not exist, or precision is fp16 without a GPU.
    """
    cuda = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not cuda:
        raise InputError("device is cuda, but torch finds no CUDA device: use auto or cpu")
    gpu = cuda and device != "cpu"
    if precision == "fp16" and not gpu:
        raise InputError("precision is fp16, which needs a GPU: use auto, bf16 or no")
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "no"
    return "cuda" if gpu else "cpu", precision


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) outside a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def leave() -> None:
    """Leave the process group, if this process joined one; no process waits for another afterwards."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def seed_step(device: torch.device, seed: int, step: int, micro: int, stream: int = STEP_STREAM) -> None:
    """Seed Python, NumPy, torch and the device for forward pass `micro` of step `step`.

    Passes are numbered across all processes, so that random draws do not depend on which process does which.
    """
    seed_generators(seed, step, micro, 0, stream)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(torch.initial_seed())
