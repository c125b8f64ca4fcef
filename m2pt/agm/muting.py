"""Muted inputs: what a modality's encoder sees when the modality is left out."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from m2pt.agm.checks import BalancingError, Inputs
from m2pt.agm.settings import check_flag


class Muting(nn.Module):
    """Replace the input of a modality: by zeros, as released, or by given values.

    A tensor is replaced as a whole. In a mapping floating-point and complex tensors are replaced, and integer
    and boolean ones (lengths, masks) are kept.

    Args:
        values: what to put in place of the input, by modality, or by modality and name for a mapping. Each
            is a tensor that broadcasts to (B, ...); None stands for zeros everywhere.
        learned: True makes the values parameters. They receive the same modulated gradient as the weights.

    Raises:
        BalancingError: a value is no tensor, or a learned one not of floating point.
    """

    def __init__(self, values: Inputs | None = None, *, learned: bool = False) -> None:
        super().__init__()
        check_flag("Muting: learned", learned)
        if not (values is None or isinstance(values, Mapping)):
            raise BalancingError(f"Muting: values must be a dict by modality, got {type(values).__name__}")
        self.zeros = values is None
        for modality, value in (values or {}).items():
            for name, tensor in value.items() if isinstance(value, Mapping) else [(None, value)]:
                if not isinstance(tensor, Tensor) or (learned and not tensor.is_floating_point()):
                    raise BalancingError(
                        f"Muting: the value of {_named(modality, name)} must be a tensor of floating-point "
                        f"numbers, such as torch.tensor(0.5), got {tensor!r}"
                    )
                key = _key(modality, name)
                if learned:
                    self.register_parameter(key, nn.Parameter(tensor.detach().clone()))
                else:
                    self.register_buffer(key, tensor.detach().clone())

    @classmethod
    @torch.no_grad()
    def mean(cls, batches: Iterable[Inputs]) -> Self:
        """Mute with the mean of the training inputs.

        A modality given as tensors (B, ...) is averaged over the samples, which need one shape. Sequences
        given as a mapping, (B, T, ...), are averaged over samples and positions, up to their "lengths".

        Raises:
            BalancingError: there is no batch, one is no dict by modality, or the samples of a modality differ
                in shape.
        """
        sums: dict[tuple[str, str | None], Tensor] = {}
        counts: dict[tuple[str, str | None], Tensor] = {}
        for batch in batches:
            _check_batch(batch)
            for modality, value in batch.items():
                for name, tensor in _floating(modality, value):
                    total, count = _sum(tensor, value if name is not None else {})
                    key = (modality, name)
                    if key in sums and sums[key].shape != total.shape:
                        raise BalancingError(
                            f"Muting.mean: samples of {_named(*key)} differ in shape, "
                            f"{tuple(sums[key].shape[1:])} and {tuple(total.shape[1:])}: give sequences as a "
                            "dict of values (B, T, ...) and lengths (B,)"
                        )
                    sums[key] = sums[key] + total if key in sums else total
                    counts[key] = counts[key] + count if key in counts else count
        if not sums:
            raise BalancingError("muting by the mean needs at least one batch")
        means: dict[str, Any] = {}
        for (modality, name), total in sums.items():
            mean = (total / counts[modality, name]).float()
            if name is None:
                means[modality] = mean
            else:
                means.setdefault(modality, {})[name] = mean
        return cls(means)

    @classmethod
    def learned(cls, example: Inputs) -> Self:
        """Mute with parameters that start at 0, in the shape of one sample of an example batch.

        Sequences given as a mapping, (B, T, ...), share one vector for all positions. Build the optimizer
        from the parameters of the whole method, of which these are a part.

        Raises:
            BalancingError: the example is no dict by modality.
        """
        _check_batch(example)
        values: dict[str, Any] = {}
        for modality, value in example.items():
            for name, tensor in _floating(modality, value):
                if name is None:
                    values[modality] = torch.zeros_like(tensor[:1])
                else:
                    kept = 2 if tensor.dim() > 1 else 1
                    zeros = tensor.new_zeros([1] * kept + list(tensor.shape[kept:]))
                    values.setdefault(modality, {})[name] = zeros
        return cls(values, learned=True)

    def forward(self, modality: str, value: Any, rows: int) -> Any:
        """Return the muted input of a modality in the form of its input.

        Args:
            modality: its name.
            value: its input, a tensor (B, ...) or a mapping of such tensors.
            rows: how many samples to return, the first of the batch: 1 to B.

        Raises:
            BalancingError: nothing in a mapping can be muted, or the value does not fit the input.
        """
        if isinstance(value, Tensor):
            return self._muted(modality, None, value[:rows])
        if not any(_is_muted(tensor) for tensor in value.values()):
            raise BalancingError(
                f"modality {modality!r} cannot be muted: none of {list(value)} is a floating-point tensor"
            )
        return {
            name: self._muted(modality, name, tensor[:rows]) if _is_muted(tensor) else tensor[:rows]
            for name, tensor in value.items()
        }

    def _muted(self, modality: str, name: str | None, tensor: Tensor) -> Tensor:
        """Return a tensor's replacement in its shape, dtype and memory format."""
        muted = torch.zeros_like(tensor)
        if self.zeros:
            return muted
        key = _key(modality, name)
        found: Tensor | None = getattr(self, key, None)
        if found is None or not tensor.is_floating_point():
            why = (
                "it is not a floating-point tensor"
                if found is not None
                else f"there is no value for {_named(modality, name)}"
            )
            raise BalancingError(f"modality {modality!r} cannot be muted: {why}")
        try:
            return muted + found.to(tensor.dtype).expand_as(muted)
        except RuntimeError as error:
            raise BalancingError(
                f"the muted value of modality {modality!r} has shape {tuple(found.shape)}, which does not "
                f"broadcast to the input's {tuple(tensor.shape)}"
            ) from error


