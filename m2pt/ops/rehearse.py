"""Two steps of each kind of training at its true resolution, with synthetic inputs and a small batch.

Each training has a process of its own, so that its peak of memory is known, and so that one that is killed
for its memory does not end the others.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

from m2pt.catalog.loading import place_of
from m2pt.errors import InputError
from m2pt.ops.estimate import runs_of_results
from m2pt.ops.step_costs import cost_key, kind_key, save_measurements
from m2pt.plan.jobs import Training, trainings
from m2pt.plan.plan import Plan

STEPS = 2

TOLERANCE = 0.2
"""Largest difference of a loss from the one that is expected at the start, relative to that.

Heads of small random weights, not 0, and labels of a batch of 2 make up to a tenth.
"""


@dataclass(frozen=True)
class Rehearsal:
    """What two steps of a training took and gave.

    Attributes:
        training: id of the training.
        tokens: tokens of one sample, of all its modalities; 0 for a convolutional body.
        parameters: number of parameters, with the pathways.
        trained: how many of them are trained.
        losses: loss of each step.
        initial: losses of the first step of which it is known where they start, by name; `loss` is the sum.
        expected: where they start.
        seconds: of the second step.
        update_seconds: of the optimizer in that step, which more samples do not lengthen.
        device: its name.
        peak_bytes: peak of memory: allocated on a GPU, resident on a CPU, where it includes the interpreter.
        error: why it has not run; the numbers are 0 then.
    """

    training: str
    tokens: int = 0
    parameters: int = 0
    trained: int = 0
    losses: tuple[float, ...] = ()
    initial: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    update_seconds: float = 0.0
    device: str = ""
    peak_bytes: int = 0
    error: str = ""

    @property
    def faults(self) -> list[str]:
        """Losses that start elsewhere than they must, in words."""
        return [
            f"{name} starts at {self.initial[name]:.4g}, but an untrained model gives about {expected:.4g}: "
            "check how its last layer is initialized, its number of classes, and the loss"
            for name, expected in self.expected.items()
            if not abs(self.initial[name] - expected) <= TOLERANCE * expected
        ]

    @property
    def is_sound(self) -> bool:
        """Whether it ran, all losses are finite, and they start where they must."""
        return not self.error and all(map(math.isfinite, self.losses)) and not self.faults


def rehearse(plan: Plan, batch_size: int, *, save: bool = False) -> Iterator[Rehearsal]:
    """Yield the rehearsal of each kind of training of a plan, as each ends.

    Args:
        plan: the plan.
        batch_size: samples of a step, an even number of at least 2.
        save: whether `m2pt plan` is to take the costs of steps from it, unless it has measured ones.
    """
    import m2pt.build  # noqa: F401  once, for all processes

    kinds = kinds_of_training(plan)
    for number, (training, *others) in enumerate(kinds, start=1):
        print(f"rehearsing {number} of {len(kinds)}: {training.id}", file=sys.stderr, flush=True)
        found = _in_a_process(training.id, partial(_two_steps, plan, training, batch_size))
        if save and not found.error:
            _save(plan, found, [training, *others], batch_size)
        yield found


def kinds_of_training(plan: Plan) -> list[list[Training]]:
    """Return the trainings that the results of a plan need, those of one kind together."""
    kinds: dict[str, list[Training]] = {}
    for training in trainings(plan, runs_of_results(plan, [*plan.tables, *plan.figures])):
        kinds.setdefault(kind_key(training.stored), []).append(training)
    return list(kinds.values())


def _save(plan: Plan, rehearsal: Rehearsal, alike: Sequence[Training], batch_size: int) -> None:
    """Save the cost of a step of trainings that are alike."""
    per_sample = (rehearsal.seconds - rehearsal.update_seconds) / batch_size
    entries = {
        cost_key(training.stored): {
            "seconds": per_sample * training.settings.effective_batch() + rehearsal.update_seconds,
            "samples": batch_size,
            "training": training.id,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for training in alike
    }
    save_measurements(plan.results, entries, rehearsal.device)


def _in_a_process(name: str, work: Callable[[], Rehearsal]) -> Rehearsal:
    """Return what a function returns in a new process, or a rehearsal that says why there is none.

    The process is a fork, which has the plan and the libraries. That is safe as long as this process computes
    nothing: it has no threads then, and no GPU.
    """
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with receiver:
        process = context.Process(target=_send, args=(sender, name, work))
        process.start()
        sender.close()
        try:
            return receiver.recv()  # type: ignore[no-any-return]
        except EOFError:
            return Rehearsal(name, error="its process was killed, probably since the memory was used up")
        finally:
            process.join()


def _send(sender: Connection, name: str, work: Callable[[], Rehearsal]) -> None:
    try:
        found = work()
    except InputError as error:
        found = Rehearsal(name, error=str(error))
    except Exception as error:  # whatever it is, the others are rehearsed; also torch.OutOfMemoryError
        found = Rehearsal(name, error=place_of(error).splitlines()[0])
    sender.send(found)


def _two_steps(plan: Plan, training: Training, batch_size: int) -> Rehearsal:
    import torch

    from m2pt.build import expected_losses
    from m2pt.modalities.tokenizer import Tokenizer
    from m2pt.ops.measure import Stepper, wait_for
    from m2pt.ops.synthetic_training import build_synthetic
    from m2pt.session import device_name, set_threads
    from m2pt.training.launch import resolve

    set_threads(plan)
    torch.manual_seed(0)
    device = torch.device(resolve(device=plan.config.device)[0])
    synthetic = build_synthetic(training, device, batch_size)
    model = synthetic.model
    settings = replace(training.settings, batch_size=batch_size, accumulation=1)
    stepper = Stepper(model, synthetic.loss, settings, plan.config.device)
    expected = expected_losses(training.spec, model, synthetic.batch)
    steps, seconds, update_seconds = [], 0.0, 0.0
    for _ in range(STEPS):
        began = time.perf_counter()
        scalars = stepper.micro_batch(synthetic.batch)
        wait_for(device)
        updated = time.perf_counter()
        stepper.update()
        wait_for(device)
        seconds, update_seconds = time.perf_counter() - began, time.perf_counter() - updated
        steps.append({name: scalars[name].item() for name in ("loss", *expected)})
    return Rehearsal(
        training.id,
        tokens=sum(module.num_tokens for module in model.modules() if isinstance(module, Tokenizer)),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        losses=tuple(step["loss"] for step in steps),
        initial={name: steps[0][name] for name in expected},
        expected=expected,
        seconds=seconds,
        update_seconds=update_seconds,
        device=device_name(plan),
        peak_bytes=torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_resident(),
    )


def _peak_resident() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
