"""The passes of a step: the full one and those with muted modalities, each encoder run as rarely as possible.

The released order is kept: the full pass comes first, in the model's own mode; then the whole model is in
evaluation mode for the muted passes, which therefore use BatchNorm's statistics after this batch. Running
statistics are updated by the full pass alone.

A model is any module called as `model(inputs)`: each subset then takes a pass of the whole model. A model
that also offers `encode(modality, input)` and `fuse(features)` runs each encoder once in training mode and,
only if it has BatchNorm or dropout, once more in evaluation mode. The muted input is the same for all
samples, so one row of it is encoded, together with the batch. All subsets then go through `fuse` in one call.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.calls import encode, fuse, has_fast_path, own, own_inputs, unchanged
from m2pt.agm.checks import BalancingError, Inputs, check_logits, in_order_of
from m2pt.agm.modes import depends_on_mode, evaluation_mode, mixes_samples
from m2pt.agm.muting import Muting, rows_are_equal
from m2pt.agm.precision import at_least_float32
from m2pt.agm.responses import Subset


@dataclass(frozen=True)
class SubsetPasses:
    """How the logits of all subsets of the modalities are computed.

    Args:
        modalities: names of the modalities.
        subsets: the subsets to compute; the last is the set of all modalities.
        muting: what replaces the input of a muted modality.
        encoders: the part of the model that encodes each modality; empty if it is not known.
        constant_when_muted: modalities whose encoding of a muted input depends on nothing that muting keeps,
            such as lengths. Encoders with an attribute `constant_when_muted` that is true are among them if
            the input is muted by zeros.
        fast: False treats every model as a black box.
    """

    modalities: tuple[str, ...]
    subsets: Sequence[Subset]
    muting: Muting
    encoders: Mapping[str, nn.Module] = field(default_factory=dict)
    constant_when_muted: Collection[str] = ()
    fast: bool = True

    def encodes_once(self, model: nn.Module) -> bool:
        """Return whether a model takes the fast path."""
        return self.fast and has_fast_path(model)

    def __call__(self, model: nn.Module, inputs: Inputs, batch: int, *, graph: bool = True) -> Tensor:
        """Return the logits (subsets, B, num_classes), in float32 or better; the last are the full pass's.

        Args:
            model: the model; its submodules end in the mode that they were in.
            inputs: a checked batch.
            batch: its size B.
            graph: False computes the muted passes without a graph.

        Raises:
            BalancingError: the model does not return logits, or changes its inputs in place.
        """
        run = self._encoded if self.encodes_once(model) else self._whole
        own_values = {name: inputs[name] for name in self.modalities}
        with unchanged(
            own_values, type(model).__name__, "inputs", "use operations that do not work in place"
        ):
            full, muted = run(model, inputs, batch, graph and torch.is_grad_enabled())
        check_logits(full, batch, type(model).__name__)
        return torch.cat([at_least_float32(muted), at_least_float32(full).unsqueeze(0)])

    def _whole(self, model: nn.Module, inputs: Inputs, batch: int, graph: bool) -> tuple[Tensor, Tensor]:
        """Run the whole model for each subset."""
        full = model(own_inputs(inputs, self.modalities))
        check_logits(full, batch, type(model).__name__)
        muted = {name: self.muting(name, inputs[name], batch) for name in self.modalities}
        with evaluation_mode(model), torch.set_grad_enabled(graph):
            logits = [model(self.select(subset, inputs, muted)) for subset in self.subsets[:-1]]
        return full, torch.stack(logits) if logits else full.new_empty(0, *full.shape)

    def select(self, subset: Subset, present: Mapping[str, Any], muted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the modalities of a subset from `present`, in its order, and the others from `muted`."""
        return {
            name: own(value if name in subset else muted[name])
            for name, value in present.items()
            if name in muted
        }

    def _encoded(self, model: Any, inputs: Inputs, batch: int, graph: bool) -> tuple[Tensor, Tensor]:
        """Run the encoders once or twice, and the fusion for each subset."""
        encoders, fusion = self._modules(model)
        twice = {name: depends_on_mode(modules) for name, modules in encoders.items()}
        features: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        muted: dict[str, Tensor] = {}
        for name in self.modalities:
            if twice[name]:
                features[name] = encode(model, name, inputs[name])
            else:
                features[name], muted[name] = self._encode_both(model, name, inputs, batch, encoders[name])
                present[name] = features[name]
        full = fuse(model, inputs, features)
        check_logits(full, batch, type(model).__name__)
        with evaluation_mode(model), torch.set_grad_enabled(graph):
            for name in self.modalities:
                if twice[name]:
                    present[name], muted[name] = self._encode_both(model, name, inputs, batch, encoders[name])
            present, others = in_order_of(inputs, present), self.subsets[:-1]
            if not others:
                return full, full.new_empty(0, *full.shape)
            if mixes_samples(fusion):
                return full, torch.stack([model.fuse(self.select(each, present, muted)) for each in others])
            stacked = {
                name: torch.cat([value if name in each else muted[name] for each in others])
                for name, value in present.items()
            }
            return full, model.fuse(stacked).unflatten(0, (len(others), batch))

    def encoded_once(self, model: nn.Module) -> list[str]:
        """Return the modalities whose training pass also serves as the one in evaluation mode."""
        encoders, _ = self._modules(model)
        return [name for name in self.modalities if not depends_on_mode(encoders[name])]

    def _encode_both(
        self, model: Any, name: str, inputs: Inputs, batch: int, modules: Iterable[nn.Module]
    ) -> tuple[Tensor, Tensor]:
        """Return the features of a modality and those of its muted input, both (B, ...)."""
        value = inputs[name]
        if mixes_samples(modules):
            return encode(model, name, value), encode(model, name, self.muting(name, value, batch))
        rows = 1 if rows_are_equal(value) or self._is_constant(name) else batch
        try:
            both = encode(model, name, _concatenated(value, self.muting(name, value, rows)))
        except RuntimeError as error:
            if "enforce_sorted" not in str(error):
                raise
            raise BalancingError(
                f"encode({name!r}, ...) wants sequences sorted by length, and muted samples are appended to "
                "the batch: set enforce_sorted=False in pack_padded_sequence, or fast_path=False"
            ) from error
        if len(both) != batch + rows:
            raise BalancingError(
                f"encode({name!r}, ...) must return one row per sample, {batch + rows}, got {len(both)}"
            )
        muted = both[batch:]
        return both[:batch], muted.expand(batch, *muted.shape[1:])

    def _is_constant(self, name: str) -> bool:
        """Return whether the encoding of a muted input is promised to be the same for all samples."""
        if name in self.constant_when_muted:
            return True
        return self.muting.zeros and bool(getattr(self.encoders.get(name), "constant_when_muted", False))

    def _modules(self, model: nn.Module) -> tuple[dict[str, list[nn.Module]], list[nn.Module]]:
        """Return the modules that each modality's encoding may use, and those of the fusion.

        What belongs neither to an encoder nor to `model.fusion` may be used by all.
        """
        fusion = getattr(model, "fusion", None)
        fused = set(fusion.modules()) if isinstance(fusion, nn.Module) else set()
        owned = {name: set(encoder.modules()) for name, encoder in self.encoders.items()}
        shared = [
            module
            for module in model.modules()
            if module not in fused and not any(module in modules for modules in owned.values())
        ]
        return {name: [*owned.get(name, ()), *shared] for name in self.modalities}, [*fused, *shared]


def _concatenated(value: Any, more: Any) -> Any:
    """Append samples to the input of a modality."""
    if isinstance(value, Tensor):
        return torch.cat([value, more])
    return {name: torch.cat([tensor, more[name]]) for name, tensor in value.items()}
