"""Encoders and modalities of models, found or given."""

import pytest
from agm_oracle import Joint
from torch import nn

from m2pt.agm.checks import BalancingError
from m2pt.agm.encoders import check_separate, encoders_of, modalities_of

NAMES = ("audio", "visual")


def test_encoders_are_those_of_the_model_in_the_order_of_the_modalities() -> None:
    model = Joint(("visual", "text", "audio"))
    found = encoders_of(model, NAMES, None)
    assert list(found) == list(NAMES)
    assert all(found[name] is model.encoders[name] for name in NAMES)
    check_separate("Some", model, found)


def test_a_model_that_lacks_one_has_none() -> None:
    assert encoders_of(nn.Linear(1, 1), NAMES, None) == {}
    assert encoders_of(Joint(("audio", "text")), NAMES, None) == {}
    with pytest.raises(BalancingError, match=r"Some acts on the encoder .* Linear has no `encoders`"):
        check_separate("Some", nn.Linear(1, 1), {})


def test_given_encoders_must_be_those_of_all_modalities() -> None:
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    given = nn.ModuleDict({"visual": other, "audio": one})
    assert encoders_of(Joint(NAMES), NAMES, given) == {"audio": one, "visual": other}
    with pytest.raises(BalancingError, match="encoders: no value for 'visual'"):
        encoders_of(Joint(NAMES), NAMES, {"audio": one})
    with pytest.raises(BalancingError, match="encoders: unknown 'text'"):
        encoders_of(Joint(NAMES), NAMES, {"audio": one, "visual": other, "text": one})


def test_modalities_are_named_by_the_model() -> None:
    assert modalities_of(Joint(NAMES)) == NAMES
    with pytest.raises(BalancingError, match=r"Linear has no `modalities`: give modalities=\[...\]"):
        modalities_of(nn.Linear(1, 1))
