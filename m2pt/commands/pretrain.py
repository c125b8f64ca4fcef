"""`m2pt pretrain ENCODER`: masked modeling, or a supervised classifier; writes encoder.safetensors."""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from m2pt.session import Setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("encoder", help="name of an encoder of the config, for example pointcloud")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Pretrain; save the encoder without decoder or head after the last epoch and after `keep_epochs`.

    Raises:
        InputError: the encoder is not pretrained here, or the dataset is missing or does not fit.
    """
    from m2pt import build, session
    from m2pt.datasets.base import seed_generators
    from m2pt.formats.weights import save_weights
    from m2pt.inputs import open_dataset
    from m2pt.plan.jobs import Jobs
    from m2pt.plan.specs import PretrainingSpec
    from m2pt.run_files import ENCODER, encoder_after
    from m2pt.training.launch import leave

    plan, name, seed = load_plan(arguments), arguments.encoder, arguments.seed
    spec = plan.encoder(name)
    if not (isinstance(spec, PretrainingSpec) and plan.config.encoders[name].is_trained_here):
        pretrained = [key for key, value in plan.config.encoders.items() if value.is_trained_here]
        raise InputError(
            f"encoder {name!r} of {plan.source} is not pretrained here; those that are: "
            f"{', '.join(pretrained) or '(none)'}."
        )
    expect(arguments, plan.encoder_digest(name))
    training = Jobs(plan).pretraining(name, seed)

    def save(file: str, model: "nn.Module") -> None:
        if session.is_main_process():
            state = build.encoder_state(spec, model)
            save_weights(training.directory / file, state, session.weights_metadata(spec.stored, seed))

    def set_up() -> "Setup":
        dataset = open_dataset(plan, spec, "train", seed=seed, training=True)
        seed_generators(seed)
        model, loss = build.pretraining(spec)
        epochs = spec.recipe.keep_epochs
        snapshots = {epoch: partial(save, encoder_after(epoch)) for epoch in epochs}
        return session.Setup(model, loss, dataset, snapshots=snapshots)

    def export(model: "nn.Module", made: Mapping[str, Any]) -> None:
        leave()
        save(ENCODER, model)

    session.train(plan, training, set_up, export)
