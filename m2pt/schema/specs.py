"""Specs: everything that a result depends on, as plain values; what a file stores and is compared by.

A spec leaves out how a training is executed (`EXECUTION`): more loader processes or rarer checkpoints change
no bit of it, and must neither throw it away nor run it again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from m2pt.errors import InputError, listed
from m2pt.schema.audio_recipes import MultilabelFinetuning
from m2pt.schema.base import Model, Strict, read_part
from m2pt.schema.config import MODALITY_OF_LAYOUT, Config, Encoder
from m2pt.schema.experiments import SCRATCH, Experiment
from m2pt.schema.pointcloud_recipes import PartSegmentation, PointSegmentation, check_taps
from m2pt.schema.recipes import PRETRAINING, Finetuning
from m2pt.schema.supervised_recipes import SUPERVISED
from m2pt.schema.text_recipes import TextPretraining
from m2pt.schema.transfer_recipes import TRANSFER, check_fit
from m2pt.schema.video_recipes import VideoFinetuning
from m2pt.training.settings import EXECUTION

Spec = dict[str, Any]

MASKED: dict[str, type[Strict]] = {**PRETRAINING, "text": TextPretraining}

FINETUNING: dict[tuple[str, str], type[Strict]] = {
    ("classification", "imagenet"): Finetuning,
    ("classification", "kinetics"): VideoFinetuning,
    ("multilabel_classification", "audioset"): MultilabelFinetuning,
    ("part_segmentation", "shapenetpart"): PartSegmentation,
    ("point_segmentation", "partnet"): PointSegmentation,
}
"""The recipe of a finetuned task, by the layout of its dataset."""

DENSE = {"detection": "coco", "semantic_segmentation": "ade20k"}
"""The layout of a dense task's dataset."""


@dataclass(frozen=True)
class Planned:
    """What a training is made of, and how it is executed."""

    spec: Spec
    execution: Spec


