"""`m2pt import`: bring in an encoder that is not trained here, of the config or any published checkpoint."""

import argparse
from pathlib import Path

from m2pt.command_line import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError, listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "encoder",
        metavar="ENCODER|FILE",
        help="name of an encoder of the config with source: dvc, file:, epoch_of: or random: true, whose "
        "encoder.safetensors is written; or, with --output, a checkpoint to convert",
    )
    file = parser.add_argument_group("to convert a checkpoint")
    file.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write, .safetensors")
    file.add_argument("--modality", help="what the model was trained on")
    file.add_argument(
        "--keep-pathways",
        action="store_true",
        help="keep the auxiliary of a model of M2PT instead of merging it",
    )
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Import the encoder; see `m2pt.ops.import_encoder` and `m2pt.ops.convert_checkpoint`.

    Raises:
        InputError: the encoder is pretrained here, its source is missing or does not fit, or an option is.
    """
    if arguments.output is not None or arguments.modality is not None or arguments.keep_pathways:
        _convert(arguments)
        return
    from m2pt.ops.import_encoder import import_encoder

    plan, name = load_plan(arguments), arguments.encoder
    if name not in plan.config.encoders and Path(name).is_file():
        raise InputError(f"{name} is a file: to convert it, give --output FILE.safetensors and --modality")
    plan.encoder(name)  # raises if there is none
    if plan.config.encoders[name].is_trained_here:
        raise InputError(
            f"encoder {name!r} of {plan.source} is pretrained, not imported: m2pt pretrain {name}"
        )
    expect(arguments, plan.encoder_digest(name))
    import_encoder(plan, name, arguments.seed)


def _convert(arguments: argparse.Namespace) -> None:
    from m2pt import catalog
    from m2pt.ops.convert_checkpoint import convert_checkpoint

    if arguments.output is None or arguments.modality not in catalog.MODALITIES:
        raise InputError(
            "to convert a checkpoint, give --output FILE.safetensors and --modality, one of "
            f"{listed(catalog.MODALITIES)}"
        )
    convert_checkpoint(
        Path(arguments.encoder), arguments.modality, arguments.output, keep_pathways=arguments.keep_pathways
    )
