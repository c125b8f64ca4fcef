"""Import an encoder that is not trained here: from DVC, a file, a kept epoch, or random weights."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from torch import Tensor

from m2pt import job_log, session
from m2pt.atomic import write_text
from m2pt.checkpoints.conversion import convert, entries
from m2pt.checkpoints.stated import stated_settings
from m2pt.datasets.base import seed_generators
from m2pt.errors import InputError, listed
from m2pt.formats.documents import read_text
from m2pt.formats.weight_files import load_metadata, tensor_names
from m2pt.formats.weights import load_checkpoint, load_weights, save_weights
from m2pt.inputs import load_input
from m2pt.models.bodies import build_body
from m2pt.models.exchange import load_exchange, part_of, to_exchange
from m2pt.models.transformer import Encoder, tokenizer_class
from m2pt.plan.dvc import check_checkpoint, fetched_weights
from m2pt.plan.plan import Plan
from m2pt.plan.specs import ExternalSpec
from m2pt.run_files import CHECKSUMS, ENCODER, encoder_after

State = dict[str, Tensor]


def import_encoder(plan: Plan, name: str, seed: int) -> None:
    """Write encoder.safetensors and, if the encoder comes from DVC, its kept epochs.

    Weights from DVC must have been made with the config's spec. A file is checked against the config's
    architecture, so that a wrong one is found before any training: an auxiliary needs the blocks; a target's
    start also tokenizer and norm.

    Raises:
        InputError: what the encoder is taken from is missing or does not fit.
    """
    directory, spec = plan.encoder_directory(name, seed), plan.encoder(name)
    job_log.begin(f"import {name}, seed {seed}", {"source": _source(plan, name, seed), "results": directory})
    seed_generators(seed)
    metadata = session.weights_metadata(spec.stored, seed)
    paths, tensors = [], 0
    for file, state in _files(plan, name, seed):
        save_weights(directory / file, state, metadata)
        paths.append(directory / file)
        tensors = len(state)
    job_log.end(*paths, note=f"{tensors} tensors")


def _source(plan: Plan, name: str, seed: int) -> str:
    """Return what the encoder is taken from."""
    encoder = plan.config.encoders[name]
    if encoder.source == "dvc":
        return f"DVC, {plan.encoder_checkpoint(name, seed)}"
    if encoder.epoch_of is not None:
        return f"epoch {encoder.epoch} of encoder {encoder.epoch_of}"
    return "random weights" if encoder.file is None else f"file {encoder.file}"


def _files(plan: Plan, name: str, seed: int) -> Iterator[tuple[str, State]]:
    """Yield the names of the files to write and their weights; the final weights last."""
    encoder = plan.config.encoders[name]
    if encoder.source == "dvc":
        yield from _from_dvc(plan, name, seed)
    elif encoder.epoch_of is not None:
        yield ENCODER, _from_epoch(plan, encoder.epoch_of, encoder.epoch or 0, seed)
    else:
        yield ENCODER, _from_file_or_random(plan, name)


def _from_dvc(plan: Plan, name: str, seed: int) -> Iterator[tuple[str, State]]:
    check_checkpoint(plan, name, seed)
    checksums = read_text(plan.encoder_checkpoint(name, seed) / CHECKSUMS)
    # From now on the folder is no training's.
    write_text(plan.encoder_directory(name, seed) / CHECKSUMS, checksums)
    for path in reversed(fetched_weights(plan, name, seed)):
        # Loaded and written anew: a link into DVC's cache would let a change here damage what DVC keeps.
        yield path.name, load_weights(path)[0]


def _from_epoch(plan: Plan, name: str, epoch: int, seed: int) -> State:
    folder = plan.encoder_directory(name, seed)
    path, final = folder / encoder_after(epoch), folder / ENCODER
    if not path.exists():
        raise InputError(f"{path}: missing; make it with: {plan.command(final, again=True)}")
    return load_input(plan, path, plan.encoders[name].stored, made_with=final)


def _from_file_or_random(plan: Plan, name: str) -> State:
    spec = plan.encoder(name)
    if isinstance(spec, ExternalSpec) and spec.file is not None:
        state, report = read_encoder_file(plan, name)
        print(job_log.indented(report), flush=True)
        return state
    return to_exchange(build_body(spec.architecture.stored).state_dict())


def read_encoder_file(plan: Plan, name: str) -> tuple[State, dict[str, str]]:
    """Read the file of an encoder, which may be of any of `m2pt.checkpoints.dialects`.

    Returns:
        The parts that are used, in the exchange format; and the report of the conversion by names of lines.

    Raises:
        InputError: the file is missing or damaged, is of no known dialect, or does not fit the config.
    """
    spec = plan.encoder(name)
    assert isinstance(spec, ExternalSpec) and spec.file is not None
    given = load_checkpoint(Path(spec.file))
    is_auxiliary = spec.parts == ("blocks",)
    converted = convert(given.state, spec.file, blocks_only=is_auxiliary)
    has_norm = "norm.weight" in converted.state
    parts = [part for part in spec.parts if part != "norm" or has_norm]
    body = build_body(spec.architecture.stored)
    _check_tokenizer(spec, parts, converted.state)
    load_exchange(body, converted.state, parts=parts, source=spec.file)
    if not is_auxiliary:
        _check_norm(plan, name, spec.file, has_norm)
    unused = sorted({part_of(key) for key in converted.state} - set(parts))
    report = {**converted.report, **entries(given)}
    if isinstance(body, Encoder) and not is_auxiliary:
        stated = stated_settings(Path(spec.file), given.metadata, report["dialect"])
        modality, own = str(spec.architecture.modality), spec.architecture.stored["backbone"]
        try:
            stated.check_fits(own["num_heads"], modality)
        except InputError as error:
            raise InputError(f"{spec.file}: {error}") from None
        report |= stated.other_norms(body.norm_eps, modality)
    if unused:
        why = "an auxiliary lends its blocks" if is_auxiliary else "targets have their own"
        report["not used"] = f"{', '.join(unused)}: {why}"
    state = to_exchange(body.state_dict())
    return {key: value for key, value in state.items() if part_of(key) in parts}, report


def check_imported(plan: Plan, name: str) -> None:
    """Check that what was imported of a file for other targets has what those of this plan start with.

    Raises:
        InputError: it lacks the final norm, or is damaged.
    """
    spec = plan.encoder(name)
    if not isinstance(spec, ExternalSpec) or spec.file is None:
        return
    for seed in plan.used_pretrain_seeds:
        path = plan.encoder_directory(name, seed) / ENCODER
        if path.exists() and load_metadata(path).get("spec") == json.dumps(spec.stored):
            _check_norm(plan, name, spec.file, "norm.weight" in tensor_names(path))


def _check_tokenizer(spec: ExternalSpec, parts: Collection[str], state: State) -> None:
    """Check that a target's start has a tokenizer of its modality."""
    modality = spec.architecture.modality
    tokenizer = {key: tensor for key, tensor in state.items() if part_of(key) == "tokenizer"}
    starts = "tokenizer" in parts and spec.architecture.has_tokenizer
    if starts and not tokenizer_class(str(modality)).recognizes(tokenizer):
        has = "its tokenizer is of another modality" if tokenizer else "it has no tokenizer"
        raise InputError(
            f"{spec.file}: {has}, but targets of modality {modality} start with it; give weights that were "
            f"trained on {modality}, or use these as an auxiliary only"
        )


def _check_norm(plan: Plan, name: str, file: str, has_norm: bool) -> None:
    """Check that a file has the final norm of the encoder, if a target starts with it."""
    if has_norm:
        if not plan.config.encoders[name].norm:
            raise InputError(f"{file}: has the final norm; leave norm: false out of encoders.{name}")
        return
    needing = [
        run.name
        for run in plan.runs.values()
        if run.experiment.target_init == name
        and run.experiment.transfer_from is None
        and run.spec.recipe.starts_with_norm
    ]
    if needing:
        raise InputError(
            f"{file}: has no final norm, like models finetuned to average their tokens, but "
            f"{listed(needing, 3)} start with one; give pretrained weights, or set norm: false in "
            f"encoders.{name}, which leaves their cells empty"
        )
