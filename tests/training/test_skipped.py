"""Trainings that skip corrupt samples: the same bits for any processes and after a resume, counts, bounds."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_layouts import LAYOUTS, SAMPLES, cut, opened
from point_trainings import SEED, logged, train
from torch import Tensor, nn
from two_processes import in_two_processes

from m2pt.errors import InputError
from m2pt.training import checkpoint
from m2pt.training.launch import launch
from m2pt.training.loading import evaluation_loader, training_stream
from m2pt.training.sampling import TrainingBatches
from m2pt.training.skipped import SkippedSamples

DAMAGED = (3, 150)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All layouts, with two corrupt training samples each."""
    folder = tmp_path_factory.mktemp("damaged")
    for name, layout in LAYOUTS.items():
        layout.build(folder / name)
        layout.damage(folder / name, *DAMAGED)
    return {name: folder / name for name in LAYOUTS}


def stream(dataset: Any, workers: int, world: int = 1) -> tuple[list[list[Tensor]], list[list[str]]]:
    """Return the first value of each sample of each batch of two epochs, and the messages of each batch."""
    batches, messages = [], []
    for rank in range(world):
        keys = TrainingBatches(SAMPLES, batch_size=20 // world, seed=SEED, rank=rank, world=world, stop=20)
        with training_stream(dataset, keys, num_workers=workers, collate=lambda batch: batch) as loaded:
            taken = list(loaded)
        batches.append([[sample[0] for sample in each.checked()] for each in taken])
        messages.append([each.skipped for each in taken])
    together = [list(itertools.chain.from_iterable(parts)) for parts in zip(*batches, strict=True)]
    return together, [sorted(itertools.chain.from_iterable(parts)) for parts in zip(*messages, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_and_messages_depend_on_neither_workers_nor_processes(
    layout: str, roots: dict[str, Path]
) -> None:
    dataset = opened(layout, roots[layout], skip=True)
    batches, messages = stream(dataset, workers=0)
    for other_batches, other_messages in (stream(dataset, workers=2), stream(dataset, workers=0, world=2)):
        assert other_messages == messages
        for batch, other in zip(batches, other_batches, strict=True):
            assert all(map(torch.equal, batch, other))
    skipped = list(itertools.chain.from_iterable(messages))
    assert len(set(skipped)) == len(DAMAGED)
    if layout != "audioset":  # whose mixup reads a second sample
        assert len(skipped) == 2 * len(DAMAGED)  # each once in each of the two epochs


def image_loss(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels), {}


def trained(directory: Path, dataset: Any, **options: Any) -> nn.Module:
    """Train for 2 epochs of 10 steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    settings = {"epochs": 2, "batch_size": 20, "accumulation": 1, "checkpoint_every": 4} | options
    return train(directory, model=model, dataset=dataset, **{"loss": image_loss} | settings)


def stopping_after(steps: int) -> Any:
    calls = []

    def loss(model: nn.Module, batch: Any) -> Any:
        calls.append(0)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return image_loss(model, batch)

    return loss


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_ends_with_the_same_bits_counts_and_list(
    workers: int, roots: dict[str, Path], tmp_path: Path
) -> None:
    dataset = opened("imagenet", roots["imagenet"], skip=True)
    whole = trained(tmp_path / "whole", dataset)
    resumed = tmp_path / "resumed"
    for steps in (6, 9):  # after the checkpoints of steps 4 and 12
        with pytest.raises(KeyboardInterrupt):
            trained(resumed, dataset, loss=stopping_after(steps), num_workers=workers)
    model = trained(resumed, dataset, num_workers=workers)
    for name, value in whole.state_dict().items():
        assert torch.equal(model.get_parameter(name), value)
    for name in ("metrics.jsonl", "skipped.txt"):
        assert (resumed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    epochs = [entry for entry in logged(resumed) if "skipped" in entry]
    assert epochs == [{"step": 10 * epoch, "epoch": epoch, "skipped": 2} for epoch in (1, 2)]
    assert json.loads((resumed / "finished.json").read_text())["skipped"] == 2
    files = sorted(str(roots["imagenet"] / LAYOUTS["imagenet"].train(sample)) for sample in DAMAGED)
    listed = sorted((resumed / "skipped.txt").read_text().splitlines())
    assert [file in line for file, line in zip(files, listed, strict=True)] == [True, True]
    log = (tmp_path / "whole" / "train.log").read_text()
    assert [log.count(file) for file in files] == [1, 1]
    assert log.count("skipped 2 corrupt samples") == 2 and "skipped 2 corrupt files, listed in" in log


def test_what_was_skipped_of_an_epoch_is_in_its_checkpoint(roots: dict[str, Path], tmp_path: Path) -> None:
    dataset = opened("imagenet", roots["imagenet"], skip=True)
    _, messages = stream(dataset, workers=0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, dataset, loss=stopping_after(16), checkpoint_every=16)
    state = checkpoint.load(tmp_path / "resume.pt")["skipped"]
    assert set(state["reasons"]) == set(itertools.chain.from_iterable(messages[:16]))
    assert state["in_epoch"] == sum(map(len, messages[10:16]))


def share(rank: int) -> dict[str, Any]:
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "WORLD_SIZE": "2"}
    os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    launch("no", "cpu")
    skipped, lines = SkippedSamples(300), []
    skipped.add(["b."] if rank else ["a.", "b."])
    first = skipped.end_epoch(1, lines.append)
    skipped.add(["c."] if rank else [])
    second = skipped.end_epoch(2, lines.append)
    beyond = SkippedSamples(200)
    beyond.add(["c."] if rank else ["a.", "b."])
    with pytest.raises(InputError) as error:
        beyond.share(lambda line: None)
    return {"values": [first, second], "lines": lines, "error": str(error.value), **skipped.state()}


def test_processes_share_what_they_skip_and_stop_together(tmp_path: Path) -> None:
    one, other = in_two_processes(share, tmp_path)
    assert one == other
    assert one["values"] == [{"skipped": 3}, {"skipped": 1}]
    assert one["skipped"]["reasons"] == ["a.", "b.", "c."]
    assert one["lines"] == [
        "skipping a corrupt sample: a.",
        "skipping a corrupt sample: b.",
        "epoch 1: skipped 3 corrupt samples",
        "skipping a corrupt sample: c.",
        "epoch 2: skipped 1 corrupt sample",
    ]
    assert one["error"] == (
        "3 of 200 training samples are corrupt, more than the 1 % that corrupt_samples: skip allows; restore "
        "or remove them. One of them: a."
    )


def test_nothing_is_written_where_nothing_is_skipped(tmp_path: Path) -> None:
    LAYOUTS["imagenet"].build(tmp_path / "images")
    (tmp_path / "lenient").mkdir()
    (tmp_path / "lenient/skipped.txt").write_text("of another training in the folder")
    dataset = opened("imagenet", tmp_path / "images")
    strict = trained(tmp_path / "strict", dataset)
    lenient = trained(tmp_path / "lenient", opened("imagenet", tmp_path / "images", skip=True))
    assert all(torch.equal(lenient.get_parameter(n), value) for n, value in strict.state_dict().items())
    for directory in (tmp_path / "strict", tmp_path / "lenient"):
        assert "skipped" not in (directory / "metrics.jsonl").read_text()
        assert "skipped" not in json.loads((directory / "finished.json").read_text())
        assert not (directory / "skipped.txt").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_one_percent_and_a_wholly_corrupt_split_are_refused(workers: int, tmp_path: Path) -> None:
    layout = LAYOUTS["imagenet"]
    layout.build(tmp_path / "images")
    layout.damage(tmp_path / "images", 20, 60, 100)
    dataset = opened("imagenet", tmp_path / "images", skip=True)
    with pytest.raises(InputError, match="3 of 200 training samples are corrupt, more than the 1 %") as error:
        trained(tmp_path / "run", dataset, num_workers=workers)
    assert "\n" not in str(error.value) and ".JPEG" in str(error.value)
    assert "corrupt" in json.loads((tmp_path / "run" / "failed.json").read_text())["reason"]
    for path in (tmp_path / "images/train").glob("*/*.JPEG"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="The next 2 samples of the split cannot be read either"):
        trained(tmp_path / "other", dataset, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_by_default_and_in_an_evaluation_the_first_corrupt_sample_stops_with_one_line(
    layout: str, workers: int, roots: dict[str, Path], tmp_path: Path
) -> None:
    dataset = opened(layout, roots[layout])
    keys = TrainingBatches(SAMPLES, batch_size=20, seed=SEED, stop=10)
    names = [Path(LAYOUTS[layout].train(sample)).name for sample in DAMAGED]
    with (
        pytest.raises(InputError) as error,
        training_stream(dataset, keys, num_workers=workers, collate=list) as loaded,
    ):
        [each.checked() for each in loaded]
    assert "\n" not in str(error.value) and any(name in str(error.value) for name in names)

    LAYOUTS[layout].build(tmp_path / layout)
    evaluated = cut(tmp_path / layout / LAYOUTS[layout].evaluated)
    validation = opened(layout, tmp_path / layout, "val", augmentation=None)
    with pytest.raises(InputError) as error:
        list(evaluation_loader(validation, 2, workers, list))
    assert "\n" not in str(error.value) and str(evaluated) in str(error.value)
