"""`m2pt finetune RUN`: attach the auxiliaries to a target and finetune it; writes attached.safetensors."""

import argparse
from typing import TYPE_CHECKING

from m2pt.commands.planned import add_plan_arguments, add_seed_argument, expect, load_plan

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="name of a finetuned run, a folder under results/runs")
    add_seed_argument(parser)
    add_plan_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Finetune and save the weights with their pathways."""
    from m2pt import pathway
    from m2pt.commands import assembled, trained
    from m2pt.datasets.seeded import seed_generators
    from m2pt.formats.weights import save_weights
    from m2pt.models.exchange import to_exchange
    from m2pt.training.launch import leave
    from m2pt.training.loop import fit
    from m2pt.training.settings import TrainingSettings

    plan = load_plan(arguments)
    seed, planned = arguments.seed, plan.finetuned(arguments.run)
    expect(arguments, planned.digest)
    experiment, spec = planned.experiment, plan.seeded_spec(planned, seed)
    directory = plan.run_directory(planned.name, seed)

    training: trained.Training = {
        "name": planned.name,
        "spec": spec,
        "seed": seed,
        "plan": plan,
        "weights": plan.input_weights(planned.name, seed),
        "dataset": experiment.dataset,
    }

    with trained.at_work_in(directory):
        if trained.put_back(directory, **training):
            return
        trained.set_threads(plan)
        dataset = trained.open_dataset(plan, spec, "train", seed=seed, training=True)
        seed_generators(seed)
        model, task = assembled.target_model(spec), assembled.target_task(spec)
        assembled.start_from_inputs(model, plan, planned, seed)
        if experiment.mode == "fix":
            freeze_all_but_head_and_scales(model)
        trained.check_room(directory, model)
        identity, _ = trained.describe_run(directory, **training)
        fit(
            model,
            task.loss,
            dataset,
            settings=TrainingSettings(**spec["recipe"]["training"], **planned.execution),
            directory=directory,
            identity=identity,
            seed=seed,
            collate=task.collate,
            describe=pathway.scales,
            device=plan.config.device,
        )
        leave()
        if trained.is_main():
            state = to_exchange(model.state_dict())
            save_weights(directory / "attached.safetensors", state, trained.metadata(spec, seed))
            trained.keep_finished(directory, identity, ["attached.safetensors"])


def freeze_all_but_head_and_scales(model: "nn.Module") -> None:
    """Leave exactly the classifier and the cross-modal scales trainable (the paper's "fix" setting)."""
    from m2pt.pathway import is_scale

    for name, parameter in model.named_parameters():
        parameter.requires_grad_((is_scale(name) and parameter.requires_grad) or name.startswith("head."))
