"""Encoders with `source: dvc`, on small files in the real formats; nothing is trained."""

import json
from types import SimpleNamespace

import pytest
import torch
from finished_plan import TINY, again, call, finished_plan, with_source, write

from m2pt.config.config import Config
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.formats.weight_files import load_metadata
from m2pt.formats.weights import save_weights
from m2pt.plan.dvc import write_checksums
from m2pt.plan.rules import Rules


@pytest.fixture
def plan(tmp_path):
    return finished_plan(tmp_path)


def test_an_encoder_by_dvc_is_taken_with_its_kept_epochs(plan, tmp_path, capsys):
    assert call(plan, "export", "encoders") == 0
    elsewhere = with_source(again(plan, results=str(tmp_path / "elsewhere")), "pointcloud")
    for name in ("pointcloud", "pointcloud_early"):
        assert call(elsewhere, "import", name) == 0, capsys.readouterr().err
    taken = elsewhere.encoder_directory("pointcloud", 0)
    assert {path.name for path in taken.iterdir()} == {
        *("encoder.safetensors", "encoder-epoch1.safetensors", "SHA256SUMS")
    }
    early = elsewhere.encoder_directory("pointcloud_early", 0) / "encoder.safetensors"
    assert json.loads(load_metadata(early)["spec"])["epoch"] == 1
    assert not (taken / "encoder.safetensors").samefile(
        plan.encoder_checkpoint("pointcloud", 0) / "encoder.safetensors"
    )
    assert call(elsewhere, "pretrain", "pointcloud") == 2
    assert "'pointcloud' of tests/tiny/config.yaml is not pretrained here" in capsys.readouterr().err


def test_a_dataset_of_yours_may_lie_elsewhere_and_a_miniature_is_no_dataset_of_yours(plan, tmp_path, capsys):
    def with_data(**dataset):
        datasets = read_yaml(TINY)["datasets"] | {
            "imagenet": {"layout": "imagenet", "num_classes": 10} | dataset
        }
        return with_source(again(plan, datasets=datasets, results=str(tmp_path / "elsewhere")), "image")

    there, here = with_data(root="/there/imagenet"), with_data(root="/here/imagenet")
    folder = there.encoder_checkpoint("image", 0)
    for file in there.encoder_files("image"):
        write(folder / file, there.encoders["image"].stored, 0)
    write_checksums(folder, there.encoder_files("image"))

    assert call(here, "import", "image") == 0, capsys.readouterr().err
    stored = load_metadata(here.encoder_directory("image", 0) / "encoder.safetensors")
    assert json.loads(stored["spec"]) == here.encoders["image"].stored  # which trainings compare
    assert call(with_data(miniature={"seed": 0}), "import", "image") == 2
    assert "spec.dataset.root: stored 'a folder of yours', expected None" in capsys.readouterr().err


def test_what_is_not_ours_is_refused(plan, tmp_path, capsys):
    dvc_plan = with_source(plan, "image")
    folder = dvc_plan.encoder_checkpoint("image", 0)
    for file in dvc_plan.encoder_files("image"):
        save_weights(folder / file, {"weight": torch.ones(1)}, {})
    write_checksums(folder, dvc_plan.encoder_files("image"))
    assert call(dvc_plan, "import", "image") == 2
    assert "it has no spec, so m2pt did not write it" in capsys.readouterr().err


def test_source_is_for_an_encoder_that_says_what_it_is():
    config = read_yaml(TINY)
    config["encoders"]["random"]["source"] = "dvc"
    with pytest.raises(InputError, match="source: dvc requires pretrain and dataset"):
        validate(Config, config, "here.yaml")
    config["encoders"]["random"]["source"] = "s3"
    with pytest.raises(InputError, match=r"encoders\.random\.source = 's3'"):
        validate(Config, config, "here.yaml")


def test_source_changes_no_spec(plan):
    other = with_source(plan, "image", "pointcloud")
    assert [other.encoder_digest(name) for name in plan.encoders] == list(
        map(plan.encoder_digest, plan.encoders)
    )
    assert {run.digest for run in with_source(plan, "image").runs.values()} == {
        run.digest for run in plan.runs.values()
    }


def test_what_comes_by_dvc_is_checked_before_the_first_training(tmp_path):
    encoders = read_yaml(TINY)["encoders"]
    encoders["image"]["source"] = "dvc"
    rules = Rules([TINY], {"encoders": encoders, "checkpoints": str(tmp_path)})
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=name), wildcards=SimpleNamespace(encoder="image"))
        for name in ("import_encoder", "finetune")
    ]
    assert rules.preflight(jobs).endswith("--encoders image")
    wildcards = SimpleNamespace(encoder="image", seed="0")
    with pytest.raises(InputError, match=r"dvc pull .*/encoders/image"):
        rules.encoder_source(wildcards)
