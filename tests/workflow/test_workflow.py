"""The real DAG through the real Snakemake, on the smallest config; then what a second run does."""

import csv
import html
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import timm
import torch
from forked_commands import forked_commands

from m2pt.commands import main
from m2pt.config.experiment import digest
from m2pt.datasets.layouts import reader
from m2pt.formats.weight_files import file_digest
from m2pt.formats.weights import load_weights, save_weights
from m2pt.plan.claims import runs_of_result
from m2pt.plan.plan import Plan
from m2pt.plan.rules import MINIATURE

REPOSITORY = Path(__file__).parents[2]
CONFIG = "tests/tiny/config.yaml"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def snakemake(folder, *arguments, check=True, configs=(CONFIG,), environment=ENVIRONMENT):
    command = [
        "snakemake",
        *arguments,
        "--cores",
        "2",
        "--configfile",
        *configs,
    ]  # which swallows what follows
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert not check or run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def planned_jobs(folder, *arguments):
    """Return {rule: number of jobs} of a dry run, without the default target."""
    table = snakemake(folder, "--dry-run", *arguments).split("Job stats:")
    counts = dict(re.findall(r"^(\w+)\s+(\d+)$", table[1], re.MULTILINE)) if len(table) > 1 else {}
    return {rule: int(count) for rule, count in counts.items() if rule not in ("total", "all_tables")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the workflow in which everything has been run once."""
    folder = tmp_path_factory.mktemp("workflow")
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("workflow", "profiles", "tests/tiny"):
        shutil.copytree(REPOSITORY / name, folder / name)
    with forked_commands() as programs:
        snakemake(folder, environment=ENVIRONMENT | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"})
    return folder


def test_a_default_config_that_snakemake_cannot_read_is_named_without_a_traceback(tmp_path):
    (tmp_path / "config").mkdir()
    for damage, words in {b"a: \xe9": "not UTF-8", b"a: " + b"[" * 5000: "nested deeper"}.items():
        (tmp_path / "config/config.yaml").write_bytes(damage)
        command = ["snakemake", "--snakefile", REPOSITORY / "Snakefile", "--dry-run", "--cores", "1"]
        run = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        said = run.stdout + run.stderr
        assert run.returncode == 1 and "Traceback" not in said
        assert "config/config.yaml, line 1: not" in said and words in said


@pytest.fixture(scope="module")
def plan(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return Plan.load(Path(CONFIG))


@pytest.fixture(scope="module")
def runs(plan):
    """Names of the tuned M2PT-Point run and of the random control, by method."""
    found = {name: run.experiment for name, run in plan.runs.items() if run.experiment.mode == "tune"}
    return {
        experiment.auxiliaries[0]: name
        for name, experiment in found.items()
        if experiment.task == "classification" and experiment.auxiliaries
    }


def seed_folder(folder, run):
    return folder / "results" / "runs" / run / "seed0"


def test_the_table_has_what_was_measured_and_nothing_else(folder, plan):
    rows = list(csv.DictReader((folder / "results/table.csv").read_text().splitlines()))
    assert len(rows) == 5 * 4
    measured = {(row["method"], row["column"]): float(row["mean"]) for row in rows if row["mean"]}
    assert set(measured) == {
        ("MAE", "tune_acc"),
        ("random auxiliary", "tune_acc"),
        ("two auxiliaries", "fix_acc"),
        *(("M2PT-Point", column) for column in ("tune_acc", "fix_acc", "ap_box", "miou")),
    }
    for row in rows:
        if row["runs"]:
            result = json.loads((seed_folder(folder, row["runs"]) / "evaluation.json").read_text())
            assert round(float(row["mean"]), 3) in [round(value, 3) for value in result["metrics"].values()]
            assert (
                result["provenance"]["threads"] == 1 and len(result["provenance"]["dataset_manifest"]) == 64
            )
    assert (folder / "results/table.md").exists() and (folder / "results/table.tex").exists()


def test_the_merged_model_of_a_run_is_exported(folder, plan, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    command = [
        "export",
        runs["pointcloud"],
        "--config",
        CONFIG,
        "-o",
        str(tmp_path / "a.safetensors"),
        "--to",
    ]
    assert main([*command, "timm"]) == 0
    assert "load it with: timm.create_model(" in capsys.readouterr().out
    merged, _ = load_weights(seed_folder(folder, runs["pointcloud"]) / "merged.safetensors")
    written, _ = load_weights(tmp_path / "a.safetensors")
    assert written.keys() == merged.keys() and all(torch.equal(written[key], merged[key]) for key in merged)
    dense = next(name for name, run in plan.runs.items() if run.experiment.task == "detection")
    assert main(["export", dense, *command[2:], "timm"]) == 2
    assert "only classifiers have other forms" in capsys.readouterr().err
    assert main([*command, "smell"]) == 2
    assert "give one of timm, transformers, onnx, official" in capsys.readouterr().err
    assert main([*command, "timm", "--seed", "7"]) == 2
    error = capsys.readouterr().err
    assert "seed7/merged.safetensors does not exist yet; make it with: snakemake results/runs/" in error
    for words in (["export", "smell"], ["export", "models", "-o", "x"], [*command[:4], "--to", "timm"]):
        assert main([*words, "--config", CONFIG]) == 2


@pytest.mark.parametrize(("mode", "pool", "head"), [("tune", "avg", 2), ("fix", "token", 5)])
def test_merged_weights_are_plain_timm_and_score_what_was_reported(folder, plan, mode, pool, head):
    name = next(name for name in plan.runs if name.startswith(f"imagenet-{mode}-from-image-pointcloud"))
    run = seed_folder(folder, name)
    merged, _ = load_weights(run / "merged.safetensors")
    attached, _ = load_weights(run / "attached.safetensors")
    # a batch norm before the classifier has three buffers, which are folded into it
    assert len(attached) == len(merged) + 2 * 4 * plan.config.backbone.depth + head - 2
    backbone = plan.config.backbone
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=backbone.dim,
        depth=backbone.depth,
        num_heads=backbone.num_heads,
        mlp_ratio=backbone.mlp_ratio,
        num_classes=10,
        global_pool=pool,
    )
    model.load_state_dict(merged, strict=True)
    model.eval()
    val = reader("imagenet")(folder / "results/data/imagenet", "val", num_classes=10, image_size=32)
    images, labels = zip(*(val[index] for index in range(len(val))), strict=True)
    with torch.inference_mode():
        hits = model(torch.stack(images)).argmax(1) == torch.tensor(labels)
    result = json.loads((run / "evaluation.json").read_text())
    assert 100 * hits.float().mean().item() == pytest.approx(result["metrics"]["top1"], abs=1e-4)


def test_fix_trains_the_scales_and_the_classifier_only(folder, plan):
    name = next(name for name in plan.runs if name.startswith("imagenet-fix-from-image-pointcloud"))
    attached, _ = load_weights(seed_folder(folder, name) / "attached.safetensors")
    target, _ = load_weights(folder / plan.encoder_weights("image", 0))
    auxiliary, _ = load_weights(folder / plan.encoder_weights("pointcloud", 0))
    scales = [key for key in attached if key.endswith(".scale")]
    assert len(scales) == 4 * plan.config.backbone.depth
    assert all(attached[key].item() != 0 for key in scales)
    for key, value in attached.items():
        if ".pathways." in key and key.endswith(".weight"):
            assert torch.equal(value, auxiliary[key.replace(".pathways.pointcloud", "")])
        elif key.startswith("blocks.") and not key.endswith(".scale"):
            assert torch.equal(value, target[key])
    assert attached["head.1.weight"].std() > 0


def test_kept_epochs_lie_beside_the_final_weights(folder, plan):
    final, _ = load_weights(folder / plan.encoder_weights("image", 0))
    early, _ = load_weights(folder / plan.encoder_directory("image", 0) / "encoder-epoch1.safetensors")
    assert final.keys() == early.keys()
    assert any(not torch.equal(final[key], early[key]) for key in final)


def test_a_transfer_stands_on_the_merged_finetuned_backbone(folder, plan, runs):
    name = next(name for name, run in plan.runs.items() if run.experiment.task == "detection")
    detector, _ = load_weights(seed_folder(folder, name) / "merged.safetensors")
    merged, _ = load_weights(seed_folder(folder, runs["pointcloud"]) / "merged.safetensors")
    prefix = next(key for key in detector if key.endswith("blocks.0.attn.qkv.weight")).split("blocks.")[0]
    blocks = [key for key in merged if key.startswith("blocks.")]
    assert len(blocks) == 12 * plan.config.backbone.depth
    assert all(torch.equal(detector[prefix + key], merged[key]) for key in blocks)  # frozen, so unchanged


def test_a_merged_file_that_is_not_the_merger_is_refused(folder, plan, runs):
    path = seed_folder(folder, runs["random"]) / "merged.safetensors"
    state, metadata = load_weights(path)
    kept = path.read_bytes()
    try:
        save_weights(path, state | {"head.weight": state["head.weight"] * 1.01}, metadata)
        command = ["m2pt", "evaluate", runs["random"], "--config", CONFIG]
        run = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    finally:
        path.write_bytes(kept)
    assert run.returncode == 1 and "more than float32 rounding" in run.stderr


def test_every_training_is_one_mlflow_run(folder, plan):
    with sqlite3.connect(folder / "results/mlflow.db") as store:
        statuses = [row[0] for row in store.execute("SELECT status FROM runs")]
    trainings = len(plan.runs) + sum(1 for encoder in plan.config.encoders.values() if encoder.pretrain)
    assert statuses.count("FINISHED") >= trainings


def test_a_second_run_does_nothing(folder):
    assert "Nothing to be done" in snakemake(folder)


def test_a_comment_reruns_nothing_and_a_value_what_depends_on_it(folder):
    recipe = folder / "tests/tiny/recipes/coco.yaml"
    text = recipe.read_text()
    try:
        recipe.write_text("# a comment\n" + text)
        assert planned_jobs(folder) == {}
        recipe.write_text(text.replace("lr: 1.0e-3", "lr: 2.0e-3"))
        changed = planned_jobs(folder)
        assert changed == {"transfer": 1, "tabulate": 1}
    finally:
        recipe.write_text(text)
    recipe = folder / "tests/tiny/recipes/pretrain_pointcloud.yaml"
    text = recipe.read_text()
    try:
        recipe.write_text(text.replace("lr: 1.0e-3", "lr: 2.0e-3"))
        rerun = planned_jobs(folder)
    finally:
        recipe.write_text(text)
    assert rerun == {
        "pretrain_encoder": 1,
        "import_encoder": 1,  # of an early epoch
        "finetune": 6,
        "merge": 6,
        "evaluate": 6,
        "transfer": 2,
        "tabulate": 2,
        "plot": 1,
        "summarize": 1,
    }


def test_a_stale_result_is_refused_without_snakemake_s_records(folder):
    recipe = folder / "tests/tiny/recipes/imagenet_fix.yaml"
    text = recipe.read_text()
    try:
        recipe.write_text(text.replace("lr: 1.0e-2, scale_lr", "lr: 3.0e-2, scale_lr"))
        command = ["m2pt", "tabulate", "table", "--config", CONFIG]
        run = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    finally:
        recipe.write_text(text)
    assert run.returncode == 2
    assert "stale" in run.stderr and "spec.recipe.training.lr: stored 0.01, expected 0.03" in run.stderr


def test_a_killed_workflow_goes_on_and_ends_with_the_same_bits(folder, runs):
    run = seed_folder(folder, runs["random"])
    weights, metrics = run / "attached.safetensors", run / "metrics.jsonl"
    before = file_digest(weights), metrics.read_bytes()
    target = str(weights.relative_to(folder))
    for _ in range(5):
        shutil.rmtree(run)
        command = ["snakemake", target, "--cores", "1", "--configfile", CONFIG]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and not (run / "resume.pt").exists():
            time.sleep(0.005)
        with suppress(ProcessLookupError):  # the training may just have ended: then once more
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (run / "resume.pt").exists():
            break
    assert (run / "resume.pt").exists() and not weights.exists()
    snakemake(folder, "--unlock")
    snakemake(folder, target)
    assert "resum" in (run / "train.log").read_text().lower()
    assert (file_digest(weights), metrics.read_bytes()) == before


def test_processes_are_asked_of_the_profile_and_change_no_result(folder, runs):
    """Resources say how many; without them a rule's line is the command as people type it."""
    run = runs["random"]
    target = f"results/runs/{run}/seed0/evaluation.json"
    words = f"{run} --seed 0 --config {CONFIG} --expect"
    assert planned_jobs(folder, "--set-resources", "finetune:processes=2", "evaluate:gpus=2") == {}
    forced = ("--dry-run", "--printshellcmds", "--forceall", target)
    for resources, launched in (
        ([], ""),
        (["gpus=1"], ""),
        (["processes=2"], "launch --nodes 1 --processes 2 "),
        (["gpus=a100:4"], "launch --nodes 1 --processes 4 "),
        (["gres=gpu:a100:4"], "launch --nodes 1 --processes 4 "),
        (["nodes=2", "gpus=4", "processes=2"], "launch --nodes 2 --processes 2 "),
    ):
        given = [f"{rule}:{resource}" for rule in ("finetune", "evaluate") for resource in resources]
        printed = snakemake(folder, *forced, *(["--set-resources", *given] if given else []))
        for rule in ("finetune", "evaluate"):
            assert f"m2pt {launched}{rule} {words}" in printed


def test_no_rule_has_resources_of_its_own():
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        assert "resources:" not in path.read_text(), f"{path}: they belong in a profile"


def test_one_table_needs_the_data_behind_it_and_no_other(folder, tmp_path):
    options = ["--config", f"results={tmp_path / 'other'}"]
    command = ["snakemake", str(tmp_path / "other/targets.csv"), "-n", "--cores", "2", "--configfile", CONFIG]
    run = subprocess.run([*command, *options], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    built = set(re.findall(r"Build the miniature (\w+)", run.stdout + run.stderr))
    assert built == {
        *("imagenet", "shapenet55", "shapenetpart", "partnet", "kinetics", "audioset", "text"),
    }


def test_figures_and_the_summary_of_claims_are_made(folder):
    for kind in ("pdf", "svg", "png", "csv"):
        assert (folder / f"results/curves.{kind}").stat().st_size > 100
    assert "A point cloud model improves an image model" in (folder / "results/summary.md").read_text()


def test_no_training_of_the_shipped_config_is_planned_twice():
    """Runs and encoders that would do the same under two names are one job of the DAG too many."""
    plan = Plan.load(REPOSITORY / "config/config.yaml")
    stored = [spec.stored for spec in plan.encoders.values()]
    specs = [spec for spec in stored if "recipe" in spec and "epoch" not in spec]
    specs += [
        {key: value for key, value in run.spec.stored.items() if key != "experiment"}
        | {"pathway": run.spec.stored["experiment"]["pathway"], "mode": run.experiment.mode}
        for run in plan.runs.values()
    ]
    digests = [digest(spec) for spec in specs]
    assert len(set(digests)) == len(digests)
    command = ["snakemake", "-n", "--quiet", "rules", "--cores", "2", "--config", "results=nowhere"]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    counts = dict(re.findall(r"^(\w+)\s+(\d+)$", run.stdout + run.stderr, re.MULTILINE))
    rules = ("pretrain_encoder", "finetune", "transfer", "multimodal")
    assert sum(int(counts[rule]) for rule in rules) == len(digests)


def test_lint_finds_nothing(folder):
    assert "Congratulations" in snakemake(folder, "--lint")


def test_the_report_s_captions_say_how_each_result_was_made(folder):
    snakemake(folder, "--report", "report.html")
    report = (folder / "report.html").read_text()
    start = report.index("var results = {") + len("var results = ")
    results, _ = json.JSONDecoder().raw_decode(report, start)
    captions = {each["name"]: html.unescape(" ".join(each["caption"].split())) for each in results.values()}
    for name, says in (
        ("table.csv", "gain over the row's baseline"),
        ("curves.svg", "its band one standard deviation"),
        ("summary.md", "Every claim of the paper's abstract"),
    ):
        made = (folder / f"results/{name.partition('.')[0]}.made.txt").read_text().strip()
        config_seed_commit = rf"Measured with {CONFIG}, seed 0, commits? (?:[0-9a-f]{{12}}|unknown)\S*, "
        device_hours = r"on cpu; \d+ trainings? took \d+\.\d minutes in total .*"
        assert re.fullmatch(config_seed_commit + device_hours, made), made
        assert says in captions[name] and f"{made} {MINIATURE}" in captions[name]
    assert "asterisk" not in captions["curves.svg"]  # curves have no gains


def test_an_unknown_target_and_a_second_config_are_refused(folder):
    refusal = snakemake(folder, "results/table9.csv", check=False)
    assert "no table or figure 'table9'; it has table, targets, curves" in refusal
    words = snakemake(folder, "--dry-run", check=False, configs=(CONFIG, "tests/tiny/table.yaml"))
    assert "configs are never merged" in words


def test_several_seeds_from_the_command_line_are_planned(folder):
    planned = planned_jobs(folder, "results/table.csv", "--forceall", "--config", "seeds=[0,1]")
    plan = Plan.load(Path(CONFIG))
    trained = {name for name in runs_of_result(plan, "table") if plan.runs[name].command == "finetune"}
    assert planned["finetune"] == 2 * len(trained) > 0
