"""Encoders that come by DVC: where their files lie, and what to do where they do not."""

from pathlib import Path

from m2pt.errors import InputError
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
            raise InputError(
                f"{path}: missing, and encoders.{encoder}.source = 'dvc' in {plan.source}; fetch it with: "
                f"dvc pull {path.parent.parent} (see docs/checkpoints.md), or set source: train to pretrain "
                "it here."
            )
