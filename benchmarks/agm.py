"""Cost of a step with adaptive gradient modulation, as ratios to a plain joint step and to the naive form.

    python benchmarks/agm.py [--rounds 7] [--batch 16]

A step is a forward and a backward pass of the project's own models with late fusion: two ResNet-18 with
BatchNorm, or a masked transformer for each modality with padded sequences. The naive form is the released
one: a pass of the whole model for each subset, with a full batch of zeros for muted modalities, and hooks on
the responses. Every round times all forms, one after the other, in one thread and in processor time; ratios
are medians over the rounds, so that a busy machine disturbs all alike. The last rows add modalities to one
kind of model: each encoder runs once, however many subsets there are, so that only the share of the fusion
grows.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from m2pt.agm import AdaptiveGradientModulation, Joint, shapley_responses
from m2pt.models.multimodal import MultimodalClassifier, build_multimodal

CLASSES = 6
STEPS, SIZE = 20, 40

Case = tuple[MultimodalClassifier, dict[str, Any]]


def resnets(batch: int) -> Case:
    """Return two ResNet-18, for a spectrogram and an image, and a batch."""
    shapes = {"audio": (1, 64, 64), "visual": (3, 64, 64)}
    settings = {"encoders": {name: {"kind": "resnet18"} for name in shapes}, "fusion": {"kind": "concat"}}
    inputs = {name: torch.randn(batch, *shape) for name, shape in shapes.items()}
    return build_multimodal(settings, num_classes=CLASSES, shapes=shapes), inputs


def transformers(batch: int, modalities: int, dropout: float) -> Case:
    """Return a transformer for each modality, and a batch of sequences of different lengths."""
    names = ("text", "audio", "visual", "depth", "touch")[:modalities]
    encoder = {"kind": "sequence", "dim": 96, "depth": 3, "hidden_dim": 384, "dropout": dropout}
    settings = {"encoders": dict.fromkeys(names, encoder), "fusion": {"kind": "concat"}}
    shapes = dict.fromkeys(names, (STEPS, SIZE))
    inputs = {
        name: {"values": torch.randn(batch, STEPS, SIZE), "lengths": torch.randint(1, STEPS + 1, (batch,))}
        for name in names
    }
    return build_multimodal(settings, num_classes=CLASSES, shapes=shapes), inputs


def muted(value: Any) -> Any:
    """Return an input with zeros for its values."""
    if isinstance(value, Mapping):
        return {**value, "values": torch.zeros_like(value["values"])}
    return torch.zeros_like(value)


def naive_loss(agm: AdaptiveGradientModulation, inputs: Mapping[str, Any], target: Tensor) -> Tensor:
    """Return the loss of the released form; its running means are left to `agm`."""
    model, names = agm.model, agm.modalities
    values = {frozenset(names): model(inputs)}
    model.eval()
    for size in range(1, len(names)):
        for subset in combinations(names, size):
            values[frozenset(subset)] = model(
                {name: value if name in subset else muted(value) for name, value in inputs.items()}
            )
    model.train()
    responses = shapley_responses(values, names)
    scores = [functional.cross_entropy(each.detach(), target) for each in responses.values()]
    kappas = agm.modulation.update(torch.stack(scores)).tolist()
    for response, kappa in zip(responses.values(), kappas, strict=True):
        response.register_hook(lambda gradient, kappa=kappa: kappa * gradient)
    return functional.cross_entropy(torch.stack([*responses.values()]).sum(0), target)


def ratios(
    model: MultimodalClassifier, inputs: dict[str, Any], batch: int, rounds: int
) -> tuple[float, float]:
    """Return time of AGM / plain joint step, and of the naive form / AGM."""
    agm, joint = AdaptiveGradientModulation(model, alpha=0.5), Joint(model)
    target = torch.randint(CLASSES, (batch,))
    forms: dict[str, Callable[[], Tensor]] = {
        "joint": lambda: joint.loss(inputs, target),
        "agm": lambda: agm.loss(inputs, target),
        "naive": lambda: naive_loss(agm, inputs, target),
    }

    def seconds(loss: Callable[[], Tensor]) -> float:
        model.zero_grad()
        start = time.process_time()
        loss().backward()
        return time.process_time() - start

    for loss in forms.values():
        seconds(loss)  # warm up
    timings = [{name: seconds(loss) for name, loss in forms.items()} for _ in range(rounds)]
    return median_ratio(timings, "agm", "joint"), median_ratio(timings, "naive", "agm")


def median_ratio(timings: Sequence[Mapping[str, float]], first: str, second: str) -> float:
    """Return the median over the rounds of the ratio of two forms."""
    return statistics.median(each[first] / each[second] for each in timings)


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description="Cost of adaptive gradient modulation")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        "2 modalities, BatchNorm (ResNet-18)": resnets,
        "3 modalities, dropout 0.1": lambda batch: transformers(batch, 3, 0.1),
        "2 modalities, dropout 0": lambda batch: transformers(batch, 2, 0.0),
        "3 modalities, dropout 0": lambda batch: transformers(batch, 3, 0.0),
        "4 modalities, dropout 0": lambda batch: transformers(batch, 4, 0.0),
        "5 modalities, dropout 0": lambda batch: transformers(batch, 5, 0.0),
    }
    print(f"batch {arguments.batch}, {arguments.rounds} rounds, torch {torch.__version__}")
    print(f"{'case':<38} {'AGM / joint':>11} {'naive / AGM':>11}")
    for name, build in cases.items():
        torch.manual_seed(0)
        of_joint, of_naive = ratios(*build(arguments.batch), arguments.batch, arguments.rounds)
        print(f"{name:<38} {of_joint:>11.2f} {of_naive:>11.2f}")


if __name__ == "__main__":
    main()
