"""Models put together as a run's spec says: the target, its start, its pathways."""

from collections.abc import Mapping

import torch
from torch import nn

from m2pt.commands.trained import load_input
from m2pt.errors import InputError, RunError
from m2pt.models.classifier import Classifier, build_classifier
from m2pt.models.exchange import load_exchange
from m2pt.models.transformer import Encoder, build_encoder
from m2pt.pathway import PathwayError, attach, merge
from m2pt.schema.plan import Plan, Run, Spec

ROUNDING = 1e-4
"""Largest relative difference that float32 rounding explains: none with the same kernels."""


def classifier(spec: Spec) -> Classifier:
    """Return the plain classifier of a run, at random weights."""
    return build_classifier(
        **spec["architecture"], **spec["recipe"]["model"], num_classes=spec["dataset"]["num_classes"]
    )


def start_from_inputs(model: Encoder, plan: Plan, run: Run, seed: int) -> None:
    """Load what the target starts from, if anything, and attach the auxiliaries.

    Raises:
        InputError: a file is missing, damaged, stale, or does not fit the model.
    """
    weights = plan.input_weights(run.name, seed)
    for role in ("target_init", "transfer_from"):
        if role in weights:
            spec = run.spec["inputs"][role]
            if role == "transfer_from":
                spec = {**spec, "pretrain_seed": plan.pretrain_seed(seed)}
            state = load_input(plan, weights[role], spec)
            load_exchange(model, state, parts=model.pretrained_parts, source=str(weights[role]))
    auxiliaries = {}
    for name in run.experiment.auxiliaries:
        path = weights[f"auxiliary.{name}"]
        encoder = build_encoder(**run.spec["inputs"][name]["architecture"])
        state = load_input(plan, path, run.spec["inputs"][name])
        load_exchange(encoder, state, parts=("blocks",), source=str(path))
        auxiliaries[name] = encoder.blocks
    attach_auxiliaries(model, run, auxiliaries)


def attach_auxiliaries(model: Encoder, run: Run, auxiliaries: Mapping[str, nn.ModuleList]) -> None:
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


def merge_checked(encoder: Encoder, image_size: int) -> None:
    """Merge an image encoder in place and make sure, on noise, that the plain one is the same function.

    Raises:
        RunError: its tokens differ from the unmerged ones' beyond float32 rounding.
    """
    encoder.eval()
    images = torch.randn(2, 3, image_size, image_size, device=next(encoder.parameters()).device)
    with torch.inference_mode():
        before = encoder(images)
        merge(encoder)
        difference = ((encoder(images) - before).abs().max() / before.abs().max()).item()
    if not difference <= ROUNDING:
        raise RunError(
            f"merging changed the tokens by {difference:.2g} of the largest, "
            f"more than float32 rounding ({ROUNDING})"
        )


def attached_like(model: Encoder, run: Run) -> None:
    """Attach blocks of the right shapes, for weights that are loaded afterwards."""
    blocks = {
        name: build_encoder(**run.spec["inputs"][name]["architecture"]).blocks
        for name in run.experiment.auxiliaries
    }
    attach_auxiliaries(model, run, blocks)
