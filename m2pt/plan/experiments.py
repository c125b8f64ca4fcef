"""The experiments of a table's cell and the recipe of an experiment, for each kind of run.

`Kind.experiments` and `Kind.recipe` in the catalogue name these functions. They raise an InputError that says
what is wrong; the caller adds the config, and the column or run.
"""

from collections.abc import Iterator

from m2pt.config.config import Body, Config
from m2pt.config.experiment import SCRATCH, Experiment
from m2pt.config.tables import Column, Factors
from m2pt.errors import InputError


def target_init(config: Config, factors: Factors) -> str:
    """Return the name of the encoder that a row's targets start from, or "scratch"."""
    return config.target_encoders.get(factors.target_init, factors.target_init)


def finetune_experiments(config: Config, factors: Factors, column: Column) -> Iterator[Experiment]:
    """Yield the experiments of a cell, one for each subset of the dataset if it has any.

    Args:
        config: the config, whose encoders and datasets include those of the cell.
        factors: what the cells of the row have in common.
        column: the column, with the keys that the kind needs.
    """
    for subset in config.datasets[column.dataset].subsets or (None,):
        yield Experiment(
            task=column.task,
            dataset=column.dataset,
            subset=subset,
            mode=column.mode or "tune",
            target_init=target_init(config, factors),
            pathway=factors.pathway,
        )


def finetune_recipe(config: Config, experiment: Experiment, body: Body) -> str:
    """Return the recipe file of an experiment: by dataset, start and mode.

    Args:
        config: the config.
        experiment: an experiment of this kind.
        body: of the model.

    Raises:
        InputError: the config has none, or a model of this body cannot be trained in this way.
    """
    if body == "convnext" and experiment.mode == "fix":
        raise InputError(_CONVNEXT)
    start = "scratch" if experiment.target_init == SCRATCH else "pretrained"
    key = f"{'convnext' if body == 'convnext' else start}_{experiment.mode}"
    path: str | None = getattr(config.finetune.get(experiment.dataset), key, None)
    if path is None:
        raise InputError(f"the config has no recipe finetune.{experiment.dataset}.{key}")
    return path


def transfer_experiments(config: Config, factors: Factors, column: Column) -> Iterator[Experiment]:
    """Yield the experiment of a cell; see `finetune_experiments`.

    Raises:
        InputError: the config has no section for the dataset, or no classifier can be finetuned on the
            dataset that is transferred from.
    """
    if column.dataset not in config.transfer:
        raise InputError(f"the config has no transfer.{column.dataset} section")
    transfer = config.transfer[column.dataset]
    from_finetuned = (factors.transfer_from or transfer.transfer_from) == "finetuned"
    classifier = config.datasets[str(column.transfer_from)].classifier
    if classifier is None:
        raise InputError(f"transfer_from: {column.transfer_from} has no labels for a classifier")
    finetuned = Experiment(
        task=classifier,
        dataset=column.transfer_from or "",
        mode="tune",
        target_init=target_init(config, factors),
        pathway=factors.pathway,
    )
    yield Experiment(
        task=column.task,
        dataset=column.dataset,
        mode="fix" if transfer.freeze_backbone else "tune",
        target_init=target_init(config, factors),
        pathway=None if from_finetuned else factors.pathway,
        transfer_from=finetuned if from_finetuned else None,
    )


def transfer_recipe(config: Config, experiment: Experiment, body: Body) -> str:
    """Return the recipe file of an experiment; see `finetune_recipe`.

    Raises:
        InputError: the body is a ConvNeXt.
    """
    if body == "convnext":
        raise InputError(_CONVNEXT)
    return config.transfer[experiment.dataset].recipe


_CONVNEXT = "a ConvNeXt can only be finetuned, with mode: tune"
