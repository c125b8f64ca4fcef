"""`m2pt export`, on small files in the real formats; nothing is trained."""

import json
import os
from pathlib import Path

import pytest
from finished_plan import again, call, finished_plan, write

from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import load_weights
from m2pt.plan.plan import Plan


@pytest.fixture
def plan(tmp_path):
    return finished_plan(tmp_path)


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
    name, seed = next(iter(plan.runs)), plan.config.seeds[0]
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
        write(plan.encoder_directory("image", 0) / path.name, plan.encoders["image"].stored, 0, value=2.0)
    assert call(plan, "export", "encoders") == 0
    assert [path.read_bytes() for path in objects] == kept
    assert load_weights(symbolic)[0]["weight"].item() == load_weights(hard)[0]["weight"].item() == 2.0


def test_stale_and_missing_results_are_all_named_and_nothing_is_exported(plan, capsys):
    (plan.encoder_directory("image", 0) / "run.json").unlink()
    write(plan.encoder_directory("video", 0) / "encoder.safetensors", plan.encoders["audio"].stored, 0)
    assert call(plan, "export", "encoders") == 2
    said = capsys.readouterr().err
    assert "image/seed0/run.json: missing; make it with: snakemake" in said
    assert (
        "video/seed0/encoder.safetensors: stale" in said and "stored 'audioset', expected 'kinetics'" in said
    )
    assert not plan.checkpoints.exists()
    name, seed = next(iter(plan.runs)), plan.config.seeds[0]
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
    assert "table.csv: differs from the results it is made of; make it again with" in capsys.readouterr().err


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
