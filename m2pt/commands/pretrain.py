"""`m2pt pretrain ENCODER`: masked autoencoding; writes encoder.safetensors."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan
from m2pt.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("encoder", help="name of an encoder of the config, for example pointcloud")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Pretrain, and save the encoder without its decoder: after the last epoch and after `keep_epochs`."""
    from m2pt.commands import trained
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import save_weights
    from m2pt.models.exchange import to_exchange
    from m2pt.models.masked_autoencoder import build_masked_autoencoder
    from m2pt.tasks.masked_autoencoding import reconstruction_loss
    from m2pt.training import checkpoint
    from m2pt.training.loop import fit
    from m2pt.training.settings import TrainingSettings

    plan = load_plan(arguments)
    name, seed = arguments.encoder, arguments.seed
    source = plan.config.encoders.get(name)
    if source is None or source.dataset is None:
        pretrained = ", ".join(key for key, value in plan.config.encoders.items() if value.dataset)
        raise InputError(f"no encoder {name!r} to pretrain in {arguments.config}; there are {pretrained}.")
    spec = plan.encoders[name]
    expect(arguments, plan.encoder_digest(name))
    recipe, architecture = spec["recipe"], spec["architecture"]

    trained.set_threads(plan)
    dataset = trained.open_dataset(
        plan,
        source.dataset,
        "train",
        seed=seed,
        augmentation=recipe["augmentation"],
        input=architecture["input"],
    )
    directory = plan.encoder_directory(name, seed)
    identity, _ = trained.describe_run(
        directory, name=name, spec=spec, seed=seed, plan=plan, weights={}, dataset=source.dataset
    )
    seed_generators(seed)
    model = build_masked_autoencoder(
        **architecture,
        decoder=recipe["decoder"],
        mask_ratio=recipe["mask_ratio"],
        drop_path=recipe["drop_path"],
    )
    trained.check_room(directory, model)

    def save(epoch: int | None, model: "nn.Module") -> None:
        if not trained.is_main():
            return
        name = "encoder" if epoch is None else f"encoder-epoch{epoch}"
        encoder = to_exchange(model.get_submodule("encoder").state_dict())
        save_weights(directory / f"{name}.safetensors", encoder, trained.metadata(spec, seed))

    fit(
        model,
        reconstruction_loss,
        dataset,
        settings=TrainingSettings(**recipe["training"]),
        directory=directory,
        identity=identity,
        seed=seed,
        snapshots={epoch: partial(save, epoch) for epoch in recipe["keep_epochs"]},
        device=plan.config.device,
    )
    save(None, model)
    if trained.is_main():
        checkpoint.remove(directory, checkpoint.FINAL)
