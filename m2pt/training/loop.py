"""The training loop: pretraining, finetuning and transfer all call `fit`."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import Dataset

from m2pt.errors import InputError
from m2pt.run_files import FAILED, FINISHED, INTERRUPTED, LOG, METRICS, RESUME, SKIPPED
from m2pt.training.averaging import MergedAverage
from m2pt.training.batch_statistics import broadcast_running_averages, shared_batch_statistics
from m2pt.training.launch import METHOD_STREAM, checkpoint_activations, launch, put_channels_last, seed_step
from m2pt.training.loading import Collate, Loaded, training_stream
from m2pt.training.method import Method, Step, check_method
from m2pt.training.metrics import DivergedError, LossWindow, MetricsFile, merge_scalars
from m2pt.training.optimizer import create_optimizer, create_schedule, current_lr
from m2pt.training.progress import Progress
from m2pt.training.run_directory import is_lost_process, mark_failed, prepare_directory, remove, write_marker
from m2pt.training.sampling import TrainingBatches
from m2pt.training.settings import TrainingSettings
from m2pt.training.sharding import Shards, check_shardable
from m2pt.training.signals import (
    EXIT_CODE,
    Interrupted,
    SignalWatch,
    another_process_failed,
    request_requeue,
)
from m2pt.training.skipped import SkippedSamples
from m2pt.training.state import TrainingState
from m2pt.training.stopping import StopAgreement

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]
Describe = Callable[[nn.Module], Mapping[str, float]]
Snapshot = Callable[[nn.Module], None]


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
    method: Method | None = None,
    average: MergedAverage | None = None,
    describe: Describe | None = None,
    snapshots: Mapping[int, Snapshot] | None = None,
    device: str = "auto",
) -> nn.Module:
    """Train `model` in place and return it, unwrapped, on the training device and in training mode.

    A training that was killed resumes from `directory`/resume.pt. On a CPU, with the same number of threads
    and processes, it ends with the same bits as an uninterrupted one. A finished one returns its weights
    immediately. State of another identity is moved away and training starts over (`run_directory`).

    Several processes call this alike and share each step (`TrainingSettings.share`): the first one writes,
    and all return the same weights. Where they share the forward passes evenly, the result is that of one
    process up to rounding, except for the running averages of batch norms (see `batch_statistics`).

    `model.train()` is called once, at the start: a model whose frozen part has dropout or batch statistics
    overrides `train` to keep that part in evaluation mode.

    Args:
        model: initialized; frozen parameters have `requires_grad` False.
        loss: maps (the possibly DDP-wrapped model, a batch on the device) to the mean loss over the batch and
            further scalars to log, the same names each time.
        dataset: map-style, of keys (epoch, index); see `m2pt.datasets.base`.
        settings: how to train.
        directory: folder of the run; see `m2pt.run_files` for the files written there.
        identity: hex digest of all that the result depends on: spec, method and input weights.
        seed: seed of the order of samples and of all random draws in a step (mixup, masks, dropout).
        collate: makes a batch of samples; None stacks them.
        method: hooks into each step and epoch; see `Method`. None trains plainly.
        average: of the merged weights of `model`, with the decay `settings.ema`; updated after each step, and
            moved to the training device.
        describe: values to log after each epoch, such as the cross-modal scales.
        snapshots: by number of epochs, functions of the model to call then, such as exporting its
            weights; called again if a resumed training repeats the epoch.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: the input is invalid, or the directory cannot be used.
        DivergedError: loss or weights became NaN or infinite.
        Interrupted: any of the processes received one of `signals.STOP_SIGNALS`; the state is saved,
            `interrupted.json` says so, the exit code is 75.

    For any other exception, `failed.json` gives the reason.
    """
    training = None
    try:
        training = _Training(
            model,
            loss,
            dataset,
            settings=settings,
            directory=directory,
            identity=identity,
            seed=seed,
            collate=collate,
            method=method,
            average=average,
            describe=describe,
            snapshots=snapshots or {},
            device=device,
        )
        return training.run()
    except Exception as error:
        step = training.state.step if training else 0
        mark_failed(directory, identity=identity, step=step, error=error)
        raise


class _Training:
    """One call of `fit`: everything is built and checked before the directory is touched."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        dataset: Dataset[Any],
        *,
        settings: TrainingSettings,
        directory: Path,
        identity: str,
        seed: int,
        collate: Collate | None,
        method: Method | None,
        average: MergedAverage | None,
        describe: Describe | None,
        snapshots: Mapping[int, Snapshot],
        device: str,
    ) -> None:
        self.model, self.loss, self.dataset, self.collate = model, loss, dataset, collate
        self.settings, self.directory, self.identity, self.seed = settings, directory, identity, seed
        self.method, self.average, self.describe, self.snapshots = method, average, describe, snapshots
        if method is not None:
            check_method(method)
        if settings.ema != (average and average.decay):
            raise TypeError(f"ema is {settings.ema}, the decay of the average {average and average.decay}")
        self.accelerator = launch(settings.precision, device, tf32=settings.tf32)
        self.is_main = self.accelerator.is_main_process
        world = self.accelerator.num_processes
        batch_size, self.accumulation = settings.share(world)
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
                raise InputError(f"cannot take a snapshot after epoch {epoch}: training has {epochs} epochs")
        if settings.activation_checkpointing:
            checkpoint_activations(model)
        if settings.channels_last:
            put_channels_last(model)
        self.shards: Shards | None = None
        self.trained = model
        if settings.shard and world > 1:
            check_shardable(self.accelerator.mixed_precision, has_method=method is not None)
            self.shards = Shards(model, self.accelerator)
            self.trained = self.shards.trained
        self.optimizer = create_optimizer(self.trained, settings)
        self.schedule = create_schedule(self.optimizer, settings, self.batches.steps_per_epoch)
        self.trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        if settings.compile:
            model.compile()  # in place: names and the optimizer's parameters stay
        # The optimizer stays torch's own: Accelerate's wrapper looks for an optional package on disk in every
        # step, 0.4 ms. Without fp16 the scaler passes everything through.
        self.wrapped = self.accelerator.prepare(model) if self.shards is None else self.trained
        if isinstance(method, nn.Module):
            method.to(self.accelerator.device)
        if average is not None:
            average.to(self.accelerator.device)
        self.scaler = torch.amp.GradScaler(
            self.accelerator.device.type, enabled=self.accelerator.mixed_precision == "fp16"
        )
        self.window = LossWindow(self.accelerator)
        self.skipped = SkippedSamples(self.batches.items, directory if self.is_main else None)
        self.state = TrainingState(
            directory,
            identity,
            effective_batch=self.batches.effective,
            model=model,
            optimizer=self.optimizer,
            scaler=self.scaler,
            window=self.window,
            skipped=self.skipped,
            method=method,
            average=average,
            is_main=self.is_main,
        )

    def run(self) -> nn.Module:
        """Train, unless the training is complete; return the model."""
        moved = prepare_directory(self.directory, self.identity) if self.is_main else []
        self.accelerator.wait_for_everyone()
        with closing(Progress(self.directory / LOG, enabled=self.is_main)) as self.progress:
            for line in moved:
                self.progress.log(line)
            if self.state.restore_final():
                self.progress.log(f"training finished earlier, after {self.state.step} steps: weights loaded")
            else:
                self._train()
        if self.is_main:
            remove(self.directory, RESUME, FAILED)
        if self.shards is not None:
            self.model.to(self.accelerator.device).train()
        if self.accelerator.num_processes > 1:
            broadcast_running_averages(self.model)
        self.accelerator.wait_for_everyone()  # no process may clean up files that another has yet to read
        if self.shards is not None:
            return self.model
        return self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)

    def _train(self) -> None:
        """Take all remaining steps; write the marker of how that ended, unless it fails."""
        metrics_length = self.state.resume(self.total)
        if self.shards is not None and self.state.step:
            self.shards.scatter()
        self.batches.start = self.state.step
        self.agreement = StopAgreement(self.accelerator, self.state.step)
        self.saved_at = time.monotonic()
        self._log_start()
        samples = self.batches.effective
        self.progress.begin(start=self.state.step, total=self.total, samples_per_step=samples)
        if self.is_main:
            remove(self.directory, FINISHED, INTERRUPTED, FAILED)
            if not self.skipped.reasons:
                remove(self.directory, SKIPPED)
        shared = self.settings.batch_size // self.batches.batch_size
        try:
            with (
                SignalWatch() as self.signals,
                shared_batch_statistics(self.trained, shared),
                closing(MetricsFile(self.directory / METRICS, metrics_length, self.is_main)) as self.metrics,
                training_stream(
                    self.dataset, self.batches, num_workers=self.settings.num_workers, collate=self.collate
                ) as stream,
            ):
                self.wrapped.train()
                while self.state.step < self.total:
                    self._take_step(stream)
                    self._record()
                    self._save_or_stop()
        except Exception as error:
            if self._is_lost_while_stopping(error):
                self.state.step = self.state.saved_step
                raise Interrupted(self._mark_interrupted()) from error
            if isinstance(error, DivergedError) and self.state.saved_step:
                error.checkpoint = f"{self.directory / RESUME} (step {self.state.saved_step})"
            raise

    def _log_start(self) -> None:
        """Log the first step, the device and how the effective batch is shared."""
        if self.state.step:
            self.progress.log(f"resuming from step {self.state.step} of {self.total}")
        world = self.accelerator.num_processes
        processes = f"{world} processes" if world > 1 else "1 process"
        device, precision = self.accelerator.device.type, self.accelerator.mixed_precision
        batch = f"batch size {self.batches.batch_size}, accumulation {self.accumulation}"
        self.progress.log(f"{processes} on {device}, precision {precision}: {batch}")

    def _take_step(self, stream: Iterator[Loaded]) -> None:
        """Take one optimizer step: backward passes, method, clipping, update."""
        self.schedule.step_update(self.state.step)
        scalars = self._backward(stream)
        if self.method is not None or self.settings.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)  # once a step: torch refuses a second time
        if self.method is not None:
            scalars = self._call_before_step(self.method, scalars)
        for _ in range(self.settings.repeat_step - 1):
            self.optimizer.step()
        if self.settings.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.trainable, self.settings.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        self.state.step += 1
        self.window.add(self.state.step, current_lr(self.optimizer), scalars)

    def _backward(self, stream: Iterator[Loaded]) -> dict[str, Tensor]:
        """Accumulate the gradient of a step; return the means of loss and other scalars over the passes."""
        accumulation, device = self.accumulation, self.accelerator.device
        sums: dict[str, Tensor] = {}
        for micro in range(accumulation):
            loaded = next(stream)
            self.skipped.add(loaded.skipped)
            batch = send_to_device(loaded.checked(), device, non_blocking=True)
            # After the batch: without workers, making it draws from the same generators.
            seed_step(device, self.seed, self.state.step, micro * self.batches.world + self.batches.rank)
            last = micro == accumulation - 1
            with self._exchange_of_gradients(last):
                value, others = self.loss(self.wrapped, batch)
                self.scaler.scale(value / accumulation).backward()
            for name, scalar in {"loss": value, **others}.items():
                part = scalar.detach() / accumulation
                sums[name] = sums[name] + part if name in sums else part
        return sums

    def _exchange_of_gradients(self, wanted: bool) -> AbstractContextManager[None]:
        """Return a context for a backward pass that ends with the exchange of the gradients, or does not."""
        if self.shards is not None:
            self.shards.exchange_gradients(wanted)
            return nullcontext()
        return nullcontext() if wanted else self.accelerator.no_sync(self.wrapped)

    def _gather(self) -> None:
        """Give the model the weights that are trained, if these are those of a sharded copy."""
        if self.shards is not None:
            self.shards.gather()

    def _call_before_step(self, method: Method, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        """Call the method's hook; return `scalars` and those that it adds."""
        seed_step(self.accelerator.device, self.seed, self.state.step, 0, METHOD_STREAM)
        number = self.state.step + 1
        step = Step(number, self._epoch(number), scalars)
        return merge_scalars(scalars, method.before_step(self.model, step))

    def _record(self) -> None:
        """Log the losses if they are due, and at the end of an epoch its values and snapshot."""
        self.progress.advance()
        step, epoch = self.state.step, self._epoch(self.state.step)
        if step % self.settings.log_every == 0 or step == self.total:
            means, lr = self.window.mean(), current_lr(self.optimizer)
            self.metrics.write({"step": step, "epoch": epoch, **means, "lr": lr})
            self.progress.report(step, epoch, means["loss"], lr)
        if step % self.batches.steps_per_epoch == 0:
            self._end_epoch(epoch)

    def _end_epoch(self, epoch: int) -> None:
        values = self.skipped.end_epoch(epoch, self.progress.log)
        if self.describe is not None or epoch in self.snapshots:
            self._gather()
        if self.method is not None:
            seed_step(self.accelerator.device, self.seed, self.state.step, 1, METHOD_STREAM)
            values = merge_scalars(values, self.method.after_epoch(self.model, epoch))
        if self.describe is not None:
            values = merge_scalars(values, self.describe(self.model))
        if values or self.describe is not None:
            self.metrics.write({"step": self.state.step, "epoch": epoch, **values})
        if epoch in self.snapshots:
            self.window.read()  # raises if a loss is not finite
            if self.is_main:
                self.snapshots[epoch](self.model)

    def _epoch(self, step: int) -> int:
        """Return the epoch of a step, both counted from 1."""
        return (step - 1) // self.batches.steps_per_epoch + 1

    def _save_or_stop(self) -> None:
        """Save a checkpoint if one is due after this step.

        This comes after the snapshot, so that a resumed training never skips a snapshot.

        Raises:
            Interrupted: a process received a signal; the state is saved.
        """
        step = self.state.step
        if step == self.total:
            self._finish()
            return
        minutes = self.settings.checkpoint_minutes
        due = minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes
        stop, due = self.agreement.reached(step, self.signals.received is not None, due)
        if stop or due or step % self.settings.checkpoint_every == 0:
            self._gather()
            self.skipped.share(self.progress.log)
            self.state.save(self.metrics)
            self.saved_at = time.monotonic()
        if stop:
            reason = self._mark_interrupted()
            self.accelerator.wait_for_everyone()
            raise Interrupted(reason)

    def _finish(self) -> None:
        self._gather()
        skipped = self.skipped.end(self.progress.log)
        self.state.save_final(self.metrics)
        self._mark(FINISHED, seconds=round(self.state.seconds(), 1), **skipped)
        self.accelerator.wait_for_everyone()
        self.progress.log(f"training finished after {self.state.step} steps")

    def _is_lost_while_stopping(self, error: Exception) -> bool:
        """Return whether other processes were stopped by the signal before they reached the loop.

        This one cannot continue without them, and its last checkpoint is intact. If another process failed,
        the launcher stops the rest by this signal, which is then no request to stop.
        """
        return is_lost_process(error) and self.signals.received is not None and not another_process_failed()

    def _mark_interrupted(self) -> str:
        """Write the marker and log the end of a training that is to be resumed; return the reason."""
        reason = self.signals.received.name if self.signals.received else "another process's signal"
        self._mark(INTERRUPTED, reason=reason, exit_code=EXIT_CODE)
        if self.is_main:
            request_requeue()
        self.progress.log(f"stopped by {reason} after step {self.state.step}; run the same command to resume")
        return reason

    def _mark(self, name: str, **content: Any) -> None:
        if self.is_main:
            write_marker(self.directory, name, identity=self.identity, step=self.state.step, **content)
