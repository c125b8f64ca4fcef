"""The factors of an experiment. A run's name is a readable slug and a hash of exactly these factors."""

import hashlib
import json
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from m2pt import catalog
from m2pt.config.names import MethodName, Name, SubsetName, TaskName
from m2pt.config.strict import Extended, Strict, no_duplicates
from m2pt.ranges import Alpha

Mode = Literal["tune", "fix"]
Layer = Literal["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "conv_dw"]
LAYERS: tuple[Layer, ...] = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SCRATCH = "scratch"


def digest(value: Any, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of a JSON-able value, whatever its key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


class PathwaySpec(Strict):
    """Which auxiliaries are attached to which layers, and how their scales behave (`pathway.attach`)."""

    auxiliaries: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Names of encoders."""
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = LAYERS
    scale_init: Annotated[float, Field(ge=-100, le=100)] = 0.0
    scale_trainable: bool = True
    order: Literal["normal", "reversed", "shuffled"] = "normal"
    """How the blocks of target and auxiliary are paired."""
    depth: Literal["all", "first_third", "middle_third", "last_third"] = "all"
    """Blocks that get pathways. For a third of them the order must be normal: "reversed" would no longer
    pair block i with block depth + 1 - i of the whole auxiliary."""

    @model_validator(mode="after")
    def _names_differ(self) -> "PathwaySpec":
        no_duplicates("auxiliaries", self.auxiliaries)
        no_duplicates("layers", self.layers)
        return self

    @model_validator(mode="after")
    def _other_orders_need_all_blocks(self) -> "PathwaySpec":
        if self.depth != "all" and self.order != "normal":
            raise ValueError(
                f"order: {self.order} pairs all blocks, depth: {self.depth} keeps a third of them; "
                "give depth: all or order: normal"
            )
        return self


class Balancing(Strict):
    """How a classifier of several modalities is trained."""

    method: MethodName
    alpha: Alpha | None = None
    """Strength of the modulation, in place of the recipe's."""
    modalities: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Modalities that the model reads; all by default."""
    encoders: dict[Name, Name] = Field(default_factory=dict)
    """Encoders of this config that the model's transformers start from, by modality."""

    @model_validator(mode="after")
    def _fits(self) -> "Balancing":
        if self.alpha is not None and not catalog.method(self.method).has_alpha:
            raise ValueError(f"method {self.method} takes no alpha")
        no_duplicates("modalities", self.modalities or ())
        return self


class Experiment(Extended):
    """The factors of one training on a target task."""

    added: ClassVar[tuple[str, ...]] = ("other_datasets", "fusion", "balancing")

    task: TaskName
    dataset: Name
    subset: SubsetName | None = None
    """Part of the dataset to train on, for a dataset with subsets."""
    mode: Mode
    """"tune" trains all weights, "fix" freezes the linear weights."""
    target_init: Name
    """Name of an encoder, or "scratch"."""
    pathway: PathwaySpec | None = None
    transfer_from: "Experiment | None" = None
    """Experiment whose merged model a transfer starts from."""
    other_datasets: tuple[Name, ...] = ()
    """Datasets that the training reads besides `dataset`, for kinds of run that train on several."""
    fusion: Name | None = None
    """Name of the fusion of several modalities."""
    balancing: Balancing | None = None
    """Method of joint training on several modalities."""

    @model_validator(mode="after")
    def _merged_models_have_no_pathway(self) -> "Experiment":
        if self.transfer_from is not None and self.pathway is not None:
            raise ValueError("a transfer from a merged model takes no pathway")
        return self

    @property
    def command(self) -> str:
        """Name of the kind of run, and of the command that trains it."""
        return catalog.task(self.task).kind

    @property
    def kind(self) -> catalog.Kind:
        """Kind of run: the catalog's for the task."""
        return catalog.kind(self.command)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that the training reads, the evaluated one first."""
        return (self.dataset, *self.other_datasets)

    @property
    def auxiliaries(self) -> tuple[str, ...]:
        """Names of the auxiliary encoders that this training attaches."""
        return self.pathway.auxiliaries if self.pathway else ()

    @property
    def inputs(self) -> "tuple[Input, ...]":
        """Weights that the training reads: what it starts from, if anything, and its auxiliaries."""
        if self.transfer_from is not None:
            start = [Input("transfer_from", "transfer_from", self.transfer_from)]
        elif self.target_init != SCRATCH:
            start = [Input("target_init", "target_init", self.target_init)]
        else:
            start = []
        encoders = self.balancing.encoders if self.balancing else {}
        return (
            *start,
            *(Input(f"auxiliary.{name}", name, name) for name in self.auxiliaries),
            *(
                Input(f"encoder.{modality}", f"encoder.{modality}", name)
                for modality, name in encoders.items()
            ),
        )

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders that the experiment and the one it starts from need, each once."""
        sources = (each.source for each in self.inputs)
        names = ((source,) if isinstance(source, str) else source.encoders for source in sources)
        return tuple(dict.fromkeys(chain.from_iterable(names)))

    @property
    def name(self) -> str:
        """Readable slug and 8 hex digits of the factors: the run's folder below results/runs."""
        origin = self.transfer_from or self
        subset = [self.subset.lower()] if self.subset else []
        parts = [*self.datasets, *subset, self.mode, "from", origin.target_init, *origin.auxiliaries]
        if self.balancing is not None:
            parts = [
                *self.datasets,
                str(self.fusion),
                self.balancing.method,
                *(self.balancing.modalities or ()),
            ]
        return "-".join([*parts, digest(self.model_dump(mode="json"), 8)])


class Input(NamedTuple):
    """Weights that a run reads: of an encoder, by its name, or the merged model of an experiment.

    `role` names the file in run.json, `key` the spec among the inputs of the run's spec.
    """

    role: str
    key: str
    source: str | Experiment
