"""`m2pt merge ATTACHED MERGED`: write W + λA into W. Needs only torch, no model and no timm."""

import argparse
from pathlib import Path

from m2pt import job_log
from m2pt.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("attached", type=Path, help="weights with pathways (attached.safetensors)")
    parser.add_argument("merged", type=Path, help="where to write the plain weights")


def run(arguments: argparse.Namespace) -> None:
    """Merge in float32; keys, shapes and number of parameters are those of the plain model.

    Of a training with `ema` the result is the average of its merged weights, which the file has.

    A batch norm before a linear classifier is folded into it, so that timm's model loads the file.
    """
    from m2pt.formats.weights import check_tensor, load_weights, save_weights
    from m2pt.models.exchange import fold_head, split_average
    from m2pt.pathway import PathwayError, merge_state_dict

    source, results = arguments.attached, arguments.merged
    job_log.begin(f"merge {source}", {"results": results})
    state, metadata = load_weights(source)
    for name, tensor in state.items():
        number = not name.endswith("num_batches_tracked")  # of batch norms
        check_tensor(name, tensor, str(source), number=number)
    attached, average = split_average(state)
    try:
        plain = merge_state_dict(attached)
    except PathwayError as error:
        raise InputError(f"{source}: {error}") from None
    if average and average.keys() != plain.keys():
        raise InputError(f"{source}: the averaged weights are not those of its model; finetune again")
    merged = fold_head(average or plain)
    save_weights(results, merged, metadata)
    note = f"{len(merged)} tensors, {len(attached) - len(merged)} merged away"
    job_log.end(results, note=f"{note}; averaged over the training" if average else note)
