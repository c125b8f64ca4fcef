"""`m2pt import ENCODER`: an encoder that is not trained here; writes encoder.safetensors."""

import argparse
from pathlib import Path

from m2pt.atomic import write_text
from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError
from m2pt.formats.documents import read_text
from m2pt.schema.pulled import CHECKSUMS, pulled_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "encoder", help="name of an encoder of the config with source: dvc, file:, epoch_of: or random: true"
    )
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Take it from `checkpoints`, a file or a kept epoch of another encoder, or initialise it at random.

    What comes by DVC must have been made with the config's spec; its kept epochs are taken with it. A file is
    checked against the config's architecture, so that a wrong one is found before any training: an auxiliary
    needs the blocks; a target's start also tokenizer and norm.

    Raises:
        InputError: the encoder is pretrained, or what it is taken from is missing or does not fit.
    """
    from m2pt.commands import trained
    from m2pt.commands.pulled import check_checkpoint
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import load_weights, save_weights
    from m2pt.models.bodies import build_body
    from m2pt.models.exchange import load_exchange, part_of, to_exchange

    plan = load_plan(arguments)
    name, seed = arguments.encoder, arguments.seed
    spec = plan.encoder(name).spec
    source = plan.config.encoders[name]
    if source.is_trained_here:
        raise InputError(
            f"encoder {name!r} of {plan.source} is pretrained, not imported: m2pt pretrain {name}"
        )
    expect(arguments, plan.encoder_digest(name))
    seed_generators(seed)
    directory = plan.encoder_directory(name, seed)
    if source.source == "dvc":
        check_checkpoint(plan, name, seed)
        checksums = read_text(plan.encoder_checkpoint(name, seed) / CHECKSUMS)
        write_text(directory / CHECKSUMS, checksums)  # from now on the folder is no training's
        for path in reversed(pulled_files(plan, name, seed)):  # the final weights last: then all are there
            # Written anew: a link into DVC's cache would let a change here damage what DVC keeps.
            save_weights(directory / path.name, load_weights(path)[0], trained.metadata(spec, seed))
        return
    if source.epoch_of is not None:
        folder = plan.encoder_directory(source.epoch_of, seed)
        path, final = folder / f"encoder-epoch{source.epoch}.safetensors", folder / "encoder.safetensors"
        if not path.exists():
            raise InputError(f"{path}: missing; make it with: {plan.command(final, again=True)}")
        state = trained.load_input(plan, path, plan.encoders[source.epoch_of], made_with=final)
    else:
        encoder = build_body(spec["architecture"])
        state = to_exchange(encoder.state_dict())
        if source.file is not None:
            given, _ = load_weights(Path(source.file))
            load_exchange(encoder, given, parts=spec["parts"], source=source.file)
            state = to_exchange(encoder.state_dict())
            state = {key: value for key, value in state.items() if part_of(key) in spec["parts"]}
    save_weights(directory / "encoder.safetensors", state, trained.metadata(spec, seed))
