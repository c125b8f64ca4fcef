"""Buffers that keep float64."""

import pytest
import torch
from balancing_models import Late, batch
from torch import nn

from m2pt.agm import AdaptiveGradientModulation, BalancingError
from m2pt.agm.modulation import Modulation


def test_buffers_keep_value_and_dtype_and_follow_to_another_device() -> None:
    modulation = Modulation(("a", "b"), 1.0)
    modulation.update(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    module = nn.Sequential(nn.Linear(2, 2), modulation)
    expected = modulation.running_scores.clone()
    assert module.half()[0].weight.dtype == torch.float16
    assert module.bfloat16()[1] is modulation
    assert modulation.running_scores.dtype == torch.float64
    assert torch.equal(modulation.running_scores, expected)
    assert modulation.batches.dtype == torch.long
    module.to("meta")
    assert modulation.running_scores.is_meta and modulation.running_scores.dtype == torch.float64


def test_a_method_built_on_the_meta_device_says_so() -> None:
    with torch.device("meta"):
        model = Late("audio", "visual")
        method = AdaptiveGradientModulation(model)
    with pytest.raises(BalancingError, match="were made on the meta device and have no values"):
        method.to_empty(device="cpu")
    with torch.device("meta"):
        model = Late("audio", "visual")
    method = AdaptiveGradientModulation(model)
    method.to_empty(device="cpu").model.load_state_dict(Late("audio", "visual").state_dict())
    assert method.loss(*batch("audio", "visual")).isfinite()
