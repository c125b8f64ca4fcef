"""The report of `m2pt plan`: its schedule, and the assumptions that it states."""

import pytest
import yaml
from config_documents import given_points
from tiny_trainings import TINY

from m2pt.commands import main
from m2pt.formats.documents import read_yaml


def test_several_gpus_for_each_training(document):
    one, two = document("curves", "--gpus", "2"), document("curves", "--gpus", "2", "--gpus-per-job", "2")
    assert two["gpu_hours"] == one["gpu_hours"]
    assert two["critical_path"]["hours"] == pytest.approx(one["critical_path"]["hours"] / 2)
    assert two["hours"] == pytest.approx(one["gpu_hours"] / 2) and one["hours"] >= one["gpu_hours"] / 2


def test_the_text_says_what_it_assumes(tmp_path, capsys):
    assert main(["plan", "curves", "--config", str(TINY), "--set", f"results={tmp_path}", "--gpus", "4"]) == 0
    said = capsys.readouterr().out
    for words in (
        "trainings for curves (1 seed)",
        "counted, at 125 TFLOP/s",
        "a step is one effective batch",
        "left out: evaluating, merging",
        "imagenet: 60 training items (the miniature to be built)",
        "4 trainings at a time",
        "list scheduling",
        "the critical path:\n    pretrain",
    ):
        assert words in said, said
    assert not list(tmp_path.iterdir())


def test_what_is_not_planned_is_listed_with_its_reason(document, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(read_yaml(TINY) | {"encoders": given_points()}))
    (sentence,) = document(config=path)["not_planned"]
    assert sentence.startswith("targets:pretrained/VideoMAE:video_top1: left empty, since encoder pointcloud")
    assert document("table", config=path)["not_planned"] == []
    assert main(["plan", "--config", str(path), "--set", f"results={tmp_path}"]) == 0
    assert f"\nNOT PLANNED\n  {sentence}\n" in capsys.readouterr().out
