"""Encoders that come by DVC: where their files lie, and what to do where they do not."""

import json
import shlex
from pathlib import Path

from m2pt.errors import InputError
from m2pt.formats.documents import read_bytes
from m2pt.results import RUN, Description, read
from m2pt.schema.plan import Plan

CHECKSUMS = "SHA256SUMS"
"""Name of the file beside them with the checksums of all."""


def pulled_files(plan: Plan, encoder: str, seed: int) -> list[Path]:
    """Weight files of an encoder with `source: dvc`: the final one and those of the kept epochs."""
    folder = plan.encoder_checkpoint(encoder, seed)
    return [folder / name for name in plan.encoder_files(encoder)]


def check_pulled(plan: Plan, encoder: str, seed: int) -> None:
    """Make sure that all of them and their checksums are there.

    Raises:
        InputError: one is missing; the message has the command that fetches it.
    """
    for path in (*pulled_files(plan, encoder, seed), plan.encoder_checkpoint(encoder, seed) / CHECKSUMS):
        if not path.exists():
            command = shlex.join(["dvc", "pull", str(path.parent.parent)])
            raise InputError(
                f"{path}: missing, and encoders.{encoder}.source = 'dvc' in {plan.source}; fetch it with: "
                f"{command} (see docs/checkpoints.md), or set source: train to pretrain it here."
            )


def is_from_here(plan: Plan, encoder: str) -> bool:
    """Whether an encoder with `source: dvc` was pretrained in this results folder, with the config's spec.

    It was if, for every seed, its weights lie there and the run.json beside them is the one that came by DVC,
    which names machine, process and time.

    Raises:
        InputError: that file is damaged.
    """
    if plan.config.encoders[encoder].source != "dvc":
        return False
    for seed in plan.used_pretrain_seeds:
        here, pulled = plan.encoder_directory(encoder, seed), plan.encoder_checkpoint(encoder, seed)
        if (here / CHECKSUMS).exists() or not (here / "encoder.safetensors").exists():
            return False  # imported, or not there
        if not ((here / RUN).exists() and (pulled / RUN).exists()):
            return False
        if read_bytes(here / RUN) != read_bytes(pulled / RUN):
            return False
        if read(Description, here / RUN).spec != json.loads(json.dumps(plan.encoders[encoder])):
            return False
    return True