def rows_are_equal(value: Any) -> bool:
    """Return whether all samples of a batch look the same when muted: nothing of them is kept."""
    return isinstance(value, Tensor) or all(_is_muted(tensor) for tensor in value.values())


def _is_muted(tensor: Tensor) -> bool:
    """Return whether a tensor in a mapping is replaced."""
    return tensor.is_floating_point() or tensor.is_complex()


def _named(modality: str, name: str | None) -> str:
    """Return how messages call a tensor."""
    return repr(modality if name is None else f"{modality}/{name}")


def _check_batch(batch: Any) -> None:
    """Check that a batch is inputs by modality."""
    if not isinstance(batch, Mapping):
        raise BalancingError(
            f"muting needs inputs as a dict by modality, got {type(batch).__name__}: of pairs with labels "
            "give the first, (inputs for inputs, target in batches)"
        )


def _key(modality: str, name: str | None) -> str:
    """Return the name of a parameter or buffer, without dots, that is no attribute of a module."""
    parts = [modality] if name is None else [modality, name]
    return "/".join(
        ["value", *(part.replace("~", "~0").replace("/", "~1").replace(".", "~2") for part in parts)]
    )


def _floating(modality: str, value: Any) -> list[tuple[str | None, Tensor]]:
    """Return the floating-point tensors of a modality's input."""
    pairs: list[tuple[str | None, Any]]
    pairs = list(value.items()) if isinstance(value, Mapping) else [(None, value)]
    found = [(name, each) for name, each in pairs if isinstance(each, Tensor) and each.is_floating_point()]
    if not found:
        raise BalancingError(
            f"modality {modality!r} has no floating-point tensor: it can be muted by zeros only"
        )
    return found


def _sum(tensor: Tensor, sequence: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sum of a batch with its reduced axes kept, and the number of terms, in float64."""
    tensor = tensor.double()
    if not sequence or tensor.dim() < 2:
        return tensor.sum(0, keepdim=True), tensor.new_tensor(len(tensor))
    valid = tensor.new_ones(tensor.shape[:2])
    if "lengths" in sequence:
        positions = torch.arange(tensor.shape[1], device=tensor.device)
        valid = (positions < sequence["lengths"].to(tensor.device).unsqueeze(1)).double()
    weights = valid.view(*valid.shape, *[1] * (tensor.dim() - 2))
    return (weights * tensor).sum((0, 1), keepdim=True), valid.sum()
