"""Files that DVC moves: checksums, and checks of encoders with `source: dvc`. Needs no torch."""

import json
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from m2pt.atomic import write_text
from m2pt.errors import InputError, short
from m2pt.formats.documents import parse_json, read_bytes, read_text
from m2pt.formats.weight_files import file_digest, load_metadata
from m2pt.plan.plan import Plan
from m2pt.plan.specs import Stored
from m2pt.results import Description, read, spec_differences
from m2pt.run_files import CHECKSUMS, ENCODER, RUN

_MAX_DIFFERENCES = 6
"""Maximum number of differences in a message; there may be a hundred of them."""


def fetched_weights(plan: Plan, encoder: str, seed: int) -> list[Path]:
    """Return the weight files of an encoder with `source: dvc`, the final one and the kept epochs."""
    folder = plan.encoder_checkpoint(encoder, seed)
    return [folder / name for name in plan.encoder_files(encoder)]


def check_fetched(plan: Plan, encoder: str, seed: int) -> None:
    """Check that all weight files of an encoder with `source: dvc` and their checksums exist.

    Raises:
        InputError: a file is missing; the message has the command that fetches it.
    """
    for path in (*fetched_weights(plan, encoder, seed), plan.encoder_checkpoint(encoder, seed) / CHECKSUMS):
        if not path.exists():
            command = shlex.join(["dvc", "pull", str(path.parent.parent)])
            raise InputError(
                f"{path}: missing, and encoders.{encoder}.source = 'dvc' in {plan.source}; fetch it with: "
                f"{command} (see docs/checkpoints.md), or set source: train to pretrain it here."
            )


def check_checkpoint(plan: Plan, encoder: str, seed: int) -> None:
    """Check the files of an encoder with `source: dvc`: their checksums, and their specs against the config.

    The folder of a dataset is not compared: it may differ on the machine that pretrained.

    Raises:
        InputError: a file is missing, damaged, or was made with another spec or seed.
    """
    check_fetched(plan, encoder, seed)
    check_checksums(plan.encoder_checkpoint(encoder, seed), plan.encoder_files(encoder))
    expected = _without_root(plan.encoders[encoder].stored)
    for path in fetched_weights(plan, encoder, seed):
        differences = describe_differences(path, expected, seed, normalize=_without_root)
        if differences:
            raise InputError(
                f"{path}: made with a spec other than that of {plan.source}: {differences}. "
                f"Fetch the version that was made with it (git checkout REVISION dvc.lock; dvc pull "
                f"{shlex.quote(str(path.parent.parent))}), give the config the stored values, or set "
                f"encoders.{encoder}.source: train to pretrain it here."
            )


def is_pretrained_here(plan: Plan, encoder: str) -> bool:
    """Return whether an encoder with `source: dvc` was pretrained in this results folder, with this spec.

    It was if, for every seed, its weights are in the results folder and the run.json beside them, which names
    machine, process and time, equals the one that was fetched.

    Raises:
        InputError: run.json is damaged.
    """
    if plan.config.encoders[encoder].source != "dvc":
        return False
    for seed in plan.used_pretrain_seeds:
        here, fetched = plan.encoder_directory(encoder, seed), plan.encoder_checkpoint(encoder, seed)
        if (here / CHECKSUMS).exists() or not (here / ENCODER).exists():
            return False  # imported, or missing
        if not ((here / RUN).exists() and (fetched / RUN).exists()):
            return False
        if read_bytes(here / RUN) != read_bytes(fetched / RUN):
            return False
        if read(Description, here / RUN).spec != json.loads(json.dumps(plan.encoders[encoder].stored)):
            return False
    return True


def describe_differences(
    path: Path, spec: Stored, seed: int, *, normalize: Callable[[Stored], Stored] = dict
) -> str:
    """Describe how the spec and seed stored in a weight file differ from these; return "" if they are equal.

    `normalize` is applied to the stored spec before it is compared.

    Raises:
        InputError: the file is missing or damaged.
    """
    metadata = load_metadata(path)
    if "spec" not in metadata:
        return "it has no spec, so m2pt did not write it"
    stored = parse_json(metadata["spec"], f"{path}: its spec")
    if not isinstance(stored, dict):
        return "its spec is malformed, so m2pt did not write it"
    found = list(spec_differences(normalize(stored), spec))
    if metadata.get("seed") != str(seed):
        found.append(f"seed: stored {short(str(metadata.get('seed')))}, expected {seed}")
    more = [f"and {len(found) - _MAX_DIFFERENCES} more"] if len(found) > _MAX_DIFFERENCES else []
    return "; ".join(found[:_MAX_DIFFERENCES] + more)


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of these files of a folder, unless they are up to date."""
    text = "".join(f"{file_digest(folder / name)}  {name}\n" for name in names)
    path = folder / CHECKSUMS
    if not path.exists() or read_bytes(path) != text.encode():
        write_text(path, text)


def check_checksums(folder: Path, names: Iterable[str]) -> None:
    """Compare files of a folder with its checksums.

    Raises:
        InputError: a file has no checksum, or another one.
    """
    path = folder / CHECKSUMS
    lines = read_text(path).splitlines()
    sums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        found = file_digest(folder / name)
        if sums.get(name) != found:
            raise InputError(
                f"{folder / name}: damaged, its SHA-256 is {found}, but {path} says "
                f"{sums.get(name, 'nothing')}. DVC does not check the objects in its cache. Fetch it again: "
                f"rm -r {shlex.quote(str(folder))}; mv .dvc/cache/files .dvc/cache/set-aside; "
                f"dvc pull {shlex.quote(str(folder.parent))}. If it is still damaged, the object in the "
                "remote is (docs/checkpoints.md, When it fails)."
            )


def _without_root(spec: Stored) -> Stored:
    """Return the spec with a placeholder for the root of the dataset; only its presence counts."""
    dataset = spec.get("dataset", {})
    if not isinstance(dataset, dict):
        return spec
    root = None if dataset.get("root") is None else "a folder of yours"
    return {**spec, "dataset": {**dataset, "root": root}}
