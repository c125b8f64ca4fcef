"""MSLR: a learning rate for each modality (Yao & Mihalcea, Findings of ACL 2022)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from m2pt.agm.balancing import BalancingMethod, Validation
from m2pt.agm.settings import check_choice, check_integer, check_named, check_number, restoring


class MSLR(BalancingMethod):
    """The learning rate of each encoder is multiplied by a coefficient of its modality.

    Strategy "keep" leaves the coefficients c_m as they are. "dynamic" multiplies them, after each epoch from
    number `memory` + 1 on, by the mono-modal accuracy on the validation split divided by its mean over the
    `memory` epochs before: c_m · acc_m / mean(acc_m of the last 5). The ratio replaces the one of the epoch
    before, it does not accumulate. That is how AGM's authors coded it, except that they take accuracies of
    the test split. The paper's third strategy, "smooth", could not be verified and is left out.

    Their coefficients: AV-MNIST audio 1.3, visual 0.7; CREMA-D audio 0.9, visual 1.1; UR-FUNNY audio 0.9,
    visual 1.4, text 0.7. Names of modalities are free: what they call visual is `image` or `video` in the
    datasets of this project.

    As in their code the gradients are multiplied, not the learning rates. With SGD, also with momentum, the
    two are the same but for weight decay, which keeps the common learning rate, and for the momentum
    collected under the coefficients before. Adam and AdamW divide by the size of the gradients, so there a
    constant coefficient has nearly no effect: use SGD.

    Args:
        model: see `BalancingMethod`.
        modalities: see `BalancingMethod`.
        encoders: see `BalancingMethod`.
        coefficients: c_m > 0 of each modality.
        strategy: "keep" or "dynamic".
        memory: number of epochs to average over.

    Raises:
        BalancingError: as `BalancingMethod`; a coefficient that is missing, unknown or not positive; a wrong
            strategy or memory.
    """

    needs_before_step = True

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        coefficients: Mapping[str, float],
        strategy: Literal["keep", "dynamic"] = "dynamic",
        memory: int = 5,
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(model, modalities, encoders=encoders)
        check_named("MSLR: coefficients", coefficients, self.modalities)
        for modality, coefficient in coefficients.items():
            check_number(f"MSLR: the coefficient of {modality!r}", coefficient, positive=True)
        check_choice("MSLR: strategy", strategy, ("keep", "dynamic"))
        check_integer("MSLR: memory", memory, 1)
        self.base_coefficients = dict(coefficients)
        self.strategy = strategy
        self.memory = memory
        self._accuracies: dict[str, list[float]] = {modality: [] for modality in self.modalities}
        self._ratios = dict.fromkeys(self.modalities, 1.0)
        self._report()

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficients in use, by modality."""
        return {name: self.base_coefficients[name] * self._ratios[name] for name in self.modalities}

    @torch.no_grad()
    def before_step(self) -> None:
        """Multiply the gradients of each encoder by its coefficient."""
        super().before_step()
        for modality, coefficient in self.coefficients.items():
            for parameter in self.encoder_parameters(modality):
                if parameter.grad is not None:
                    parameter.grad.mul_(coefficient)

    def after_epoch(self, epoch: int, validation: Validation | None = None) -> None:
        """Update the ratios from the mono-modal accuracies on the validation split, if "dynamic".

        Raises:
            BalancingError: "dynamic" and no validation, or not of all modalities.
        """
        if self.strategy == "keep":
            super().after_epoch(epoch, validation)
            return
        found = self._validated(validation, "mono_accuracy")
        super().after_epoch(epoch, validation)
        for modality, accuracy in found.items():
            before = self._accuracies[modality]
            mean = sum(before) / self.memory
            if len(before) == self.memory:
                # Nothing right in any of these epochs: there is no ratio
                self._ratios[modality] = accuracy / mean if mean > 0 else 1.0
            self._accuracies[modality] = [*before, accuracy][-self.memory :]
        self._report()

    def get_extra_state(self) -> dict[str, Any]:
        """Return accuracies, ratios and the last epoch, for `state_dict`."""
        return {
            **self._common_state(),
            "accuracies": {name: list(each) for name, each in self._accuracies.items()},
            "ratios": dict(self._ratios),
        }

    def set_extra_state(self, state: Any) -> None:
        """Restore accuracies, ratios and the last epoch.

        Raises:
            BalancingError: the state is damaged, or of another method or other modalities.
        """
        with restoring("MSLR"):
            self._restore_common(state)
            self._accuracies = {name: list(state["accuracies"][name]) for name in self.modalities}
            self._ratios = {name: state["ratios"][name] for name in self.modalities}
        self._report()

    def _report(self) -> None:
        """Set the scalars to log."""
        for modality, coefficient in self.coefficients.items():
            self._scalars[f"coefficient/{modality}"] = torch.tensor(coefficient)
