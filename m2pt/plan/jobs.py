"""The way from raw data to a result: every job, its command, and the jobs that it waits for.

This is the one place that knows what an encoder or a run needs. The commands that make a table cell, the
trainings whose cost is estimated and the folders that clean-up keeps are all read off these jobs.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from m2pt.catalog import FollowUp
from m2pt.config.experiment import SCRATCH
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.plan.sources import steps
from m2pt.plan.specs import PretrainingSpec, RunSpec, Stored
from m2pt.results import Description, read
from m2pt.run_files import FINISHED, RUN
from m2pt.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class Training:
    """One training of an encoder (`run` is None) or of a run, with one seed: all that it is given.

    Args:
        kind: name of its kind of run, or "pretrain": the command that trains it.
        name: of the encoder or run.
        seed: its seed.
        spec: all that its result depends on.
        stored: what its files store of the spec: with the seeds of the encoders that it reads.
        directory: its folder.
        files: what it exports into that folder; the last one is written last.
        weights: files that it reads, by role; see `Plan.input_weights`.
        needs: ids of the trainings whose weights it starts from or attaches.
        run: the run that it trains.
    """

    kind: str
    name: str
    seed: int
    spec: RunSpec | PretrainingSpec
    stored: Stored
    directory: Path
    files: tuple[str, ...]
    weights: Mapping[str, Path] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    run: Run | None = None

    @property
    def id(self) -> str:
        """Kind, name and seed, human-readable."""
        return f"{self.kind} {self.name} seed{self.seed}"

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that it reads."""
        return self.run.experiment.datasets if self.run else (self.spec.dataset.name,)

    @property
    def settings(self) -> TrainingSettings:
        """Optimization settings."""
        return self.spec.recipe.training

    @property
    def stage(self) -> str:
        """Heading that it is listed under: its encoder, or its dataset with mode and start or with fusion."""
        if self.run is None:
            return self.name
        experiment = self.run.experiment
        if "mode" not in self.run.kind.column:
            return " ".join(filter(None, (experiment.dataset, experiment.fusion)))
        start = "scratch" if experiment.target_init == SCRATCH else "pretrained"
        body = self.spec.architecture.body
        return f"{experiment.dataset} {experiment.mode}, {start if body == 'transformer' else body}"

    @property
    def is_done(self) -> bool:
        """Whether its folder holds a finished training with exactly this spec.

        Raises:
            InputError: its run.json is damaged.
        """
        if not ((self.directory / RUN).exists() and (self.directory / FINISHED).exists()):
            return False
        return bool(json.loads(json.dumps(self.stored)) == read(Description, self.directory / RUN).spec)


@dataclass(frozen=True, eq=False)
class Job:
    """One command, the file that it writes last, and the jobs whose files it reads.

    `encoder` names the encoder that it makes, if it makes one; `training` is what it trains, if it trains.
    """

    command: str
    makes: Path
    needs: tuple["Job", ...] = ()
    encoder: str | None = None
    training: Training | None = None


