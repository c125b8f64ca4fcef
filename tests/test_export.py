"""`m2pt export` and encoders with `source: dvc`, on small files in the real formats; nothing is trained."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from synthetic_results import synthetic_plan

from m2pt.commands import main, trained
from m2pt.commands.checksums import write_checksums
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.formats.weight_files import load_metadata
from m2pt.formats.weights import load_weights, save_weights
from m2pt.schema.base import validate
from m2pt.schema.config import Config
from m2pt.schema.plan import Plan
from m2pt.schema.rules import Rules

TINY = Path("tests/tiny/config.yaml")
TABLES = ["tests/tiny/table.yaml"]


@pytest.fixture
def plan(tmp_path):
    """A plan whose results are all there: weights of one number each, with the config's specs."""
    plan = make_plan(tmp_path)
    for name, seed in plan.pretrainings:
        for file in plan.encoder_files(name):
            write(plan.encoder_directory(name, seed) / file, plan.encoders[name], seed)
        for file, text in (
            ("run.json", json.dumps({"spec": plan.encoders[name], "seed": seed, "provenance": {}})),
            ("metrics.jsonl", "{}\n"),
        ):
            (plan.encoder_directory(name, seed) / file).write_text(text)
        (plan.encoder_directory(name, seed) / "train.log").write_text("no final")
    for name, seed in plan.trainings:
        write(
            plan.run_directory(name, seed) / "merged.safetensors",
            plan.seeded_spec(plan.run(name), seed),
            seed,
        )
    return plan


def make_plan(tmp_path, **overrides):
    overrides = {"checkpoints": str(tmp_path / "checkpoints"), "seeds": [0, 1], "tables": TABLES, **overrides}
    return synthetic_plan(tmp_path / "results", lambda experiment, seed, metric: 50.0 + seed, **overrides)


def write(path, spec, seed, value=1.0):
    save_weights(path, {"weight": torch.tensor([value])}, trained.metadata(spec, seed))


def again(plan, **overrides):
    """The same results under a changed config."""
    return Plan.load(TINY, {**plan.overrides, **overrides})


