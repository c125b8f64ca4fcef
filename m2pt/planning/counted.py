"""Step costs from counted operations and an assumed throughput."""

from collections.abc import Callable

from m2pt.planning.costs import COUNTED, StepCost, cost_key
from m2pt.schema.plan import Spec

TFLOPS, TFLOPS_FLOAT32 = 125.0, 7.8
"""40 % of what an A100's data sheet promises: 312 TFLOP/s in bf16 on tensor cores, 19.5 in float32."""


class Counter:
    """Seconds per step of trainings, with each kind of model counted once.

    The operations are the same with and without pathways as long as all weights are trained, and affine in
    the number of classes, since the last layer is linear: two counts tell all others.

    Args:
        tflops: 10^12 operations a second of mixed precision.
        tflops_float32: the same of recipes with precision "no".
    """

    def __init__(self, tflops: float = TFLOPS, tflops_float32: float = TFLOPS_FLOAT32) -> None:
        self._tflops, self._tflops_float32 = tflops, tflops_float32
        self._counts: dict[str, dict[int, int]] = {}

    def cost(self, spec: Spec, count: Callable[[], int]) -> StepCost:
        """The cost of a step; `count` gives the operations of a micro-batch where they must be counted."""
        training = spec["recipe"]["training"]
        operations = self.operations(spec, count) * training["accumulation"]
        tflops = self._tflops_float32 if training["precision"] == "no" else self._tflops
        return StepCost(operations / (tflops * 1e12), f"{tflops:g} TFLOP/s", COUNTED)

    def operations(self, spec: Spec, count: Callable[[], int]) -> int:
        """Operations of a micro-batch."""
        counts = self._counts.setdefault(_whatever_the_classes(spec), {})
        classes = spec["dataset"]["num_classes"]
        if classes not in counts:
            if len(counts) < 2:
                counts[classes] = count()
            else:
                (first, at_first), (second, at_second) = list(counts.items())[:2]
                per_class = (at_second - at_first) // (second - first)
                counts[classes] = at_first + per_class * (classes - first)
        return counts[classes]


def _whatever_the_classes(spec: Spec) -> str:
    experiment = spec.get("experiment") or {}
    if experiment.get("mode") == "tune":
        spec = {**spec, "experiment": {**experiment, "pathway": None}}
    return cost_key({**spec, "dataset": {**spec["dataset"], "num_classes": 0}})
