"""Names of the files and folders in a results folder and in the folder of a run or an encoder, `.../seedN/`.

Their contents are described where they are written and read: `m2pt.results` (JSON records),
`m2pt.training` (state) and `m2pt.formats` (weights).
"""

import re
from pathlib import Path

# ---- in the results folder -------------------------------------------------------------------------------

RUNS = "runs"
ENCODERS = "encoders"
"""Folders: trainings of targets and of encoders, NAME/seedN."""
DATA = "data"
"""Folder: miniature datasets, and the manifests of all datasets."""
LOGS = "logs"
BENCHMARKS = "benchmarks"
"""Folders: what the jobs of a workflow printed, and how long they took."""
TRACKING = "tracking"
"""Folder: how far each run has been mirrored to MLflow."""
MLFLOW_DATABASE = "mlflow.db"
MLFLOW_ARTIFACTS = "mlartifacts"
"""Default MLflow store: database and folder."""

CELLS = "cells.json"
"""Table cells of every run."""
CONFIG = "config.yaml"
"""The config with defaults filled in and overrides applied."""
STEP_COSTS = "step_costs.json"
"""Measured costs of optimizer steps."""
MANIFEST = "manifest.json"
"""Suffix: DATASET.manifest.json says what a dataset consists of."""
PREPARED, PACKED, FRAMES = "prepared.done", "packed.done", "frames.done"
"""Suffixes of empty files: a dataset is made of its downloads, is packed into shards, has its frames."""
PROVENANCE = "made.txt"
"""Suffix: TABLE.made.txt says how a table, figure or summary was made."""

SUMMARY = "summary"
"""Name of the result that lists the paper's claims."""
TABLE_FORMATS = ("csv", "md", "tex")
FIGURE_FORMATS = ("pdf", "svg", "png", "csv")
"""Suffixes of tables and figures."""

# ---- in the folder of a run or an encoder ----------------------------------------------------------------

RUN = "run.json"
"""Description of the training: spec, seed, provenance."""
METRICS = "metrics.jsonl"
"""Logged values of the training, one object per line."""
LOG = "train.log"
"""The training's progress, human-readable."""
SKIPPED = "skipped.txt"
"""Why samples of the training split were skipped, a line for each file: `m2pt.training.skipped`."""
LOCK = ".lock"
"""Locked by the process that trains."""

RESUME = "resume.pt"
"""State of an unfinished training."""
FINAL = "final.pt"
"""Weights of a finished training with outputs that are not exported yet."""

FINISHED = "finished.json"
INTERRUPTED = "interrupted.json"
FAILED = "failed.json"
"""How the last attempt ended: each is a marker with the step and, except the first, the reason."""

ENCODER = "encoder.safetensors"
"""Pretrained encoder."""
ATTACHED = "attached.safetensors"
"""Finetuned model with its pathways."""
MERGED = "merged.safetensors"
"""The same model as plain layers."""
MODEL = "model.safetensors"
"""Classifier of several modalities, with the weights of the epoch that the validation split selected."""
EVALUATION = "evaluation.json"
"""Metrics and their provenance."""
CHECKSUMS = "SHA256SUMS"
"""Digests of files that were pulled with DVC."""

SUPERSEDED = "superseded"
"""Folder: state of an earlier spec or of other input weights."""
DAMAGED = "damaged"
"""Folder: files that were found to be damaged."""
KEPT = "finished"
"""Folder: hard links to the outputs of a finished training, which Snakemake does not delete."""
KEPT_STATE = "state.json"
"""File in `KEPT`: identity and digests."""


SEED_FOLDER = re.compile(r"seed\d+")
"""Name of the folder of a training."""
ENCODER_EPOCH = re.compile(r"encoder-epoch\d+\.safetensors")
"""Names of encoders saved after an epoch that is not the last."""


def encoder_after(epoch: int) -> str:
    """Return the name of the encoder saved after `epoch`, which is not the last."""
    return f"encoder-epoch{epoch}.safetensors"


def training_folder(place: Path, name: str, seed: int | str) -> Path:
    """Return the folder of one training; `place` is, for example, `RUNS` in the results folder."""
    return place / name / f"seed{seed}"
