"""Models put together as a run's spec says: the target, its start, its pathways."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from m2pt.commands.trained import load_input
from m2pt.errors import InputError
from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.exchange import load_exchange
from m2pt.models.transformer import Encoder, build_encoder
from m2pt.pathway import PathwayError, attach
from m2pt.schema.plan import Run, Spec

if TYPE_CHECKING:
    from torch import nn


def classifier(spec: Spec) -> Classifier:
    """Return the plain classifier of a run, at random weights."""
    return build_classifier(
        **spec["architecture"], **spec["recipe"]["model"], num_classes=spec["dataset"]["num_classes"]
    )


def start_from_inputs(model: Encoder, run: Run, weights: Mapping[str, Path]) -> None:
    """Load the target's start, if it has one, and attach the auxiliaries.

    Raises:
        InputError: a file is missing, damaged, stale, or does not fit the model.
    """
    if "target_init" in weights:
        path = weights["target_init"]
        state = load_input(path, run.spec["inputs"]["target_init"])
        parts = getattr(model, "pretrained_parts", ("tokenizer", "blocks"))
        load_exchange(model, state, parts=parts, source=str(path))
    auxiliaries = {}
    for name in run.experiment.auxiliaries:
        path = weights[f"auxiliary.{name}"]
        encoder = build_encoder(**run.spec["inputs"][name]["architecture"])
        state = load_input(path, run.spec["inputs"][name])
        load_exchange(encoder, state, parts=("blocks",), source=str(path))
        auxiliaries[name] = encoder.blocks
    attach_auxiliaries(model, run, auxiliaries)


def attach_auxiliaries(model: Encoder, run: Run, auxiliaries: "Mapping[str, nn.ModuleList]") -> None:
    """Attach as the run's pathway says; nothing if it has none.

    Raises:
        InputError: the blocks do not fit.
    """
    if run.experiment.pathway is None:
        return
    settings = run.experiment.pathway.model_dump(exclude={"auxiliaries"})
    try:
        attach(model.blocks, auxiliaries, **settings)
    except PathwayError as error:
        raise InputError(f"run {run.name}: {error}") from None


def attached_like(model: Encoder, run: Run) -> None:
    """Attach blocks of the right shapes, for weights that are loaded afterwards."""
    blocks = {
        name: build_encoder(**run.spec["inputs"][name]["architecture"]).blocks
        for name in run.experiment.auxiliaries
    }
    attach_auxiliaries(model, run, blocks)