class Specs:
    """Resolves a config's names into specs, reading each recipe once.

    Args:
        config: the config.
        starts: names of the encoders that a target starts from: a file for one needs more than its blocks.
        source: the config's file, for messages.
    """

    def __init__(self, config: Config, starts: Collection[str], source: str) -> None:
        self.config = config
        self._source = source
        self._starts = starts
        self._recipes: dict[tuple[str, type], Any] = {}

    def modality(self, dataset: str) -> str:
        """Modality of a dataset of the config."""
        return MODALITY_OF_LAYOUT[self.config.datasets[dataset].layout]

    def dataset(self, name: str, subset: str | None = None) -> Spec:
        """Everything that determines what a reader of this dataset, or of one subset of it, sees."""
        spec = {"name": name, **self.config.datasets[name].model_dump(mode="json")}
        del spec["full_check"]
        if subset is not None:
            spec |= {"subset": subset, "num_classes": (self.config.datasets[name].subsets or {})[subset]}
            del spec["subsets"]
        return spec

    def architecture(self, modality: str, body: str = "transformer") -> Spec:
        """Sizes of an encoder and how its input becomes tokens."""
        settings = getattr(self.config.modalities, modality).model_dump(mode="json")
        if body == "convnext" and self.config.convnext is not None:
            sizes = self.config.convnext.model_dump(mode="json")
            return {"modality": modality, "body": body, "input": settings["input"], "convnext": sizes}
        return {"modality": modality, "backbone": self.config.backbone.model_dump(mode="json"), **settings}

    def encoder(self, name: str) -> Planned:
        """Resolve an encoder.

        Raises:
            InputError: its recipe is wrong, or does not keep the epoch that is asked for.
        """
        encoder = self.config.encoders[name]
        architecture = self.architecture(encoder.modality, encoder.body)
        if encoder.random:
            return Planned({"random": True, "architecture": architecture}, {})
        if encoder.file is not None:
            parts = ["tokenizer", "blocks", "norm"] if name in self._starts else ["blocks"]
            return Planned({"file": encoder.file, "parts": parts, "architecture": architecture}, {})
        if encoder.epoch_of is not None:
            return self._kept_epoch(name, encoder.epoch_of, encoder.epoch or 0)
        return self._pretrained(encoder, architecture)

    def _pretrained(self, encoder: Encoder, architecture: Spec) -> Planned:
        path, dataset = str(encoder.pretrain), str(encoder.dataset)
        kinds = MASKED if encoder.objective == "masked" else SUPERVISED
        recipe, execution = self._recipe(path, kinds[encoder.modality])
        return Planned(
            {
                "task": "masked_modelling" if encoder.objective == "masked" else "supervised",
                "dataset": self.dataset(dataset),
                "architecture": architecture,
                "recipe": recipe,
                "threads": self.config.threads,
            },
            execution,
        )

    def _kept_epoch(self, name: str, source: str, epoch: int) -> Planned:
        spec = self.encoder(source).spec
        kept = spec["recipe"]["keep_epochs"]
        if epoch not in kept:
            raise InputError(
                f"{self._source}: encoders.{name}: epoch = {epoch}: {self.config.encoders[source].pretrain} "
                f"keeps the epochs {listed(kept)}; give one of them, or add it to keep_epochs "
                "there."
            )
        return Planned({**spec, "epoch": epoch}, {})

    def run(self, experiment: Experiment, inputs: Spec) -> Planned:
        """Resolve an experiment whose input weights have the specs `inputs`.

        Raises:
            InputError: the recipe is missing from the config, or does not fit.
        """
        modality, body = self.modality(experiment.dataset), "transformer"
        start = self.config.encoders.get((experiment.transfer_from or experiment).target_init)
        if start is not None:
            body = start.body
            if start.modality != modality:
                raise InputError(
                    f"{self._source}: run {experiment.name}: it starts from an encoder of modality "
                    f"{start.modality}, but {experiment.dataset} is a dataset of modality {modality}."
                )
        recipe, execution = self._run_recipe(experiment, body)
        architecture = self.architecture(modality, body)
        for part in ("input", "tokenizer"):  # a dense task looks closer than a pretraining
            if part in recipe:
                architecture[part] = {**architecture[part], **recipe[part]}
        return Planned(
            {
                "experiment": experiment.model_dump(mode="json"),
                "dataset": self.dataset(experiment.dataset, experiment.subset),
                "architecture": architecture,
                "recipe": recipe,
                "inputs": inputs,
                "threads": self.config.threads,
            },
            execution,
        )

    def _run_recipe(self, experiment: Experiment, body: str) -> tuple[Spec, Spec]:
        task, layout = experiment.task, self.config.datasets[experiment.dataset].layout
        if layout != DENSE.get(task) and (task, layout) not in FINETUNING:
            raise InputError(
                f"{self._source}: run {experiment.name}: {task} cannot be trained on a dataset "
                f"of layout {layout}."
            )
        if body == "convnext" and (experiment.is_transfer or experiment.mode == "fix"):
            raise InputError(
                f"{self._source}: run {experiment.name}: a ConvNeXt can only be finetuned (mode tune) here."
            )
        if experiment.is_transfer:
            dense, model = self.config.transfer[experiment.dataset].recipe, TRANSFER[task]
            check_fit(
                dense, self._model(dense, model), self.config.backbone.depth, self.config.modalities.image
            )
            return self._recipe(dense, model)
        start = "scratch" if experiment.target_init == SCRATCH else "pretrained"
        key = f"{'convnext' if body == 'convnext' else start}_{experiment.mode}"
        recipes = self.config.finetune.get(experiment.dataset)
        path: str | None = getattr(recipes, key, None)
        if path is None:
            raise InputError(
                f"{self._source}: run {experiment.name}: the config has no recipe "
                f"finetune.{experiment.dataset}.{key}."
            )
        kind = FINETUNING[task, layout]
        if issubclass(kind, PointSegmentation):
            check_taps(path, self._model(path, kind), self.config.backbone.depth)
        return self._recipe(path, kind)

    def _recipe(self, path: str, model: type[Strict]) -> tuple[Spec, Spec]:
        """The recipe as a spec, and apart from it what only concerns the execution."""
        values = self._model(path, model).model_dump(mode="json")
        training: Mapping[str, Any] = values["training"]
        return (
            {**values, "training": {key: value for key, value in training.items() if key not in EXECUTION}},
            {key: training[key] for key in EXECUTION},
        )

    def _model(self, path: str, model: type[Model]) -> Any:
        if (path, model) not in self._recipes:
            self._recipes[path, model] = read_part(model, path, self._source)
        return self._recipes[path, model]
