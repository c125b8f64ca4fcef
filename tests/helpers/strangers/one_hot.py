"""A task: regression of the one-hot labels, with a model and a recipe of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2pt.config.recipes import Recipe
from m2pt.config.strict import Strict
from m2pt.models.transformer import Encoder, build_tokenizer


class Settings(Strict):
    bias: bool


class OneHotRecipe(Recipe):
    model: Settings


class Regressor(Encoder):
    """An encoder with a linear head on the mean token."""

    def __init__(self, tokenizer: Any, *, num_classes: int, bias: bool, dim: int, **backbone: Any) -> None:
        super().__init__(tokenizer, dim=dim, **backbone)
        self.head = nn.Linear(dim, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x).mean(1))


class OneHotRegression:
    collate = None

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @classmethod
    def from_recipe(cls, num_classes: int, recipe: Mapping[str, Any]) -> Self:
        return cls(num_classes)

    def build_model(self, architecture: Mapping[str, Any], *, num_classes: int, bias: bool) -> nn.Module:
        backbone = architecture["backbone"]
        tokenizer = build_tokenizer(
            architecture["modality"],
            dim=backbone["dim"],
            input=architecture["input"],
            settings=architecture["tokenizer"],
        )
        return Regressor(tokenizer, num_classes=num_classes, bias=bias, **backbone)

    def loss(self, model: nn.Module, batch: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        truth = functional.one_hot(batch[1], self.num_classes).float()
        return functional.mse_loss(self.predict(model, batch), truth), {}

    def predict(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        return model(batch[0])

    def measure(self, model: nn.Module, batch: Sequence[Any]) -> Tensor:
        return (self.predict(model, batch).argmax(1) != batch[1]).cpu()

    def summarize(self, measured: Sequence[Tensor], dataset: Any) -> dict[str, float]:
        return {"errors": 100 * torch.cat(list(measured)).double().mean().item()}
