"""The one training loop: pretraining, finetuning and transfer all call `fit`."""

import operator
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.distributed import DistError
from torch.utils.data import Dataset

from m2pt.errors import InputError
from m2pt.training import checkpoint
from m2pt.training.batch_statistics import shared_batch_statistics, take_running_averages
from m2pt.training.launch import launch, rank_and_world, seed_step
from m2pt.training.loading import Collate, training_stream
from m2pt.training.metrics import DivergedError, LossWindow, MetricsFile
from m2pt.training.optimizer import create_optimizer, create_schedule, current_lr, load_optimizer
from m2pt.training.progress import Progress
from m2pt.training.sampling import TrainingBatches
from m2pt.training.settings import TrainingSettings
from m2pt.training.signals import (
    EXIT_CODE,
    Interrupted,
    SignalWatch,
    another_has_failed,
    ask_for_requeue,
)

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]
Describe = Callable[[nn.Module], Mapping[str, float]]
Snapshot = Callable[[nn.Module], None]

AGREE_EVERY = 8
"""Steps between the exchanges in which several processes agree to stop, or fewer where so many take longer
than `AGREE_SECONDS`; a single one always looks."""

AGREE_SECONDS = 5.0
"""A scheduler's warning comes some 90 seconds before the end, and the state is yet to be saved then."""


def fit(
    model: nn.Module,
    loss: Loss,
    dataset: Dataset[Any],
    *,
    settings: TrainingSettings,
    directory: Path,
    identity: str,
    seed: int,
    collate: Collate | None = None,
    describe: Describe | None = None,
    snapshots: Mapping[int, Snapshot] | None = None,
    device: str = "auto",
) -> nn.Module:
    """Train `model` in place and return it, unwrapped, on the training device and in training mode.

    A training that was killed goes on from `directory`/resume.pt, and on a CPU with the same number of
    threads and processes ends with the same bits as an undisturbed one. A finished one returns its weights at
    once. State of another identity in `directory` is set aside and training starts over
    (`checkpoint.prepare_directory`).

    Several processes call this alike and share each step (`TrainingSettings.share`): the first one writes,
    and all return the same weights. Where they share the forward passes evenly, the result is that of one
    process to rounding, except for the running averages of batch norms (see `batch_statistics`).

    `model.train()` is called once, at the start: a model whose frozen part has dropout or batch statistics
    overrides `train` to keep that part in evaluation mode.

    Args:
        model: initialised; what must not be trained has `requires_grad` False.
        loss: maps (the possibly DDP-wrapped model, a batch on the device) to the mean loss over the batch and
            further scalars to log, the same names each time.
        dataset: map-style, of keys (epoch, index); see `m2pt.datasets.seeded`.
        settings: how to train.
        directory: of the run; see `m2pt.training.checkpoint` for what is written there.
        identity: hex digest of all that the result depends on: spec and input weights.
        seed: of the order of samples and of whatever is drawn in a step (mixup, masks, dropout).
        collate: makes a batch of samples; None stacks them.
        describe: values to log after each epoch, such as the cross-modal scales.
        snapshots: for numbers of finished epochs, what to do with the model then, such as exporting its
            weights; called again if a resumed training passes there again.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: what the user gave is wrong, or the directory cannot be used.
        DivergedError: loss or weights became NaN or infinite.
        Interrupted: one of `signals.STOPPING` came, to whichever process; the state is saved,
            `interrupted.json` says so, exit code 75.

    Whatever else is raised, `failed.json` says the reason.
    """
    training = None
    try:
        training = _Training(model, loss, dataset, settings, seed, device, collate, describe, snapshots or {})
        return training.run(directory, identity)
    except Exception as error:
        _mark_failed(directory, identity, training.step if training else 0, error)
        raise


