"""The factors of an experiment. A run's name is a readable slug and a hash of exactly these."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from m2pt.schema.base import Strict, no_duplicates
from m2pt.schema.config import Name
from m2pt.schema.paths import SubsetName

Task = Literal[
    "classification",
    "multilabel_classification",
    "part_segmentation",
    "point_segmentation",
    "detection",
    "semantic_segmentation",
]
Mode = Literal["tune", "fix"]
Layer = Literal["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "conv_dw"]
LAYERS: tuple[Layer, ...] = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
SCRATCH = "scratch"

TRANSFERS = ("detection", "semantic_segmentation")
"""The tasks that start from a model finetuned on another dataset; the others are finetuned and merged."""

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("top1", "top5"),
    "multilabel_classification": ("map", "top1"),
    "part_segmentation": ("miou_class", "miou_instance", "point_accuracy"),
    "point_segmentation": ("miou", "shape_miou", "point_accuracy"),
    "detection": ("ap_box", "ap50_box", "ap_mask", "ap50_mask"),
    "semantic_segmentation": ("miou", "pixel_accuracy"),
}
"""What each task measures, in percent."""


def digest(value: Any, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of a JSON-able value, whatever its key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


class PathwaySpec(Strict):
    """Which auxiliaries are attached to which layers, and how their scales behave (`pathway.attach`).

    `depth` keeps the pathways to a third of the blocks, which are paired in normal order only: cut to a
    third, "reversed" would no longer pair block i with block depth + 1 - i of the whole auxiliary.
    """

    auxiliaries: Annotated[tuple[Name, ...], Field(min_length=1)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = LAYERS
    scale_init: Annotated[float, Field(ge=-100, le=100)] = 0.0
    scale_trainable: bool = True
    order: Literal["normal", "reversed", "shuffled"] = "normal"
    depth: Literal["all", "first_third", "middle_third", "last_third"] = "all"

    @model_validator(mode="after")
    def _names_differ(self) -> "PathwaySpec":
        no_duplicates("auxiliaries", self.auxiliaries)
        no_duplicates("layers", self.layers)
        return self

    @model_validator(mode="after")
    def _another_order_is_of_all_blocks(self) -> "PathwaySpec":
        if self.depth != "all" and self.order != "normal":
            raise ValueError(
                f"order: {self.order} is about the whole depth, depth: {self.depth} about a third of it; "
                "give depth: all or order: normal"
            )
        return self


class Experiment(Strict):
    """The factors of one training on a target task.

    `subset`: the part of the dataset that is trained on, where it has any; `mode`: tune = everything is
    trained, fix = linear weights frozen; `target_init`: an encoder's name or "scratch"; `transfer_from`: the
    experiment whose merged model a dense task starts from.
    """

    task: Task
    dataset: Name
    subset: SubsetName | None = None
    mode: Mode
    target_init: Name
    pathway: PathwaySpec | None = None
    transfer_from: "Experiment | None" = None

    @model_validator(mode="after")
    def _merged_models_have_no_pathway(self) -> "Experiment":
        if self.transfer_from is not None and self.pathway is not None:
            raise ValueError("a transfer from a merged model takes no pathway of its own")
        return self

    @property
    def is_transfer(self) -> bool:
        """Whether the `transfer` command trains this, not `finetune`."""
        return self.task in TRANSFERS

    @property
    def chain(self) -> "tuple[Experiment, ...]":
        """This experiment and the one that it starts from, if any."""
        return (self,) if self.transfer_from is None else (self, self.transfer_from)

    @property
    def auxiliaries(self) -> tuple[str, ...]:
        """Names of the auxiliary encoders that this training itself attaches."""
        return self.pathway.auxiliaries if self.pathway else ()

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders that go into this experiment and the one that it starts from, each once."""
        chain = (name for each in self.chain for name in (each.target_init, *each.auxiliaries))
        return tuple(dict.fromkeys(name for name in chain if name != SCRATCH))

    @property
    def name(self) -> str:
        """Readable slug and 8 hex digits of the factors: the run's folder under results/runs."""
        origin = self.transfer_from or self
        subset = [self.subset.lower()] if self.subset else []
        parts = [self.dataset, *subset, self.mode, "from", origin.target_init, *origin.auxiliaries]
        return "-".join([*parts, digest(self.model_dump(mode="json"), 8)])
