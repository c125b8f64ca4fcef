"""The trainings behind runs, and what each of them waits for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from m2pt.results import FINISHED, RUN, Description, read
from m2pt.schema.experiments import SCRATCH
from m2pt.schema.plan import Plan, Run, Spec
from m2pt.training.settings import TrainingSettings


@dataclass(frozen=True)
class Training:
    """One training: of an encoder (then `run` is None) or of a run, with one seed.

    `needs` are the ids of the trainings whose weights it starts from or attaches.
    """

    kind: str
    name: str
    seed: int
    spec: Spec
    execution: Spec
    directory: Path
    needs: tuple[str, ...] = ()
    run: Run | None = None

    @property
    def id(self) -> str:
        """Kind, name and seed, as people read them."""
        return f"{self.kind} {self.name} seed{self.seed}"

    @property
    def stage(self) -> str:
        """What it is listed under: its encoder, or its dataset, mode and start."""
        if self.run is None:
            return self.name
        experiment = self.run.experiment
        if experiment.is_transfer:
            return experiment.dataset
        start = "scratch" if experiment.target_init == SCRATCH else "pretrained"
        body = self.spec["architecture"].get("body", "transformer")
        return f"{experiment.dataset} {experiment.mode}, {start if body == 'transformer' else body}"

    @property
    def settings(self) -> TrainingSettings:
        """How it is trained."""
        return TrainingSettings(**self.spec["recipe"]["training"], **self.execution)

    @property
    def is_done(self) -> bool:
        """Whether its folder holds a finished training of this very spec.

        Raises:
            InputError: its run.json is damaged.
        """
        if not ((self.directory / RUN).exists() and (self.directory / FINISHED).exists()):
            return False
        return json.loads(json.dumps(self.spec)) == read(Description, self.directory / RUN).spec


def trainings(plan: Plan, runs: Iterable[Run]) -> list[Training]:
    """Every training behind these runs with all seeds of the plan, each once, after those it waits for."""
    found: dict[str, Training] = {}
    for run in runs:
        for seed in plan.config.seeds:
            _add_run(plan, found, run, seed)
    return list(found.values())


def imported_encoders(plan: Plan, runs: Iterable[Run]) -> dict[str, int]:
    """Encoders behind these runs that are written without a training, and for how many seeds."""
    encoders = plan.config.encoders
    names = {
        name
        for run in runs
        for experiment in run.experiment.chain
        for name in (experiment.target_init, *experiment.auxiliaries)
    }
    return {
        name: len({plan.encoder_seed(name, seed) for seed in plan.config.seeds})
        for name in encoders
        if name in names and not encoders[name].is_trained_here
    }


def _add_run(plan: Plan, found: dict[str, Training], run: Run, seed: int) -> str:
    experiment = run.experiment
    needs = []
    if experiment.transfer_from is not None:
        needs.append(_add_run(plan, found, plan.run(experiment.transfer_from.name), seed))
    elif experiment.target_init != SCRATCH:
        needs += _add_encoder(plan, found, experiment.target_init, seed)
    for name in experiment.auxiliaries:
        needs += _add_encoder(plan, found, name, seed)
    kind = "transfer" if experiment.is_transfer else "finetune"
    directory, spec = plan.run_directory(run.name, seed), plan.seeded_spec(run, seed)
    unique = tuple(dict.fromkeys(needs))
    training = Training(kind, run.name, seed, spec, run.execution, directory, unique, run)
    return found.setdefault(training.id, training).id


def _add_encoder(plan: Plan, found: dict[str, Training], name: str, run_seed: int) -> list[str]:
    """Ids of the training that an encoder comes from: none if it is random or comes from elsewhere."""
    encoder = plan.config.encoders[name]
    if encoder.epoch_of is not None:
        return _add_encoder(plan, found, encoder.epoch_of, run_seed)
    if not encoder.is_trained_here:
        return []
    seed, planned = plan.pretrain_seed(run_seed), plan.encoder(name)
    directory = plan.encoder_directory(name, seed)
    training = Training("pretrain", name, seed, planned.spec, planned.execution, directory)
    return [found.setdefault(training.id, training).id]
