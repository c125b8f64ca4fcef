"""Groups of parameters: what a wrapped or nested model says of its parameters counts as well."""

from typing import Any

import pytest
import torch
from small_vit import vit
from torch import nn

from m2pt.pathway import attach, parameter_groups

WRAPPERS: dict[str, Any] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "in another model": lambda model: nn.ModuleDict({"encoder": model, "head": nn.Linear(5, 2)}),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_the_model_does_not_decay_is_not_decayed_in_a_wrapper(wrapper: str) -> None:
    model = attach(vit(), vit(seed=1))
    expected = parameter_groups(model, 0.1, weight_decay=0.05)
    wrapped = parameter_groups(WRAPPERS[wrapper](model), 0.1, weight_decay=0.05)
    named = {id(parameter): name for name, parameter in model.named_parameters()}

    def names(groups: list[dict[str, Any]]) -> dict[str, set[str]]:
        found = {group["name"]: {named.get(id(each), "") for each in group["params"]} for group in groups}
        return {name: members - {""} for name, members in found.items()}

    assert names(wrapped) == names(expected)
    assert {"cls_token", "pos_embed"} <= names(wrapped)["undecayed"]
