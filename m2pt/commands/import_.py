"""`m2pt import ENCODER`: import an encoder that is not trained here; writes encoder.safetensors."""

import argparse

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "encoder", help="name of an encoder of the config with source: dvc, file:, epoch_of: or random: true"
    )
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Import the encoder; see `m2pt.ops.import_encoder`.

    Raises:
        InputError: the encoder is pretrained here, or its source is missing or does not fit.
    """
    from m2pt.ops.import_encoder import import_encoder

    plan, name = load_plan(arguments), arguments.encoder
    plan.encoder(name)  # raises if there is none
    if plan.config.encoders[name].is_trained_here:
        raise InputError(
            f"encoder {name!r} of {plan.source} is pretrained, not imported: m2pt pretrain {name}"
        )
    expect(arguments, plan.encoder_digest(name))
    import_encoder(plan, name, arguments.seed)
