"""What comes by DVC must be whole, and what the config asks for: the stored spec against the config's."""

import shlex
from pathlib import Path
from typing import Any

from m2pt.commands.checksums import check_checksums
from m2pt.errors import InputError, short
from m2pt.formats.documents import parse_json
from m2pt.reporting.cells import differing
from m2pt.schema.plan import Plan, Spec
from m2pt.schema.pulled import check_pulled, pulled_files

SHOWN = 6
"""Differences that are written out; there may be a hundred of them."""


def check_checkpoint(plan: Plan, encoder: str, seed: int) -> None:
    """Check the files of an encoder with `source: dvc`: their checksums, their specs against the config's.

    Where a dataset of yours lies is no difference: it lies elsewhere on the machine that pretrained.

    Raises:
        InputError: a file is missing, damaged, or was made with another spec or seed; both are shown.
    """
    check_pulled(plan, encoder, seed)
    check_checksums(plan.encoder_checkpoint(encoder, seed), plan.encoder_files(encoder))
    for path in pulled_files(plan, encoder, seed):
        differences = different_from(path, _without_root(plan.encoders[encoder]), seed, clean=_without_root)
        if differences:
            raise InputError(
                f"{path}: made with another spec than {plan.source} asks for: {differences}. "
                f"Fetch the version that was made with it (git checkout REVISION dvc.lock; dvc pull "
                f"{shlex.quote(str(path.parent.parent))}), give the config the stored values, or set "
                f"encoders.{encoder}.source: train to pretrain it here."
            )


def different_from(path: Path, spec: Spec, seed: int, *, clean: Any = dict) -> str:
    """Say in what the spec and seed stored in a weight file differ from these; empty if in nothing.

    `clean` is applied to the stored spec before it is compared.

    Raises:
        InputError: the file is missing or damaged.
    """
    from m2pt.formats.weight_files import load_metadata

    metadata = load_metadata(path)
    if "spec" not in metadata:
        return "it stores no spec, so m2pt did not write it"
    stored = parse_json(metadata["spec"], f"{path}: its spec")
    if not isinstance(stored, dict):
        return "what it stores is not a spec, so m2pt did not write it"
    found = list(differing(clean(stored), spec))
    if metadata.get("seed") != str(seed):
        found.append(f"seed: stored {short(str(metadata.get('seed')))}, asked for {seed}")
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join(found[:SHOWN] + more)


def _without_root(spec: Spec) -> Spec:
    """The spec without the folder of the dataset; that there is one still counts."""
    dataset = spec.get("dataset", {})
    if not isinstance(dataset, dict):
        return spec
    root = None if dataset.get("root") is None else "a folder of yours"
    return {**spec, "dataset": {**dataset, "root": root}}
