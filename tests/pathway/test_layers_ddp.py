"""Attached layers under DistributedDataParallel: two gloo processes give the gradient of the whole batch."""

from pathlib import Path

import torch
from torch import Tensor, nn
from two_processes import in_two_processes

from m2pt.pathway import attach


class Chain(nn.Module):
    """Two blocks in sequence, reduced to one number per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"fc": nn.Linear(6, 6, bias=False)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block["fc"](x).tanh()
        return x.square().mean(1)


def model_and_batch() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, audio, video = Chain(), Chain(), Chain()
    attach(model.blocks, {"audio": audio.blocks, "video": video.blocks}, layers=("fc",), scale_init=0.3)
    return model, torch.randn(4, 6)


def gradients_of_one_rank(rank: int) -> dict[str, Tensor]:
    model, batch = model_and_batch()
    parallel = nn.parallel.DistributedDataParallel(model)
    parallel(batch[2 * rank : 2 * rank + 2]).mean().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_two_processes_give_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    results = in_two_processes(gradients_of_one_rank, tmp_path)
    model, batch = model_and_batch()
    model(batch).mean().backward()
    for gradients in results:
        assert sum(name.endswith(".scale") for name in gradients) == 4
        for name, parameter in model.named_parameters():
            assert torch.count_nonzero(gradients[name]) > 0
            torch.testing.assert_close(gradients[name], parameter.grad)
