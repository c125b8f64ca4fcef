"""The log of a job: first what the job is, last its metrics and the files that it wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def header(title: str, rows: Mapping[str, object]) -> str:
    """Return a title line and, indented below it, one aligned line per row."""
    return f"{title}\n{indented(rows)}"


def indented(rows: Mapping[str, object]) -> str:
    """Return one indented, aligned line per row."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())


def begin(title: str, rows: Mapping[str, object]) -> None:
    """Print the `header` of a job."""
    print(header(title, rows), flush=True)


def end(*paths: Path, metrics: Mapping[str, float] | None = None, note: str = "") -> None:
    """Print the metrics in percent, if there are any, and the files that were written, with a `note`."""
    if metrics:
        print(", ".join(f"{name} {value:.2f}" for name, value in metrics.items()))
    print(f"wrote {', '.join(map(str, paths))}{note and f': {note}'}", flush=True)


def parameter_counts(model: "nn.Module") -> str:
    """Return how many parameters a model has, how many are trainable and, if any are, in pathways."""
    parameters = dict(model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    trainable = sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad)
    pathways = sum(parameter.numel() for name, parameter in parameters.items() if ".pathways." in name)
    return f"{total:,}: {trainable:,} trainable" + (f", {pathways:,} in pathways" if pathways else "")