class Jobs:
    """The jobs of a plan, each made once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: dict[Path, Job] = {}

    def run(self, run: Run, seed: int) -> Job:
        """Return the job that writes the evaluation of a run."""
        job = self.train(run, seed)
        for follow_up in run.kind.followed_by:
            job = self._follow(follow_up, run, seed, job)
        return job

    def train(self, run: Run, seed: int) -> Job:
        """Return the job that trains a run."""
        return self._train(self.training(run, seed), self._needs(run, seed))

    def training(self, run: Run, seed: int) -> Training:
        """Return what the training of a run is given."""
        return Training(
            run.command,
            run.name,
            seed,
            run.spec,
            self._plan.stored_spec(run, seed),
            self._plan.run_directory(run.name, seed),
            run.kind.outputs,
            self._plan.input_weights(run.name, seed),
            _trainings_before(self._needs(run, seed)),
            run,
        )

    def _needs(self, run: Run, seed: int) -> list[Job]:
        """Return the jobs whose files the training of a run reads."""
        needs = [self.data(name) for name in run.experiment.datasets]
        for each in run.experiment.inputs:
            if isinstance(each.source, str):
                needs.append(self.encoder(each.source, seed))
            else:
                needs.append(self.run(self._plan.run(each.source.name), seed))
        return needs

    def encoder(self, name: str, run_seed: int) -> Job:
        """Return the job that writes the weights of an encoder for the run of `run_seed`."""
        plan, encoder = self._plan, self._plan.config.encoders[name]
        seed, weights = plan.encoder_seed(name, run_seed), plan.encoder_weights(name, run_seed)
        if encoder.is_trained_here:
            return self.pretrain(name, seed)
        needs = []
        if encoder.epoch_of is not None:
            needs.append(self.encoder(encoder.epoch_of, run_seed))
        if encoder.source == "dvc":
            folder = plan.encoder_checkpoint(name, seed)
            needs.append(self._job(shlex.join(["dvc", "pull", str(folder.parent)]), folder / weights.name))
        return self._job(plan.shell_command("import", name, "--seed", str(seed)), weights, needs, name)

    def pretrain(self, name: str, seed: int) -> Job:
        """Return the job that pretrains an encoder."""
        data = self.data(str(self._plan.config.encoders[name].dataset))
        return self._train(self.pretraining(name, seed), [data], name)

    def pretraining(self, name: str, seed: int) -> Training:
        """Return what the pretraining of an encoder is given."""
        spec = self._plan.encoder(name)
        assert isinstance(spec, PretrainingSpec)
        return Training(
            "pretrain",
            name,
            seed,
            spec,
            spec.stored,
            self._plan.encoder_directory(name, seed),
            tuple(reversed(self._plan.encoder_files(name))),
        )

    def data(self, dataset: str) -> Job:
        """Return the job that builds or checks a dataset."""
        manifest = self._plan.manifest(dataset)
        if self._plan.config.datasets[dataset].miniature is not None:
            words = ["data", "build", dataset]
        else:
            words = ["data", "check", dataset, "--manifest", str(manifest)]
        needs: list[Job] = []
        for step in steps(self._plan, dataset):
            needs = [self._job(f"m2pt {step.command}", step.makes, needs)]
        return self._job(self._plan.shell_command(*words), manifest, needs)

    def _train(self, training: Training, needs: Iterable[Job], encoder: str | None = None) -> Job:
        command = self._plan.shell_command(training.kind, training.name, "--seed", str(training.seed))
        return self._job(command, training.directory / training.files[-1], needs, encoder, training)

    def _follow(self, follow_up: FollowUp, run: Run, seed: int, before: Job) -> Job:
        """Return the job of one of the commands after a training."""
        directory, command = self._plan.run_directory(run.name, seed), follow_up.command
        output = directory / follow_up.output
        if follow_up.input is None:
            line = self._plan.shell_command(command, run.name, "--seed", str(seed))
        else:
            line = shlex.join(["m2pt", command, str(directory / follow_up.input), str(output)])
        return self._job(line, output, [before])

    def _job(
        self,
        command: str,
        makes: Path,
        needs: Iterable[Job] = (),
        encoder: str | None = None,
        training: Training | None = None,
    ) -> Job:
        return self._made.setdefault(makes, Job(command, makes, tuple(needs), encoder, training))


def jobs(plan: Plan, runs: Iterable[Run] | None = None, seeds: Iterable[int] | None = None) -> list[Job]:
    """Return every job that these runs (default: all of the plan) need, each once, after those it waits for.

    `seeds` are those of the runs; default: the plan's.
    """
    known, seeds = Jobs(plan), list(plan.config.seeds if seeds is None else seeds)
    last = [known.run(run, seed) for run in (plan.runs.values() if runs is None else runs) for seed in seeds]
    return in_order(last)


def in_order(last: Iterable[Job]) -> list[Job]:
    """Return these jobs and all that they wait for, each once, after those it waits for."""
    found: dict[Path, Job] = {}

    def add(job: Job) -> None:
        if job.makes not in found:
            for need in job.needs:
                add(need)
            found[job.makes] = job

    for job in last:
        add(job)
    return list(found.values())


def trainings(plan: Plan, runs: Iterable[Run] | None = None) -> list[Training]:
    """Return every training that these runs need with all seeds of the plan, in the order of `jobs`."""
    return [job.training for job in jobs(plan, runs) if job.training is not None]


def used_encoders(plan: Plan) -> list[str]:
    """Return the encoders that runs start from or attach, and those of which these are earlier epochs."""
    used = {job.encoder for job in jobs(plan)}
    return [name for name in plan.config.encoders if name in used]


def pretrainings(plan: Plan) -> list[tuple[str, int]]:
    """Return encoder and seed of every pretraining that runs build on, done here or elsewhere."""
    names = [name for name in used_encoders(plan) if plan.config.encoders[name].pretrain is not None]
    return [(name, seed) for name in names for seed in plan.used_pretrain_seeds]


def _trainings_before(needs: Iterable[Job]) -> tuple[str, ...]:
    """Ids of the trainings whose weights are read, also where a job in between merges or copies them."""
    found: list[str] = []
    for job in needs:
        found += [job.training.id] if job.training else _trainings_before(job.needs)
    return tuple(dict.fromkeys(found))
