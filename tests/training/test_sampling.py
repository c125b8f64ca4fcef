from itertools import islice

import pytest

from m2pt.errors import InputError
from m2pt.training.sampling import EvaluationBatches, TrainingBatches


def keys(**changes):
    arguments = {"batch_size": 4, "accumulation": 2, "seed": 7, "stop": 9} | changes
    return list(TrainingBatches(27, **arguments))


def test_an_epoch_has_each_item_at_most_once_and_drops_the_incomplete_batch():
    batches = keys()  # 27 // 8 = 3 steps an epoch
    for epoch in range(3):
        keys_of_epoch = [key for batch in batches[epoch * 6 : epoch * 6 + 6] for key in batch]
        assert {e for e, _ in keys_of_epoch} == {epoch}
        assert len({index for _, index in keys_of_epoch}) == 24
        assert all(0 <= index < 27 for _, index in keys_of_epoch)
    assert len(TrainingBatches(27, batch_size=4, accumulation=2, seed=7, stop=9)) == len(batches) == 18


def test_epochs_and_seeds_differ_in_order():
    first, second = ([i for _, i in b] for b in (keys()[0], keys()[6]))
    assert first != second
    assert keys() != keys(seed=8)


def test_any_starting_step_continues_with_the_same_batches():
    whole = keys()
    for start in range(9):
        assert keys(start=start) == whole[start * 2 :]


@pytest.mark.parametrize("split", [(8, 1, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2)])
def test_a_step_has_the_same_samples_for_every_split_into_processes_and_accumulation(split):
    batch_size, accumulation, world = split
    parts = [
        keys(batch_size=batch_size, accumulation=accumulation, world=world, rank=rank)
        for rank in range(world)
    ]
    whole = keys(batch_size=8, accumulation=1)
    for step, expected in enumerate(whole):
        micros = [part[step * accumulation + micro] for micro in range(accumulation) for part in parts]
        assert [key for micro in micros for key in micro] == expected


def test_too_few_items_for_a_batch_are_refused():
    with pytest.raises(InputError, match="27 items"):
        TrainingBatches(27, batch_size=7, accumulation=2, world=2, seed=0)


@pytest.mark.parametrize("items", [0, 1, 5, 16, 23])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_has_each_item_once_over_all_processes(items, world):
    parts = [EvaluationBatches(items, 4, rank=rank, world=world) for rank in range(world)]
    indices = [index for part in parts for batch in part for index in batch]
    assert sorted(indices) == list(range(items))
    alone = list(EvaluationBatches(items, 4))
    assert all(list(part) == alone[rank::world] for rank, part in enumerate(parts))
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]


def test_a_long_training_is_generated_lazily():
    batches = TrainingBatches(1_281_167, batch_size=64, seed=0, stop=10**9)
    assert len(list(islice(batches, 3))) == 3
