"""What cannot be sharded; trainings that are sharded are in `test_processes.py`."""

import pytest
import torch
from point_trainings import new_model, train

from m2pt.errors import InputError
from m2pt.training.settings import EXECUTION
from m2pt.training.sharding import check_shardable, is_sharded, whole_state


@pytest.mark.parametrize(
    ("precision", "has_method", "said"),
    [
        (
            "fp16",
            False,
            "shard: not together with precision fp16, which auto is on this device; leave shard out",
        ),
        ("bf16", True, "shard: joint trainings are not sharded; leave it out"),
    ],
)
def test_what_needs_whole_weights_is_refused(precision, has_method, said):
    with pytest.raises(InputError, match=said):
        check_shardable(precision, has_method=has_method)


def test_one_process_has_nothing_to_split_and_the_identity_ignores_it(tmp_path):
    sharded, plain = train(tmp_path / "a", shard=True), train(tmp_path / "b")
    expected = plain.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in sharded.state_dict().items())
    assert "shard" in EXECUTION


def test_the_state_of_a_plain_optimizer_is_its_own_and_kept_by_one_process_alone():
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    assert not is_sharded(optimizer)
    assert whole_state(optimizer, keep=True) == optimizer.state_dict()
    assert whole_state(optimizer, keep=False)["state"] == {}