def _mark_failed(directory: Path, identity: str, step: int, error: Exception) -> None:
    """Leave failed.json. Of several processes any may fail, and knows why; the others only miss it."""
    marker = directory / checkpoint.FAILED
    failed = {"identity": identity, "step": step, "reason": f"{type(error).__name__}: {error}"}
    with suppress(OSError):  # the error tells more than that its marker cannot be written
        if not _misses_another(error) or not (rank_and_world()[0] or marker.exists()):
            checkpoint.mark(directory, checkpoint.FAILED, failed)
        elif marker.exists():
            marker.touch()  # younger than what was still written: it counts


def _misses_another(error: Exception) -> bool:
    """Whether an error may be that another process has gone; gloo raises a plain RuntimeError then."""
    return rank_and_world()[1] > 1 and (type(error) is RuntimeError or isinstance(error, DistError))


class _Training:
    """One call of `fit`: everything is built and checked before what the directory holds is touched."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        dataset: Dataset[Any],
        settings: TrainingSettings,
        seed: int,
        device: str,
        collate: Collate | None,
        describe: Describe | None,
        snapshots: Mapping[int, Snapshot],
    ) -> None:
        self.model, self.loss, self.dataset, self.settings, self.seed = model, loss, dataset, settings, seed
        self.collate, self.describe, self.snapshots = collate, describe, snapshots
        self.accelerator = launch(settings.precision, device)
        world = self.accelerator.num_processes
        self.main = self.accelerator.is_main_process
        batch_size, self.accumulation = settings.share(world)
        self.split = settings.batch_size // batch_size
        self.batches = TrainingBatches(
            len(dataset),  # type: ignore[arg-type]
            batch_size=batch_size,
            accumulation=self.accumulation,
            seed=seed,
            rank=self.accelerator.process_index,
            world=world,
        )
        self.total = self.batches.stop = settings.length(self.batches.steps_per_epoch)
        epochs = self.total // self.batches.steps_per_epoch
        for epoch in snapshots:
            if not 1 <= epoch <= epochs:
                raise InputError(f"a snapshot after epoch {epoch} is asked of a training of {epochs} epochs")
        self.optimizer = create_optimizer(model, settings)
        self.schedule = create_schedule(self.optimizer, settings, self.batches.steps_per_epoch)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        # The optimizer stays torch's own: Accelerate's wrapper looks for an optional package on disk in every
        # step, 0.4 ms. Without fp16 the scaler passes everything through.
        self.wrapped = self.accelerator.prepare(model)
        self.scaler = torch.amp.GradScaler(
            self.accelerator.device.type, enabled=self.accelerator.mixed_precision == "fp16"
        )
        self.window = LossWindow(self.accelerator)
        self.step = self.saved_step = 0

    def run(self, directory: Path, identity: str) -> nn.Module:
        """Start, go on, or find it finished."""
        self.directory, self.identity = directory, identity
        moved = checkpoint.prepare_directory(directory, identity) if self.main else []
        self.accelerator.wait_for_everyone()
        with closing(Progress(directory / checkpoint.LOG, enabled=self.main)) as self.progress:
            for line in moved:
                self.progress.say(line)
            if finished := checkpoint.load_finished(directory, identity):
                with checkpoint.taking_up(directory / checkpoint.FINAL):
                    checkpoint.load_model(self.model, finished["model"])
                    step = operator.index(finished["step"])
                self.progress.say(f"training finished earlier, after {step} steps: weights loaded")
            else:
                self._train()
        if self.main:
            checkpoint.remove(directory, checkpoint.RESUME, checkpoint.FAILED)
        if self.accelerator.num_processes > 1:
            take_running_averages(self.model)
        self.accelerator.wait_for_everyone()  # nobody exports and clears away what another has yet to read
        return self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)

    def _train(self) -> None:
        """Do all steps that are left, and leave the marker of how that ended, unless it fails."""
        metrics_length = self._resume()
        self.began = time.monotonic()
        self._agree_again(after=1)
        self._say_how()
        self.progress.begin(start=self.step, total=self.total, samples_per_step=self.batches.effective)
        if self.main:
            checkpoint.remove(self.directory, checkpoint.FINISHED, checkpoint.INTERRUPTED, checkpoint.FAILED)
        try:
            with (
                SignalWatch() as self.signals,
                shared_batch_statistics(self.model, self.split),
                closing(
                    MetricsFile(self.directory / checkpoint.METRICS, metrics_length, self.main)
                ) as self.metrics,
                training_stream(
                    self.dataset, self.batches, num_workers=self.settings.num_workers, collate=self.collate
                ) as stream,
            ):
                self.wrapped.train()
                while self.step < self.total:
                    self._advance(stream)
                    self._record()
                    self._keep()
        except Exception as error:
            if self._left_alone(error):
                self.step = self.saved_step
                name = self._mark_interrupted()
                raise Interrupted(name) from error
            if isinstance(error, DivergedError) and self.saved_step:
                error.checkpoint = f"{self.directory / checkpoint.RESUME} (step {self.saved_step})"
            raise

    def _say_how(self) -> None:
        """Log on what it runs and how the effective batch is shared."""
        world = self.accelerator.num_processes
        shared = f"{world} processes" if world > 1 else "1 process"
        batch = f"batch size {self.settings.batch_size // self.split}, accumulation {self.accumulation}"
        device, precision = self.accelerator.device.type, self.accelerator.mixed_precision
        self.progress.say(f"{shared} on {device}, precision {precision}: {batch}")

    def _left_alone(self, error: Exception) -> bool:
        """Whether other processes were stopped by the signal before they got as far as the loop.

        This one cannot go on without them, and its last checkpoint is sound. If another has failed the
        signal says nothing: what started them sends it to the rest then.
        """
        return _misses_another(error) and self.signals.received is not None and not another_has_failed()

    def _resume(self) -> int:
        """Take up resume.pt, if there is one; return the length of metrics.jsonl that goes with it."""
        self.earlier_seconds = 0.0
        state = checkpoint.load_resume(self.directory, self.identity, self.batches.effective)
        if state is None:
            return 0
        with checkpoint.taking_up(self.directory / checkpoint.RESUME):
            checkpoint.load_model(self.model, state["model"])
            load_optimizer(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.window.restore(state["window"])
            step, length = operator.index(state["step"]), operator.index(state["metrics_length"])
            self.earlier_seconds = float(state["seconds"])
            if not (0 < step < self.total and length >= 0):
                raise ValueError(f"step {step} of {self.total}, {length} bytes of metrics")
        self.step = self.saved_step = self.batches.start = step
        self.progress.say(f"resuming after step {self.step} of {self.total}")
        return length

    def _advance(self, stream: Iterator[Any]) -> None:
        """One optimizer step: `accumulation` forward and backward passes, clip, update."""
        self.schedule.step_update(self.step)
        accumulation, world = self.accumulation, self.batches.world
        sums: dict[str, Tensor] = {}
        for micro in range(accumulation):
            batch = send_to_device(next(stream), self.accelerator.device, non_blocking=True)
            # After the batch: without workers, making it draws from the same generators.
            seed_step(self.accelerator.device, self.seed, self.step, micro * world + self.batches.rank)
            last = micro == accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                value, others = self.loss(self.wrapped, batch)
                self.scaler.scale(value / accumulation).backward()
            for name, scalar in {"loss": value, **others}.items():
                part = scalar.detach() / accumulation
                sums[name] = sums[name] + part if name in sums else part
        for _ in range(self.settings.repeat_step - 1):
            self.optimizer.step()
        if self.settings.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained, self.settings.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.step += 1
        self.window.add(self.step, current_lr(self.optimizer), sums)

    def _record(self) -> None:
        """Write what is due after this step: losses, and at an epoch's end `describe` and the snapshot."""
        self.progress.advance()
        epoch = (self.step - 1) // self.batches.steps_per_epoch + 1
        if self.step % self.settings.log_every == 0 or self.step == self.total:
            means, lr = self.window.mean(), current_lr(self.optimizer)
            self.metrics.write({"step": self.step, "epoch": epoch, **means, "lr": lr})
            self.progress.report(self.step, epoch, means["loss"], lr)
        if self.step % self.batches.steps_per_epoch == 0:
            if self.describe is not None:
                self.metrics.write({"step": self.step, "epoch": epoch, **self.describe(self.model)})
            if epoch in self.snapshots:
                self.window.read()
                if self.main:
                    self.snapshots[epoch](self.model)

    def _keep(self) -> None:
        """Save what is due after this step.

        This comes after the snapshot, so that no resumed training starts behind one that was never made.

        Raises:
            Interrupted: after saving, if the process was asked to stop.
        """
        if self.step == self.total:
            self._finish()
            return
        stop = self._asked_to_stop()
        if stop or self.step % self.settings.checkpoint_every == 0:
            self._save()
        if stop:
            name = self._mark_interrupted()
            self.accelerator.wait_for_everyone()
            raise Interrupted(name)

    def _asked_to_stop(self) -> bool:
        asked = self.signals.received is not None
        if self.accelerator.num_processes == 1:
            return asked
        if self.step < self.agree_at:
            return False
        now = time.monotonic()
        steps = (self.step - self.agreed) * AGREE_SECONDS / (now - self.agreed_time)
        wait = max(1, min(AGREE_EVERY, int(steps))) if self.main else 0
        said = torch.tensor([float(asked), float(wait)], device=self.accelerator.device)
        stops, wait = self.accelerator.reduce(said, "sum").tolist()
        self._agree_again(after=int(wait))
        return stops > 0

    def _agree_again(self, after: int) -> None:
        self.agreed, self.agreed_time, self.agree_at = self.step, time.monotonic(), self.step + after

    def _save(self) -> None:
        """Write resume.pt, unless losses or weights show that the training has diverged."""
        window = self.window.state()
        self._check_weights()
        if self.main:
            checkpoint.save(
                self.directory / checkpoint.RESUME,
                {
                    "identity": self.identity,
                    "step": self.step,
                    "effective_batch": self.batches.effective,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "window": window,
                    **self.metrics.state(),
                    "seconds": self._seconds(),
                },
            )
        self.saved_step = self.step

    def _check_weights(self) -> None:
        """An update from an infinite gradient spoils the weights before any loss shows it."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not all(torch.isfinite(parameter).all() for parameter in trained):
            raise DivergedError("a weight is not finite", self.step, current_lr(self.optimizer))

    def _finish(self) -> None:
        self._check_weights()
        if self.main:
            state = {"identity": self.identity, "step": self.step, "model": self.model.state_dict()}
            checkpoint.save(self.directory / checkpoint.FINAL, {**state, **self.metrics.state()})
        self._mark(checkpoint.FINISHED, seconds=round(self._seconds(), 1))
        self.accelerator.wait_for_everyone()
        self.progress.say(f"training finished after {self.step} steps")

    def _seconds(self) -> float:
        """Wall time of the training, up to the checkpoints that it was resumed from and since."""
        return self.earlier_seconds + time.monotonic() - self.began

    def _mark_interrupted(self) -> str:
        """Say that the state of `step` is saved and is to be gone on with; return why."""
        name = self.signals.received.name if self.signals.received else "another process's signal"
        self._mark(checkpoint.INTERRUPTED, reason=name, exit_code=EXIT_CODE)
        if self.main:
            ask_for_requeue()
        self.progress.say(f"stopped by {name} after step {self.step}; run the same command to go on")
        return name

    def _mark(self, name: str, **content: Any) -> None:
        if self.main:
            checkpoint.mark(self.directory, name, {"identity": self.identity, "step": self.step, **content})
