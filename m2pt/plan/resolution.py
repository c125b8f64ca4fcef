"""From the names in a config to specs: datasets, encoders and experiments, with their recipes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from m2pt import catalog
from m2pt.config.architecture import Backbone, ConvNeXt
from m2pt.config.config import Body, Config, Encoder
from m2pt.config.experiment import Experiment
from m2pt.config.recipes import Pretraining, Recipe, masked_recipe, supervised_recipe, task_recipe
from m2pt.config.strict import read_part
from m2pt.errors import InputError, listed
from m2pt.plan.specs import (
    Architecture,
    DatasetSpec,
    EncoderSpec,
    ExternalSpec,
    PretrainingSpec,
    RunSpec,
    Spec,
    modalities_of,
    without_unset,
)


class Specs:
    """Resolves a config's names into specs, reading each recipe once.

    Args:
        config: the config.
        target_encoders: names of the encoders that targets start from. Of a file for one of them, more than
            the blocks is read.
        source: the config's file, for messages.
        has_sizes: whether the backbone is that of the config's file; recipes are checked against no other.
    """

    def __init__(
        self, config: Config, target_encoders: Collection[str], source: str, *, has_sizes: bool = True
    ) -> None:
        self.config = config
        self._has_sizes = has_sizes
        self._source = source
        self._target_encoders = target_encoders
        self._recipes: dict[tuple[Any, ...], Recipe] = {}

    def dataset(self, name: str, subset: str | None = None) -> DatasetSpec:
        """Return the spec of a dataset, or of one subset of it."""
        return DatasetSpec(name, self.config.datasets[name], subset)

    def architecture(self, modality: str, body: Body = "transformer") -> Architecture:
        """Return the sizes of an encoder, and how its input becomes tokens.

        Raises:
            InputError: the config has no section for this modality.
        """
        section = self._section(modality)
        settings = section.model_dump(mode="json")
        if body == "convnext":
            return Architecture(modality, self._sizes(body), settings["input"])
        eps = settings.get("norm_eps")
        if eps is not None and eps == type(section).model_fields["norm_eps"].default:
            eps = None
        sizes = self.config.backbone
        if (heads := settings.get("num_heads")) is not None:
            sizes = sizes.model_copy(update={"num_heads": heads})
        fields = type(section.tokenizer).model_fields
        added = {name: fields[name].default for name in getattr(section.tokenizer, "ADDED", ())}
        tokenizer = without_unset(settings["tokenizer"], added)
        return Architecture(modality, sizes, settings["input"], tokenizer, eps)

    def _sizes(self, body: Body) -> Backbone | ConvNeXt:
        sizes = self.config.convnext if body == "convnext" else self.config.backbone
        assert sizes is not None  # checked by Config
        return sizes

    def _section(self, modality: str) -> Any:
        if modality not in self.config.modalities:
            raise InputError(f"{self._source}: {self.config.missing_section(modality)}.")
        return self.config.modalities[modality]

    def encoder(self, name: str) -> EncoderSpec:
        """Resolve an encoder.

        Raises:
            InputError: its recipe is wrong, or does not keep the epoch that is asked for; or a target starts
                from a file of unknown modality.
        """
        encoder = self.config.encoders[name]
        if encoder.file is not None:
            return self._file(name, encoder, encoder.file)
        if encoder.epoch_of is not None:
            return self._kept_epoch(name, encoder.epoch_of, encoder.epoch or 0)
        architecture = self.architecture(str(encoder.modality), encoder.body)
        return ExternalSpec(architecture) if encoder.random else self._pretrained(encoder, architecture)

    def _file(self, name: str, encoder: Encoder, file: str) -> ExternalSpec:
        modality = encoder.modality if encoder.modality in self.config.modalities else None
        if name in self._target_encoders and modality is None:
            raise InputError(
                f"{self._source}: encoders.{name}: targets start from it, so that it needs their modality; "
                f"give modality: one of {listed(self.config.modalities)}."
            )
        if modality is None:
            architecture = Architecture(encoder.modality, self._sizes(encoder.body))
        else:
            architecture = self.architecture(modality, encoder.body)
        parts = ("tokenizer", "blocks", "norm") if name in self._target_encoders else ("blocks",)
        return ExternalSpec(architecture, file, parts)

    def _pretrained(self, encoder: Encoder, architecture: Architecture) -> PretrainingSpec:
        dataset = self.dataset(str(encoder.dataset))
        compose = masked_recipe if encoder.objective == "masked" else supervised_recipe
        recipe = self._recipe(str(encoder.pretrain), compose, dataset.layout)
        assert isinstance(recipe, Pretraining)
        return PretrainingSpec(encoder.objective, dataset, architecture, recipe, self.config.threads)

    def _kept_epoch(self, name: str, source: str, epoch: int) -> PretrainingSpec:
        spec = self.encoder(source)
        assert isinstance(spec, PretrainingSpec)  # checked by Config
        kept = spec.recipe.keep_epochs
        if epoch not in kept:
            raise InputError(
                f"{self._source}: encoders.{name}: epoch = {epoch}: {self.config.encoders[source].pretrain} "
                f"keeps the epochs {listed(kept)}; give one of them, or add it to keep_epochs there."
            )
        return replace(spec, epoch=epoch)

    def run(self, experiment: Experiment, inputs: Mapping[str, Spec]) -> RunSpec:
        """Resolve an experiment whose input weights have the specs `inputs`.

        Raises:
            InputError: the recipe is missing from the config, or does not fit.
        """
        for name in experiment.datasets:
            if name not in self.config.datasets:
                known = listed(self.config.datasets)
                raise self._error(experiment, f"no dataset {name!r} in the config; it has {known}")
            if experiment.datasets.count(name) > 1:
                raise self._error(experiment, f"duplicate dataset {name!r}; each may be given once")
        dataset = self.dataset(experiment.dataset, experiment.subset)
        others = tuple(self.dataset(name) for name in experiment.other_datasets)
        modalities = modalities_of((dataset, *others))
        if len(modalities) > 1 and not experiment.kind.several_modalities:
            raise self._error(
                experiment,
                f"{experiment.task} is trained on one modality, but its data has {' and '.join(modalities)}",
            )
        body: Body = "transformer"
        start = self.config.encoders.get((experiment.transfer_from or experiment).target_init)
        if start is not None:
            body = start.body
            if start.modality not in modalities:
                raise self._error(
                    experiment,
                    f"it starts from an encoder of modality {start.modality}, but {experiment.dataset} is a "
                    f"dataset of modality {' and '.join(modalities)}",
                )
        recipe = self._run_recipe(experiment, modalities, body)
        architectures = {
            name: self._finer(self.architecture(name, body), settings)
            for name, settings in recipe.transformers(modalities).items()
        }
        threads = self.config.threads
        return RunSpec(experiment, dataset, architectures, recipe, inputs, threads, others)

    def _finer(self, architecture: Architecture, settings: Mapping[str, Any]) -> Architecture:
        """Replace settings of the config: a dense task may read finer inputs than a pretraining."""
        changes: dict[str, Any] = {
            part: {**getattr(architecture, part), **values} for part, values in settings.items()
        }
        return replace(architecture, **changes)

    def without_defaults(self, experiment: Experiment) -> Experiment:
        """Return the experiment without an alpha that its recipe has too: equal trainings get one name.

        Raises:
            InputError: the recipe is missing from the config, or cannot be read.
        """
        balancing = experiment.balancing
        if balancing is None or balancing.alpha is None:
            return experiment
        layout = self.config.datasets[experiment.dataset].layout
        path = self._recipe_path(experiment, "transformer")
        recipe: Any = self._recipe(path, task_recipe, experiment.task, layout)
        if getattr(recipe.methods.get(balancing.method), "alpha", None) != balancing.alpha:
            return experiment
        return experiment.model_copy(update={"balancing": balancing.model_copy(update={"alpha": None})})

    def lacks_norm(self, experiment: Experiment) -> str | None:
        """Return why a model cannot start from its encoder's file: it needs the norm; None if it can.

        Raises:
            InputError: the recipe is missing from the config, or cannot be read.
        """
        encoder = self.config.encoders.get(experiment.target_init)
        if experiment.transfer_from is not None or encoder is None or encoder.norm:
            return None
        layout = self.config.datasets[experiment.dataset].layout
        path = self._recipe_path(experiment, encoder.body)
        if not self._recipe(path, task_recipe, experiment.task, layout).starts_with_norm:
            return None
        return (
            f"encoder {experiment.target_init} has norm: false, but models of {path} start with the final "
            "norm; give weights that have it"
        )

    def _recipe_path(self, experiment: Experiment, body: Body) -> str:
        """Return the recipe file of an experiment, as its kind of run has it."""
        owner = f"kind {experiment.command}: recipe"
        recipe_of = catalog.load(experiment.kind.recipe, owner)
        try:
            with catalog.naming(owner):
                path = recipe_of(self.config, experiment, body)
            if not isinstance(path, str):
                raise InputError(f"{owner}: must return the path of a file, got {path!r}")
        except InputError as error:
            raise self._error(experiment, str(error)) from None
        return path

    def _run_recipe(self, experiment: Experiment, modalities: Sequence[str], body: Body) -> Recipe:
        dataset = self.config.datasets[experiment.dataset]
        if catalog.layout(dataset.layout).labels != catalog.task(experiment.task).labels:
            raise self._error(
                experiment, f"{experiment.task} cannot be trained on a dataset of layout {dataset.layout}"
            )
        path = self._recipe_path(experiment, body)
        recipe = self._recipe(path, task_recipe, experiment.task, dataset.layout)
        with catalog.naming(f"task {experiment.task}: recipe"):
            try:
                recipe = recipe.chosen(experiment, modalities)
                sections = {name: self._section(name) for name in recipe.transformers(modalities)}
                if self._has_sizes:
                    recipe.check_fit(self.config.backbone, sections)
            except ValueError as error:
                raise InputError(f"{path}: {error}.") from None
        return recipe

    def _recipe(self, path: str, compose: Callable[..., type[Recipe]], *names: str) -> Recipe:
        """Read a recipe file once for each class of recipes that `compose` gives for the names of entries."""
        key = (path, compose, *names)
        if key not in self._recipes:
            self._recipes[key] = read_part(compose(*names), path, self._source)
        return self._recipes[key]

    def _error(self, experiment: Experiment, fault: str) -> InputError:
        return InputError(f"{self._source}: run {experiment.name}: {fault}.", cause=fault)
