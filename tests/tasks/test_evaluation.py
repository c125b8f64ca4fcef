"""Evaluation: two gloo processes give the same metrics as one, bit for bit, for every task."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import oracle_detector
import pytest
import torch
from classification_tasks import classification
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset
from training_processes import together

from m2pt import catalog
from m2pt.errors import InputError
from m2pt.tasks.detection import Detection
from m2pt.tasks.evaluation import evaluate
from m2pt.tasks.multilabel_classification import MultilabelClassification
from m2pt.tasks.part_segmentation import PartSegmentation
from m2pt.tasks.point_segmentation import PointSegmentation
from m2pt.tasks.semantic_segmentation import SemanticSegmentation
from m2pt.tasks.target import TargetTask
from m2pt.training.loading import evaluation_loader

CPU = torch.device("cpu")


class Said(nn.Module):
    """Returns its inputs, which are logits slightly in favor of the labels."""

    def forward(self, inputs: Tensor, *others: Tensor) -> Tensor:
        return inputs


def logits(truth: Tensor, num_classes: int) -> Tensor:
    return torch.randn(*truth.shape, num_classes) + nn.functional.one_hot(truth, num_classes)


def subjects(folder: Path) -> dict[str, tuple[TargetTask, nn.Module, Dataset[Any] | list[Any], int]]:
    """Task, model, dataset and batch size by name; sample numbers are odd and last batches incomplete."""
    torch.manual_seed(0)
    labels = torch.arange(7) * 3 % 8
    views = labels[:, None].expand(7, 3)
    hot = (torch.rand(7, 4) < 0.5).float()
    parts, points = torch.randint(0, 4, (7, 9)), torch.randint(0, 5, (7, 9))
    maps = [torch.randint(0, 3, (4 + n, 6)) for n in range(5)]
    images = [logits(label, 3).permute(2, 0, 1) for label in maps]
    said, sounds = Said(), list(zip(torch.randn(7, 4) + hot, hot, strict=True))
    views_of_coco = oracle_detector.Views(oracle_detector.write_annotations(folder))
    return {
        "classification": (classification(8), said, list(zip(logits(labels, 8), labels, strict=True)), 2),
        "one image": (classification(8), said, [(torch.randn(8), torch.tensor(3))], 2),
        "video": (classification(8), said, list(zip(logits(views, 8), labels, strict=True)), 3),
        "multilabel": (MultilabelClassification(4), said, sounds, 3),
        "parts": (PartSegmentation(), said, list(zip(logits(parts, 50), labels, parts, strict=True)), 3),
        "points": (PointSegmentation(), said, list(zip(logits(points, 5), points, strict=True)), 2),
        "segmentation": (SemanticSegmentation(), said, list(zip(images, maps, strict=True)), 2),
        "detection": (Detection(), oracle_detector.Oracle(), views_of_coco, 1),
    }


def metrics(folder: Path, rank: int = 0, world: int = 1) -> dict[str, dict[str, float] | None]:
    found = {}
    for name, (task, model, dataset, batch_size) in subjects(folder).items():
        loader = evaluation_loader(dataset, batch_size, 0, task.collate, rank=rank, world=world)  # type: ignore[arg-type]
        found[name] = evaluate(task, model, loader, CPU)
    return found


def one_of_two(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo")
    own = folder / str(rank)
    own.mkdir()
    (folder / f"{rank}.json").write_text(json.dumps(metrics(own, rank, 2)))
    distributed.destroy_process_group()


def test_two_processes_find_the_same_metrics_as_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True)
    assert done.stdout.strip() == "[0, 0]", done.stderr + (tmp_path / "log").read_text()
    together, others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = metrics(tmp_path)
    assert together == alone
    assert others == dict.fromkeys(alone)
    for name in alone.keys() - {"one image"}:  # all right or all wrong would prove little
        assert any(0 < value < 99 for value in alone[name].values()), (name, alone[name])


ENTRIES = {
    "classification": "classification",
    "multilabel": "multilabel_classification",
    "parts": "part_segmentation",
    "points": "point_segmentation",
    "segmentation": "semantic_segmentation",
    "detection": "detection",
}


def test_metrics_are_those_of_the_entry_in_the_catalog(tmp_path: Path) -> None:
    tasks = {name: entry for name, entry in catalog.TASKS.items() if entry.kind != "multimodal"}
    assert set(ENTRIES.values()) == set(tasks)
    found = metrics(tmp_path)
    assert {task: tuple(found[name] or ()) for name, task in ENTRIES.items()} == {
        task: entry.metrics for task, entry in tasks.items()
    }


def test_an_empty_split_is_an_error() -> None:
    for task in (classification(3), SemanticSegmentation(), MultilabelClassification(3)):
        with pytest.raises(InputError, match="validation split is empty"):
            evaluate(task, Said(), [], CPU)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    print(together(2, folder / "log", lambda rank: one_of_two(rank, folder)))
