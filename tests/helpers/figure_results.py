"""A figure of each kind, and the results that it shows: chosen values, three seeds."""

import csv

from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.render import render, to_csv
from m2pt.reporting.figures.style import style

IMAGE = {"task": "classification", "dataset": "imagenet", "mode": "tune"}
AUDIO = {"task": "multilabel_classification", "dataset": "audioset", "mode": "tune"}
PARTS = {"task": "point_segmentation", "dataset": "partnet", "mode": "tune"}
TABLE = {
    "title": "Pairs",
    "caption": "Two targets.",
    "columns": [
        {"name": "top1", "group": "ImageNet", "title": "top-1 (%)", "metric": "top1", **IMAGE},
        {"name": "map", "group": "AudioSet", "title": "mAP (%)", "metric": "map", **AUDIO},
        {"name": "miou", "group": "PartNet", "title": "mIoU (%)", "metric": "miou", **PARTS},
    ],
    "rows": [
        {"method": "MAE", "run": {"target_init": "image"}, "columns": ["top1"], "published": {"top1": 83.3}},
        {
            "method": "M2PT-Audio",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["audio"]}},
            "columns": ["top1"],
            "baseline": "MAE",
            "published": {"top1": 83.7},
        },
        {
            "method": "M2PT-Point",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["pointcloud"]}},
            "columns": ["top1"],
            "baseline": "MAE",
            "published": {"top1": 83.9},
        },
        {
            "method": "early",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["pointcloud_early"]}},
            "columns": ["top1"],
            "baseline": "MAE",
        },
        {
            "method": "random",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["random"]}},
            "columns": ["top1"],
            "baseline": "MAE",
        },
        {
            "method": "AudioMAE",
            "run": {"target_init": "audio"},
            "columns": ["map"],
            "published": {"map": 35.3},
        },
        {
            "method": "M2PT-Image",
            "run": {"target_init": "audio", "pathway": {"auxiliaries": ["image"]}},
            "columns": ["map"],
            "baseline": "AudioMAE",
            "published": {"map": 35.6},
        },
        {"method": "Point-MAE", "run": {"target_init": "pointcloud"}, "columns": ["miou"]},
    ],
}
for row in TABLE["rows"]:
    row["setting"] = "pretrained"

GRID = {
    "auxiliaries": {"image": "Image", "audio": "Audio"},
    "targets": [
        {"title": "Image", "cells": {"audio": "pairs:M2PT-Audio:top1"}, "published": {"audio": 0.5}},
        {"title": "Audio", "cells": {"image": "pairs:M2PT-Image:map"}},
    ],
}
FIGURES = {
    "gains": {"kind": "gain_matrix", **GRID},
    "scales": {
        "kind": "scales",
        **{**GRID, "targets": [{k: v for k, v in t.items() if k != "published"} for t in GRID["targets"]]},
    },
    "quality": {
        "kind": "auxiliary_quality",
        "points": [
            {"cell": "pairs:M2PT-Point:top1", "published_epochs": 300},
            {"cell": "pairs:early:top1"},
            {"cell": "pairs:random:top1"},
        ],
    },
    "curves": {
        "kind": "training_curves",
        "curves": {"MAE": "pairs:MAE:top1", "with audio": "pairs:M2PT-Audio:top1"},
    },
    "bars": {"kind": "gain_bars", "bars": {"audio": "pairs:M2PT-Audio:top1", "early": "pairs:early:top1"}},
    "logged": {
        "kind": "logged_values",
        "panels": {
            "Coefficient": ["coefficient/audio", "coefficient/image"],
            "Accuracy": ["val_top1", "val_top1_audio"],
        },
        "cells": {"Joint": "pairs:MAE:top1", "AGM": "pairs:M2PT-Audio:top1"},
        "log": ["Coefficient"],
    },
    "values": {
        "kind": "values",
        "series": {
            "AGM": {"4": "pairs:early:top1", "0.5": "pairs:M2PT-Audio:top1", "1e0": "pairs:M2PT-Point:top1"},
            "MSLR": {"1": "pairs:random:top1"},
        },
        "x_label": "alpha",
        "log_x": True,
        "references": {"Joint": "pairs:MAE:top1"},
    },
}

# By the auxiliary (None for a baseline): what each seed measures. Audio's gains are 1, 1.2 and 0.8.
TOP1 = {
    None: (80.0, 82.0, 84.0),
    "audio": (81.0, 83.2, 84.8),
    "pointcloud": (80.5, 81.0, 85.0),
    "pointcloud_early": (79.0, 83.0, 83.5),
    "random": (80.0, 81.0, 85.5),
}
MAP = {None: (50.0, 51.0, 52.0), "image": (50.5, 50.0, 53.0)}
LOSSES = {0: (2.0, 1.0), 1: (2.2, 1.2), 2: (2.4, 0.8)}
SCALES = {
    "blocks.0.attn.qkv.pathways.{}.scale": 0.1,
    "blocks.3.mlp.fc2.pathways.{}.scale": -0.3,
}


def log(seed):
    """Lines of a metrics.jsonl: one in each of two epochs, and one at the end of each.

    The coefficients are 1 + seed and 1 / (1 + seed), and twice that in the second epoch.
    """
    lines = []
    for epoch, loss in enumerate(LOSSES[seed], start=1):
        when = {"step": 10 * epoch, "epoch": epoch}
        coefficients = {"audio": epoch * (1 + seed), "image": epoch / (1 + seed)}
        lines += [
            {
                **when,
                "loss": loss,
                **{f"coefficient/{name}": x for name, x in coefficients.items()},
                "lr": 1e-3,
            },
            {**when, "val_top1": 50.0 + 10 * epoch + seed, "val_top1_audio": 40.0 + seed},
        ]
    return lines


def scales(auxiliary, seed):
    return {name.format(auxiliary): value + 0.01 * seed for name, value in SCALES.items()}


def drawn(plan, name):
    with style():
        return render(FigureCells(plan, plan.figure(name)))


def rows(plan, name):
    _, records = drawn(plan, name)
    return list(csv.DictReader(to_csv(records).splitlines()))


def run_of(plan, *auxiliaries, target="image"):
    return next(
        name
        for name, run in plan.runs.items()
        if run.experiment.target_init == target and run.experiment.auxiliaries == auxiliaries
    )
