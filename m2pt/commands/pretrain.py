"""`m2pt pretrain ENCODER`: masked modelling, or a supervised classifier; writes encoder.safetensors."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError
from m2pt.schema.pulled import CHECKSUMS

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("encoder", help="name of an encoder of the config, for example pointcloud")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Pretrain; save the encoder without decoder or head after the last epoch and after `keep_epochs`."""
    from m2pt.commands import assembled, trained
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import save_weights
    from m2pt.training.launch import leave
    from m2pt.training.loop import fit
    from m2pt.training.settings import TrainingSettings

    plan = load_plan(arguments)
    name, seed = arguments.encoder, arguments.seed
    planned = plan.encoder(name)
    spec, recipe = planned.spec, planned.spec.get("recipe", {})
    if not plan.config.encoders[name].is_trained_here:
        pretrained = [key for key, value in plan.config.encoders.items() if value.is_trained_here]
        raise InputError(
            f"encoder {name!r} of {plan.source} is not pretrained here; those that are: "
            f"{', '.join(pretrained) or '(none)'}."
        )
    expect(arguments, plan.encoder_digest(name))
    directory = plan.encoder_directory(name, seed)

    training: trained.Training = {
        "name": name,
        "spec": spec,
        "seed": seed,
        "plan": plan,
        "weights": {},
        "dataset": spec["dataset"]["name"],
    }

    def save(epoch: int | None, model: "nn.Module") -> None:
        if trained.is_main():
            stem = "encoder" if epoch is None else f"encoder-epoch{epoch}"
            state = assembled.encoder_state(spec, model)
            save_weights(directory / f"{stem}.safetensors", state, trained.metadata(spec, seed))

    with trained.at_work_in(directory):
        (directory / CHECKSUMS).unlink(missing_ok=True)  # of weights that had come by DVC
        if trained.put_back(directory, **training):
            return
        trained.set_threads(plan)
        dataset = trained.open_dataset(plan, spec, "train", seed=seed, training=True)
        seed_generators(seed)
        model, loss = assembled.pretraining(spec)
        trained.check_room(directory, model)
        identity, _ = trained.describe_run(directory, **training)
        fit(
            model,
            loss,
            dataset,
            settings=TrainingSettings(**recipe["training"], **planned.execution),
            directory=directory,
            identity=identity,
            seed=seed,
            snapshots={epoch: partial(save, epoch) for epoch in recipe["keep_epochs"]},
            device=plan.config.device,
        )
        leave()
        save(None, model)
        if trained.is_main():
            # The final weights are put back last: then all are there.
            trained.keep_finished(directory, identity, [*reversed(plan.encoder_files(name))])
