"""The experiments of a table's cell and the recipe of an experiment, for each kind of run.

`Kind.experiments` and `Kind.recipe` in the catalog name these functions. They raise an InputError that says
what is wrong; the caller adds the config, and the column or run.
"""

from collections.abc import Iterator
from typing import Any

from m2pt import catalog
from m2pt.config.config import Body, Config
from m2pt.config.experiment import SCRATCH, Experiment
from m2pt.config.tables import Column, Factors
from m2pt.errors import InputError, listed


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
    _refuse_balancing(factors)
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
    _refuse_balancing(factors)
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


def multimodal_experiments(config: Config, factors: Factors, column: Column) -> Iterator[Experiment]:
    """Yield the experiment of a cell; see `finetune_experiments`.

    Raises:
        InputError: the row has no method or a key of another kind, or the method names a modality that the
            dataset does not have.
    """
    balancing = factors.balancing
    if balancing is None:
        raise InputError("the task is trained with a method: give the row balancing: {method: ...}")
    if factors.target_init != SCRATCH or factors.pathway is not None:
        raise InputError("a row with balancing takes target_init: scratch and no pathway")
    known = config.datasets[column.dataset].modalities
    for name in (*(balancing.modalities or ()), *balancing.encoders):
        if name not in known:
            raise InputError(f"{column.dataset} has no modality {name!r}; it has {listed(known)}")
    # equal trainings get one name: neither the order in a row nor a default that it repeats counts
    read = tuple(name for name in known if name in (balancing.modalities or known))
    measured = column.metric.rpartition("_")[2]  # the modality of top1_MODALITY
    if measured in catalog.MODALITIES and (measured not in read or len(read) == 1):
        raise InputError(
            f"metric {column.metric}: the run reads {' and '.join(read)}, so it has "
            f"{listed([f'top1_{name}' for name in read]) if len(read) > 1 else 'no response of a modality'}; "
            "leave this column out of the row's columns"
        )
    for name, encoder in balancing.encoders.items():
        if name not in (balancing.modalities or known):
            raise InputError(f"balancing.encoders: {name} is not among the modalities of the row")
        found = config.encoders[encoder]
        if (found.modality, found.body) != (name, "transformer"):
            raise InputError(
                f"balancing.encoders.{name}: {encoder} is a {found.body} of modality {found.modality}"
            )
    yield Experiment(
        task=column.task,
        dataset=column.dataset,
        mode="tune",
        target_init=SCRATCH,
        fusion=column.fusion,
        balancing=balancing.model_copy(update={"modalities": None if read == known else read}),
    )


def multimodal_recipe(config: Any, experiment: Experiment, body: Body) -> str:
    """Return the recipe file of an experiment, by dataset and fusion; see `finetune_recipe`.

    Raises:
        InputError: the config has none.
    """
    dataset, fusion = experiment.dataset, experiment.fusion
    if len(config.datasets[dataset].modalities) < 2:
        raise InputError(f"{dataset} has one modality, but {experiment.task} is trained on several")
    fusions = config.multimodal[dataset].fusions if dataset in config.multimodal else {}
    if fusion not in fusions:
        raise InputError(f"the config has no recipe multimodal.{dataset}.fusions.{fusion}")
    path: str = fusions[fusion]
    return path


def _refuse_balancing(factors: Factors) -> None:
    if factors.balancing is not None:
        raise InputError("the task takes no balancing; leave this column out of the row's columns")


_CONVNEXT = "a ConvNeXt can only be finetuned, with mode: tune"
