"""`m2pt import ENCODER`: an encoder from a file, or at random weights; writes encoder.safetensors."""

import argparse
from pathlib import Path

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError

PARTS: tuple[str, ...] = ("tokenizer", "blocks", "norm")
"""What makes an encoder; an auxiliary is its blocks alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("encoder", help="name of an encoder of the config with file: or random: true")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Check the file against the config's architecture, so that a wrong one is found before any training.

    An auxiliary's file needs the blocks; that of a target's start also tokenizer and norm.
    """
    from m2pt.commands import trained
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import load_weights, save_weights
    from m2pt.models.exchange import load_exchange, part_of, to_exchange
    from m2pt.models.transformer import build_encoder

    plan = load_plan(arguments)
    name, seed = arguments.encoder, arguments.seed
    source = plan.config.encoders.get(name)
    if source is None or source.pretrain is not None:
        raise InputError(
            f"no encoder {name!r} to import in {arguments.config}; pretrained ones are for m2pt pretrain."
        )
    spec = plan.encoders[name]
    expect(arguments, plan.encoder_digest(name))
    seed_generators(seed)
    encoder, parts = build_encoder(**spec["architecture"]), PARTS
    if source.file is not None:
        state, _ = load_weights(Path(source.file))
        starts = any(run.experiment.target_init == name for run in plan.runs.values())
        parts = PARTS if starts else ("blocks",)
        load_exchange(encoder, state, parts=parts, source=source.file)
    save_weights(
        plan.encoder_directory(name, seed) / "encoder.safetensors",
        {key: value for key, value in to_exchange(encoder.state_dict()).items() if part_of(key) in parts},
        trained.metadata(spec, seed),
    )
