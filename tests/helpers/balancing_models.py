"""Small models of several modalities, in float64, for the tests of balancing methods."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from m2pt.agm import Validation

CLASSES = 3
WIDTH = 4


class Late(nn.Module):
    """One linear encoder per modality, concatenated, and one linear head."""

    def __init__(self, *modalities: str, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.modalities = modalities
        self.encoders = nn.ModuleDict({name: self.encoder() for name in modalities})
        self.fusion = self.head(WIDTH * len(modalities))
        self.double()

    def encoder(self) -> nn.Module:
        return nn.Linear(5, WIDTH)

    def head(self, width: int) -> nn.Module:
        return nn.Linear(width, CLASSES)

    def encode(self, modality: str, value: Tensor) -> Tensor:
        return self.encoders[modality](value)

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.fusion(torch.cat([features[name] for name in self.modalities], dim=1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.fuse({name: self.encode(name, inputs[name]) for name in self.modalities})


class Early(Late):
    """Encoders with BatchNorm, and a head that mixes the modalities, with BatchNorm and dropout."""

    def encoder(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())

    def head(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES)
        )


class Stranger(nn.Module):
    """A black box: no `modalities`, no `encoders`, no `encode`; names that tell nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.ModuleList(
            [nn.Linear(5, WIDTH), nn.Linear(5, WIDTH), nn.Bilinear(WIDTH, WIDTH, CLASSES)]
        )
        self.double()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.net[2](self.net[0](inputs["audio"]), self.net[1](inputs["visual"]))


def batch(*modalities: str, size: int = 6, seed: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """Return random inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(size, 5, generator=generator, dtype=torch.float64) for name in modalities}
    return inputs, torch.randint(CLASSES, (size,), generator=generator)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all gradients by name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def joint_gradients(model: nn.Module, inputs: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the plain cross-entropy, and leave none behind."""
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs), target).backward()
    found = gradients(model)
    model.zero_grad()
    return found


def validation(
    accuracies: Mapping[str, float] | None = None,
    losses: Mapping[str, float] | None = None,
    method_losses: Mapping[str, float] | None = None,
) -> Validation:
    """Return a validation with these mono-modal values."""
    return Validation(0.5, 1.0, accuracies or {}, losses or {}, method_losses or {})
