"""What is behind a run: the commands that make it, from the data on, and where MLflow has it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m2pt.reporting.tracking_cursor import LOCAL_STORE, Cursor
from m2pt.schema.experiments import SCRATCH
from m2pt.schema.plan import Plan, Run


@dataclass(frozen=True)
class Step:
    """One command and the last file that it writes; `training` is the folder it trains in, if it does."""

    command: str
    makes: Path
    training: Path | None = None


def steps(plan: Plan, run: Run, seed: int) -> Iterator[Step]:
    """Yield the commands behind the run of this seed, in an order in which they can be pasted.

    A command comes again for each thing that needs it.
    """
    experiment, directory = run.experiment, plan.run_directory(run.name, seed)
    yield _data(plan, experiment.dataset)
    if experiment.transfer_from is not None:
        yield from steps(plan, plan.run(experiment.transfer_from.name), seed)
    elif experiment.target_init != SCRATCH:
        yield from _encoder(plan, experiment.target_init, seed)
    for name in experiment.auxiliaries:
        yield from _encoder(plan, name, seed)
    evaluation = directory / "evaluation.json"
    if experiment.is_transfer:
        yield Step(_command(plan, "transfer", run.name, "--seed", str(seed)), evaluation, directory)
        return
    attached, merged = directory / "attached.safetensors", directory / "merged.safetensors"
    yield Step(_command(plan, "finetune", run.name, "--seed", str(seed)), attached, directory)
    yield Step(shlex.join(["m2pt", "merge", str(attached), str(merged)]), merged)
    yield Step(_command(plan, "evaluate", run.name, "--seed", str(seed)), evaluation)


def mlflow_runs(results: Path, training: Path) -> Iterator[str]:
    """Yield where MLflow has the training of this folder: a link for the local store, else server and id."""
    for store in sorted((results / "tracking").glob("*/")):
        cursor = Cursor.load(store / training.relative_to(results).with_suffix(".json"))
        name = store.name.partition("+")[0]  # an experiment comes after it
        if cursor is not None and name == LOCAL_STORE:
            words = ["make", "mlflow-ui", *([] if results == Path("results") else [f"RESULTS={results}"])]
            yield f"http://127.0.0.1:5000/#/runs/{cursor.run_id} (served by: {shlex.join(words)})"
        elif cursor is not None:
            yield f"run {cursor.run_id} on {name.rpartition('-')[0]}"


def _encoder(plan: Plan, name: str, run_seed: int) -> Iterator[Step]:
    encoder, seed = plan.config.encoders[name], plan.encoder_seed(name, run_seed)
    directory, weights = plan.encoder_directory(name, seed), plan.encoder_weights(name, run_seed)
    if not encoder.is_trained_here:
        if encoder.epoch_of is not None:
            yield from _encoder(plan, encoder.epoch_of, run_seed)
        if encoder.source == "dvc":
            pulled = plan.encoder_checkpoint(name, seed)
            yield Step(shlex.join(["dvc", "pull", str(pulled.parent)]), pulled / weights.name)
        yield Step(_command(plan, "import", name, "--seed", str(seed)), weights)
        return
    yield _data(plan, str(encoder.dataset))
    yield Step(_command(plan, "pretrain", name, "--seed", str(seed)), weights, directory)


def _data(plan: Plan, name: str) -> Step:
    manifest = plan.manifest(name)
    if plan.config.datasets[name].miniature is not None:
        return Step(_command(plan, "data", "build", name), manifest)
    return Step(_command(plan, "data", "check", name, "--manifest", str(manifest)), manifest)


def _command(plan: Plan, *words: str) -> str:
    """An `m2pt` command with the arguments that give it the plan's config."""
    return shlex.join(["m2pt", *words, *plan.arguments])
