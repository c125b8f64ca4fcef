"""Convert a published checkpoint to a file of this project, without a config."""

from pathlib import Path

from m2pt import job_log
from m2pt.checkpoints.conversion import convert, entries
from m2pt.checkpoints.stated import stated_settings
from m2pt.errors import InputError
from m2pt.formats.weights import load_checkpoint, save_weights
from m2pt.models.exchange import body_size, part_of
from m2pt.models.transformer import tokenizer_class


def convert_checkpoint(source: Path, modality: str, target: Path, *, keep_pathways: bool = False) -> None:
    """Write the weights of `source` in the exchange format, and print what was mapped, left out and why.

    A tokenizer of another modality is left out: M2PT stores auxiliaries of all modalities in image models.

    Args:
        source: a `.safetensors` file or one of torch.save, of any of `m2pt.checkpoints.dialects`.
        modality: what the model was trained on.
        target: file to write; its name must end in .safetensors.
        keep_pathways: keep the A and λ of a model of M2PT beside W instead of merging them.

    Raises:
        InputError: the file is missing, damaged or of no known dialect, or `target` cannot be written.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"--output {target}: its name must end in .safetensors")
    given = load_checkpoint(source)
    converted = convert(given.state, str(source), keep_pathways=keep_pathways)
    state, report = converted.state, {**converted.report, **entries(given)}
    tokenizer = {key: tensor for key, tensor in state.items() if part_of(key) == "tokenizer"}
    is_transformer = "blocks.0.norm1.weight" in state  # a ConvNeXt's stem fits inputs of its channels
    if is_transformer and tokenizer and not tokenizer_class(modality).recognizes(tokenizer):
        state = {key: tensor for key, tensor in state.items() if key not in tokenizer}
        report["not used"] = f"tokenizer: it is not that of {modality}"
    metadata = {"dialect": report["dialect"], "modality": modality}
    stated = stated_settings(source, given.metadata, report["dialect"]).metadata if is_transformer else {}
    if stated:
        report["its model"] = ", ".join(f"{name} {value}" for name, value in stated.items())
        metadata |= stated
    width, depth = body_size(state)
    if width:
        report["blocks"] = f"{depth} of width {width}"
    job_log.begin(f"import {source}", report)
    save_weights(target, state, metadata)
    job_log.end(target, note=f"{len(state)} tensors")