def call(plan, *words):
    """Run an m2pt command with this plan's config."""
    sets = [word for key, value in plan.overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return main([*words, "--config", str(TINY), *sets])


def with_source(plan, *names):
    encoders = read_yaml(TINY)["encoders"]
    return again(plan, encoders=encoders | {name: encoders[name] | {"source": "dvc"} for name in names})


def state(folder):
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


def test_weights_are_linked_other_files_copied_and_nothing_is_done_twice(plan, capsys):
    assert call(plan, "export", "encoders") == 0
    made, exported = plan.encoder_directory("image", 0), plan.encoder_checkpoint("image", 0)
    assert {path.name for path in exported.iterdir()} == {
        *("encoder.safetensors", "encoder-epoch1.safetensors", "run.json", "metrics.jsonl", "SHA256SUMS")
    }
    assert (exported / "encoder.safetensors").samefile(made / "encoder.safetensors")
    assert not (exported / "metrics.jsonl").samefile(made / "metrics.jsonl")
    before = state(plan.checkpoints)
    capsys.readouterr()
    assert call(plan, "export", "encoders") == 0
    assert state(plan.checkpoints) == before and ": 0 files written" in capsys.readouterr().out


def test_without_hard_links_weights_are_copied(plan, monkeypatch):
    def no_links(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert call(plan, "export", "models") == 0
    name, seed = plan.trainings[0]
    exported = plan.run_checkpoint(name, seed) / "merged.safetensors"
    assert exported.read_bytes() == (plan.run_directory(name, seed) / "merged.safetensors").read_bytes()
    assert exported.stat().st_nlink == 1


def test_nothing_is_written_through_a_link_into_the_cache(plan, tmp_path):
    """DVC may make a checkpoint a link to its read-only cache; a new export must leave the object alone."""
    assert call(plan, "export", "encoders") == 0
    exported = plan.encoder_checkpoint("image", 0) / "encoder.safetensors"
    (symbolic, hard), objects = (exported, exported.with_name("encoder-epoch1.safetensors")), []
    for path, link in ((symbolic, Path.symlink_to), (hard, Path.hardlink_to)):
        objects.append(tmp_path / f"object-{path.name}")
        objects[-1].write_bytes(path.read_bytes())
        objects[-1].chmod(0o444)
        path.unlink()
        link(path, objects[-1])
    kept = [path.read_bytes() for path in objects]
    for path in (symbolic, hard):
        write(plan.encoder_directory("image", 0) / path.name, plan.encoders["image"], 0, value=2.0)
    assert call(plan, "export", "encoders") == 0
    assert [path.read_bytes() for path in objects] == kept
    assert load_weights(symbolic)[0]["weight"].item() == load_weights(hard)[0]["weight"].item() == 2.0


def test_stale_and_missing_results_are_all_named_and_nothing_is_exported(plan, capsys):
    (plan.encoder_directory("image", 0) / "run.json").unlink()
    write(plan.encoder_directory("video", 0) / "encoder.safetensors", plan.encoders["audio"], 0)
    assert call(plan, "export", "encoders") == 2
    said = capsys.readouterr().err
    assert "image/seed0/run.json: missing; make it with: snakemake" in said
    assert (
        "video/seed0/encoder.safetensors: stale" in said and "stored 'audioset', asked for 'kinetics'" in said
    )
    assert not plan.checkpoints.exists()
    name, seed = plan.trainings[0]
    (plan.run_directory(name, seed) / "evaluation.json").unlink()
    assert call(plan, "export", "models") == 2
    assert f"{name}/seed{seed}/evaluation.json: this result is missing" in capsys.readouterr().err


def test_prune_removes_what_an_export_left_and_nothing_else(plan, capsys):
    assert call(plan, "export", "models") == 0
    models = plan.checkpoints / "models"
    (models / "mine.txt").write_text("mine")
    part = next(models.glob("*/seed0")) / ".merged.safetensors.0badcafe-17-4711-a1b2c3.part"
    part.write_text("of an export that was killed on another machine, long ago")
    os.utime(part, (0, 0))
    fewer = again(plan, seeds=[0])
    assert call(fewer, "export", "models") == 0
    assert not part.exists() and list(models.glob("*/seed1"))
    assert call(fewer, "export", "models", "--prune") == 0
    assert {path.name for path in models.glob("*/*")} == {"seed0"} and (models / "mine.txt").exists()
    assert "seed1/merged.safetensors: removed" in capsys.readouterr().out


def test_tables_are_exported_with_metrics_unless_the_results_say_something_else(plan, capsys):
    assert call(plan, "export", "tables") == 2
    assert "table.csv: missing; make it with: snakemake" in capsys.readouterr().err
    assert call(plan, "tabulate", "table") == 0
    assert call(plan, "export", "tables") == 0
    metrics = json.loads((plan.checkpoints / "metrics.json").read_text())
    assert metrics["table"]["pretrained/M2PT-Point"]["tune_acc"] == 50.5
    assert "pretrained/MFF" not in metrics["table"]  # quoted, not measured
    table = plan.results / "table.csv"
    table.write_text(table.read_text().replace("50.5", "60.5"))
    capsys.readouterr()
    assert call(plan, "export", "tables") == 2
    assert "table.csv: not what the results say; make it again with" in capsys.readouterr().err


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
        write(folder / file, there.encoders["image"], 0)
    write_checksums(folder, there.encoder_files("image"))

    assert call(here, "import", "image") == 0, capsys.readouterr().err
    stored = load_metadata(here.encoder_directory("image", 0) / "encoder.safetensors")
    assert json.loads(stored["spec"]) == here.encoders["image"]  # what the trainings will compare it with
    assert call(with_data(miniature={"seed": 0}), "import", "image") == 2
    assert "spec.dataset.root: stored 'a folder of yours', asked for None" in capsys.readouterr().err


def test_what_is_not_ours_is_refused(plan, tmp_path, capsys):
    pulled = with_source(plan, "image")
    folder = pulled.encoder_checkpoint("image", 0)
    for file in pulled.encoder_files("image"):
        save_weights(folder / file, {"weight": torch.ones(1)}, {})
    write_checksums(folder, pulled.encoder_files("image"))
    assert call(pulled, "import", "image") == 2
    assert "it stores no spec, so m2pt did not write it" in capsys.readouterr().err


def test_source_is_for_an_encoder_that_says_what_it_is():
    config = read_yaml(TINY)
    config["encoders"]["random"]["source"] = "dvc"
    with pytest.raises(InputError, match="source: dvc is for an encoder with pretrain and dataset"):
        validate(Config, config, "here.yaml")
    config["encoders"]["random"]["source"] = "s3"
    with pytest.raises(InputError, match=r"encoders\.random\.source = 's3'"):
        validate(Config, config, "here.yaml")


def test_source_changes_no_spec(plan):
    assert with_source(plan, "image", "pointcloud").encoders == plan.encoders
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


def test_the_shipped_dvc_yaml_draws_what_the_shipped_config_makes():
    stages = read_yaml(Path("dvc.yaml"))
    settings = {
        key: value for each in stages["vars"] if isinstance(each, dict) for key, value in each.items()
    }
    plan = Plan.load(Path(settings["config"]))
    drawn = {Path(next(iter(each)) if isinstance(each, dict) else each) for each in stages["plots"]}
    assert {path.name for path in drawn} <= set(plan.reports)
    assert {str(path.parent) for path in drawn} == {"${checkpoints}/tables"}
    recipes = {each.pretrain for each in plan.config.encoders.values() if each.pretrain}
    assert {str(Path(recipe).parent) for recipe in recipes} == {settings["recipes"]}
    for stage in stages["stages"].values():
        outs = [next(iter(each.values())) for each in stage["outs"] + stage.get("metrics", [])]
        assert all(out["persist"] for out in outs)  # `dvc repro` deletes the others before it runs a stage
