"""MSES: early stopping for each modality (Fujimori et al., ACPR 2019)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from m2pt.agm.balancing import BalancingMethod, Validation
from m2pt.agm.checks import BalancingError, Inputs
from m2pt.agm.settings import check_integer, check_number, restoring


class MSES(BalancingMethod):
    """The encoder of a modality is frozen at its best epoch once its validation loss no longer improves.

    After each epoch the mono-modal loss on the validation split is smoothed, as AGM's authors do, with the
    raw loss of the epoch before: `smoothing` · previous + (1 − `smoothing`) · current. More than `patience`
    epochs after its lowest smoothed loss, the encoder's weights and buffers of that epoch are restored and
    the encoder does not change any more: its parameters get no gradient, so neither momentum nor weight decay
    moves them, and it stays in evaluation mode, so neither do BatchNorm's statistics. The rest of the model
    trains on. Their patience: AV-MNIST 10, CREMA-D 80, UR-FUNNY 30.

    Differences to their code: it reads the loss on the test split; restores the whole model and the optimizer
    (of the epoch that was best for one modality) and fails if that was the first; and sets gradients to zero,
    under which momentum and weight decay go on. It stops when all modalities have: see `finished`.
    The paper trains a classifier of each modality beside the joint one and watches their losses; here, as in
    their code, there are none and the losses are those of the mono-modal logits.

    Args:
        model: see `BalancingMethod`.
        modalities: see `BalancingMethod`.
        encoders: see `BalancingMethod`.
        patience: epochs without a lower smoothed loss, 0 or more.
        smoothing: weight of the loss of the epoch before, from 0 to below 1.

    Raises:
        BalancingError: as `BalancingMethod`, or a setting outside of its range.
    """

    needs_before_step = True

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        patience: int,
        smoothing: float = 0.6,
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(model, modalities, encoders=encoders)
        check_integer("MSES: patience", patience, 0)
        check_number("MSES: smoothing", smoothing)
        if smoothing >= 1:
            raise BalancingError(f"MSES: smoothing must be from 0 to below 1, got {smoothing}")
        self.patience = patience
        self.smoothing = smoothing
        self._previous: dict[str, float] = {}
        self._lowest = dict.fromkeys(self.modalities, math.inf)
        self._best_epoch = dict.fromkeys(self.modalities, 0)
        self._best_weights: dict[str, dict[str, Any]] = {}
        self._frozen: list[str] = []
        self._report()

    @property
    def frozen(self) -> tuple[str, ...]:
        """The modalities whose encoders are frozen."""
        return tuple(self._frozen)

    @property
    def finished(self) -> bool:
        """Whether all encoders are frozen. The released code stops then; a training may also go on."""
        return len(self._frozen) == len(self.modalities)

    def forward(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the cross-entropy of a batch, with frozen encoders in evaluation mode."""
        self._keep_frozen()
        return super().forward(inputs, target)

    def train(self, mode: bool = True) -> "MSES":
        """Set the mode of everything but the frozen encoders."""
        super().train(mode)
        self._keep_frozen()
        return self

    def before_step(self) -> None:
        """Drop the gradients of frozen encoders, which makes the optimizer skip their parameters."""
        super().before_step()
        for modality in self._frozen:
            for parameter in self.encoder_parameters(modality):
                parameter.grad = None

    @torch.no_grad()
    def after_epoch(self, epoch: int, validation: Validation | None = None) -> None:
        """Keep the weights of the best epochs, and freeze what has not improved for too long.

        Raises:
            BalancingError: no validation, or not of all modalities.
        """
        found = self._validated(validation, "mono_loss")
        super().after_epoch(epoch, validation)
        for modality, loss in found.items():
            if modality in self._frozen:
                continue
            smoothed = self.smoothing * self._previous.get(modality, loss) + (1 - self.smoothing) * loss
            self._previous[modality] = loss
            encoder = self._encoders[modality]
            if smoothed < self._lowest[modality]:
                self._lowest[modality], self._best_epoch[modality] = smoothed, epoch
                self._best_weights[modality] = {
                    name: value.detach().clone() if isinstance(value, Tensor) else value
                    for name, value in encoder.state_dict().items()
                }
            elif epoch - self._best_epoch[modality] > self.patience:
                encoder.load_state_dict(self._best_weights.pop(modality))
                self._frozen.append(modality)
        self._keep_frozen()
        self._report()

    def get_extra_state(self) -> dict[str, Any]:
        """Return losses, best epochs and weights, what is frozen and the last epoch, for `state_dict`."""
        return {
            **self._common_state(),
            "previous": dict(self._previous),
            "lowest": dict(self._lowest),
            "best_epoch": dict(self._best_epoch),
            "best_weights": {name: dict(weights) for name, weights in self._best_weights.items()},
            "frozen": list(self._frozen),
        }

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned.

        Raises:
            BalancingError: the state is damaged, or of another method or other modalities.
        """
        with restoring("MSES"):
            self._restore_common(state)
            self._previous = dict(state["previous"])
            self._lowest = {name: state["lowest"][name] for name in self.modalities}
            self._best_epoch = {name: state["best_epoch"][name] for name in self.modalities}
            self._best_weights = {
                modality: {n: v.clone() if isinstance(v, Tensor) else v for n, v in weights.items()}
                for modality, weights in state["best_weights"].items()
            }
            self._frozen = list(state["frozen"])
        self._keep_frozen()
        self._report()

    def _keep_frozen(self) -> None:
        """Put frozen encoders into evaluation mode."""
        for modality in self._frozen:
            if self._encoders[modality].training:
                self._encoders[modality].eval()

    def _report(self) -> None:
        """Set the scalars to log."""
        for modality in self.modalities:
            self._scalars[f"coefficient/{modality}"] = torch.tensor(0.0 if modality in self._frozen else 1.0)
