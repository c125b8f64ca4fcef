r"""What an auxiliary of another size does, attached with `unequal="slice"`, on the miniature.

    snakemake --cores all results/encoders/{image,pointcloud}/seed0/encoder.safetensors
    for size in "64 4 4" "144 9 9"; do
        read -r width depth heads <<< "$size"; folder=results/width$width; mkdir -p $folder
        sed "s/dim: 96/dim: $width/; s/num_heads: 6/num_heads: $heads/" \
            config/recipes/mini/pretrain_pointcloud.yaml > $folder/recipe.yaml
        sed "s|config/recipes/mini/pretrain_pointcloud.yaml|$folder/recipe.yaml|" \
            config/config.yaml > $folder/config.yaml
        snakemake --cores all $folder/encoders/pointcloud/seed0/encoder.safetensors \
            --configfile $folder/config.yaml --config results=$folder \
            "backbone={dim: $width, depth: $depth, num_heads: $heads, mlp_ratio: 4.0}" \
            "tables=[config/tables/table3.yaml]" "figures=[]" claims=null
    done
    python benchmarks/unequal_models.py --auxiliary results/width*/encoders/pointcloud/*/encoder.safetensors

Finetunes the image encoder on ImageNet in miniature, with the recipe of Table 1: without an auxiliary, with
the point cloud encoder of its own size, with the files that are given, and with models of each size at random
weights. Prints the top-1 accuracy (%), mean and standard deviation over the seeds.
"""

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from timm.models import VisionTransformer
from torch import nn

from m2pt import build
from m2pt.formats.weights import load_weights
from m2pt.inputs import open_dataset
from m2pt.models.exchange import body_size
from m2pt.pathway import attach
from m2pt.plan.jobs import Jobs
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.tasks.evaluation import evaluate
from m2pt.training.loading import evaluation_loader
from m2pt.training.loop import fit

HEAD = 16
"""Width of a head of the miniature."""


def blocks(path: Path, *, trained: bool) -> Sequence[nn.Module]:
    """Return the blocks of an encoder file, with its weights or with those of the same model at its start."""
    state, _ = load_weights(path)
    width, depth = body_size(state)
    model = VisionTransformer(img_size=32, embed_dim=width, depth=depth, num_heads=width // HEAD)
    if trained:
        model.load_state_dict(
            {key: value for key, value in state.items() if key.startswith("blocks.")}, strict=False
        )
    return list(model.blocks)


def baseline(plan: Plan) -> Run:
    """Return the run that finetunes the image encoder without an auxiliary."""
    for run in plan.runs.values():
        experiment = run.experiment
        factors = experiment.dataset, experiment.mode, experiment.target_init, experiment.pathway
        if factors == ("imagenet", "tune", "image", None) and experiment.transfer_from is None:
            return run
    raise SystemExit("the config has no run that finetunes the encoder image on imagenet")


def accuracy(plan: Plan, run: Run, seed: int, auxiliary: Path | None, *, trained: bool) -> float:
    """Finetune and return the top-1 accuracy in percent."""

    def start(model: nn.Module) -> None:
        build.start_from_inputs(model, plan, run, seed)
        if auxiliary is not None:
            attach(model.blocks, {"pointcloud": blocks(auxiliary, trained=trained)}, unequal="slice")

    model, task = build.run_model(run, start, seed=seed), build.target_task(run.spec)
    settings = Jobs(plan).training(run, seed).settings
    dataset = open_dataset(plan, run.spec, "train", seed=seed, training=True)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            task.loss,
            dataset,
            settings=settings,
            directory=Path(folder),
            identity="0" * 64,
            seed=seed,
            collate=task.collate,
        )
    validation = open_dataset(plan, run.spec, "val", seed=seed, training=False)
    loader = evaluation_loader(validation, settings.batch_size, 0, task.collate, rank=0, world=1)
    metrics = evaluate(task, model, loader, next(model.parameters()).device)
    assert metrics is not None
    return metrics["top1"]


def main() -> None:
    """Measure every case and print one line each."""
    parser = argparse.ArgumentParser(description="Accuracy with auxiliaries of another size")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--auxiliary", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    plan = Plan.load(arguments.config, {"seeds": list(range(arguments.seeds))})
    run = baseline(plan)
    files = [plan.encoder_directory("pointcloud", 0) / "encoder.safetensors", *arguments.auxiliary]
    for path, trained in [(None, True), *itertools.product(files, (True, False))]:
        found = [accuracy(plan, run, seed, path, trained=trained) for seed in range(arguments.seeds)]
        case = "no auxiliary"
        if path is not None:
            width, depth = body_size(load_weights(path)[0])
            case = f"{depth} blocks of width {width}{'' if trained else ', random'}"
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        print(f"{case:<32} {statistics.mean(found):6.2f} ± {spread:.2f}  {found}", flush=True)


if __name__ == "__main__":
    main()
