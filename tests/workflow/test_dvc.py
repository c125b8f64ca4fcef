"""Checkpoints move by DVC: from a lab to a clone, by a folder and by S3, and what goes wrong on the way."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import boto3
import pytest
import yaml
from dvc_lab import CONFIG, FINALS, Folder, from_encoders_to_table, make_lab, train
from moto.server import ThreadedMotoServer

from m2pt.commands import main
from m2pt.formats.weights import load_weights

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
ENCODERS = {f"{name}/seed0/{file}" for name in ("image", "pointcloud") for file in FINALS}
EARLY = "results/encoders/pointcloud_early/seed0/encoder.safetensors"
WEIGHTS = "checkpoints/encoders/pointcloud/seed0/encoder.safetensors"


@pytest.fixture(scope="module")
def untracked(tmp_path_factory) -> Folder:
    """The lab before DVC has seen anything of it."""
    return make_lab(tmp_path_factory.mktemp("dvc"))


@pytest.fixture(scope="module")
def new_clone(untracked) -> Folder:
    """A clone of the repository as it is published: no dvc.lock, no remote."""
    return untracked.clone("new")


@pytest.fixture(scope="module")
def lab(untracked, new_clone) -> Folder:
    """The lab after `dvc repro` and `dvc push` to a folder."""
    untracked("dvc", "repro")
    untracked("dvc", "remote", "add", "--default", "store", str(untracked.path.parent / "store"))
    untracked("dvc", "push")
    untracked.commit("Checkpoints")
    return untracked


@pytest.fixture(scope="module")
def clone(lab) -> Folder:
    """A fresh clone into which the encoders have been pulled, and which takes them from there."""
    clone = lab.clone("clone", pull="checkpoints/encoders")
    clone.take_from_dvc("image", "pointcloud")
    return clone


@pytest.fixture
def refusal(capsys, monkeypatch):
    """Run an m2pt command in a folder, in this process; return what it refuses with."""

    def run(folder: Folder, *arguments: str) -> str:
        monkeypatch.chdir(folder.path)
        assert main([*arguments, "--config", CONFIG]) == 2
        return capsys.readouterr().err

    return run


def cached(folder: Folder, file: str) -> Path:
    """The object of DVC's cache that a checkpoint is a copy of."""
    md5 = hashlib.md5((folder.path / file).read_bytes()).hexdigest()
    return folder.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def damage(path: Path) -> None:
    """Turn one bit over in the weights, so that the file is still read without complaint."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    path.chmod(0o444)


def test_finals_are_gathered_with_checksums_and_nothing_else(lab):
    models = {f"{lab.run}/{file}" for file in ("merged.safetensors", "evaluation.json", "SHA256SUMS")}
    tables = {f"small_table.{kind}" for kind in ("csv", "md", "tex")}
    tables |= {f"small_figure.{kind}" for kind in ("csv", "pdf", "png", "svg")}
    assert lab.files("checkpoints/encoders") == ENCODERS
    assert lab.files("checkpoints/models") == models
    assert lab.files("checkpoints/tables") == tables
    checkpoints = lab.path / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"encoders", "models", "tables", "metrics.json"}
    for sums in checkpoints.rglob("SHA256SUMS"):
        lines = [line.split("  ") for line in sums.read_text().splitlines()]
        assert {name for _, name in lines} == {path.name for path in sums.parent.iterdir()} - {sums.name}
        for checksum, name in lines:
            assert hashlib.sha256((sums.parent / name).read_bytes()).hexdigest() == checksum


def test_push_has_sent_the_finals_and_nothing_else(lab):
    objects = [path for path in (lab.path.parent / "store").rglob("*") if path.is_file()]
    sent = {path.parent.name + path.name for path in objects if path.suffix != ".dir"}
    finals = [path for path in (lab.path / "checkpoints").rglob("*") if path.is_file()]
    assert sent == {hashlib.md5(path.read_bytes()).hexdigest() for path in finals}


def test_metrics_and_plots_are_shown(lab):
    stored = json.loads((lab.path / "checkpoints/metrics.json").read_text())
    evaluation = json.loads((lab.path / "results/runs" / lab.run / "evaluation.json").read_text())
    value = stored["small_table"]["pretrained/M2PT"]["tune_acc"]
    assert value == pytest.approx(evaluation["metrics"]["top1"], abs=1e-4)
    metrics = json.loads(lab("dvc", "metrics", "show", "--json"))
    assert metrics[""]["data"]["checkpoints/metrics.json"]["data"] == stored
    plots = lab.path.parent / "plots"
    assert "failed" not in lab("dvc", "plots", "show", "--out", str(plots))
    page = (plots / "index.html").read_text()
    assert "tables/small_figure.csv" in page and '"curve": "M2PT"' in page and '"field": "curve"' in page


def test_nothing_is_left_to_do_after_repro(lab):
    assert "up to date" in lab("dvc", "status")
    assert "up to date" in lab("dvc", "repro", "--dry")
    assert lab("git", "status", "--porcelain") == ""
    other = lab.clone("other")
    assert "up to date" in other("dvc", "repro", "--dry", "--allow-missing")


def test_an_experiment_runs_a_stage_with_another_value_and_is_listed(lab):
    lab("dvc", "exp", "run", "encoders", "--name", "other-device", "--set-param", f"{CONFIG}:device=auto")
    listing = json.loads(lab("dvc", "exp", "show", "--json"))
    (name,) = [each["name"] for each in listing[1]["experiments"] for each in each["revs"]]
    assert name == "other-device"
    assert lab.files("checkpoints/encoders") == ENCODERS
    lab("git", "checkout", "--quiet", ".")


def test_a_clone_without_any_checkpoint_shows_what_would_be_run(new_clone):
    assert "deleted:            checkpoints/encoders" in new_clone("dvc", "status")
    dry_run = new_clone("dvc", "repro", "--dry", "--force")
    assert re.findall(r"Running stage '(\w+)'", dry_run) == ["encoders", "models", "tables"]
    assert "No file hash info found" in new_clone("dvc", "pull", "checkpoints/encoders", code=1)


def test_without_a_remote_dvc_says_how_to_add_one(lab):
    folder = lab.clone("alone")
    folder("dvc", "remote", "remove", "store")
    assert "No remote provided and no default remote set" in folder("dvc", "pull", "encoders", code=1)
    said = folder("dvc", "push", "encoders", code=1)
    assert "no remote specified" in said and "dvc remote add -d <remote name> <remote url>" in said


def test_a_clone_takes_what_it_pulled_and_pretrains_nothing(lab, clone, monkeypatch):
    assert clone.files("checkpoints/encoders") == ENCODERS
    dry_run = clone.snakemake("--dry-run")
    assert "import_encoder" in dry_run and "pretrain_encoder" not in dry_run
    built = re.findall(r"Build the miniature (\w+)", dry_run)
    assert built == ["imagenet"]  # shapenet55 is for a pretraining
    clone.snakemake(EARLY)
    monkeypatch.chdir(clone.path)
    train(["data build imagenet", "import image"])
    assert not list((clone.path / "results/encoders").glob("*/seed0/run.json"))
    for name in ("encoder.safetensors", "encoder-epoch1.safetensors"):
        taken = clone.path / "results/encoders/pointcloud/seed0" / name
        assert taken.read_bytes() == (clone.path / WEIGHTS).with_name(name).read_bytes()
    train(from_encoders_to_table())
    table = "results/small_table.csv"
    assert (clone.path / table).read_text() == (lab.path / table).read_text()


def test_a_stage_over_what_was_pulled_leaves_it_as_it_is(lab, clone):
    before = {path: path.read_bytes() for path in (clone.path / "checkpoints/encoders").rglob("*.*")}
    clone("dvc", "repro", "encoders")
    assert {path: path.read_bytes() for path in (clone.path / "checkpoints/encoders").rglob("*.*")} == before
    recorded = [
        yaml.safe_load((each.path / "dvc.lock").read_text())["stages"]["encoders"] for each in (lab, clone)
    ]
    assert recorded[0]["outs"] == recorded[1]["outs"]


def test_dates_of_pulled_files_do_not_matter_and_their_content_does(clone):
    for path in (clone.path / "checkpoints").rglob("*"):
        path.touch()
    assert "Nothing to be done" in clone.snakemake(EARLY, "--dry-run")
    checkpoints = clone.path / "checkpoints"
    checkpoints.rename(clone.path / "away")  # what has been taken needs them no longer
    assert "Nothing to be done" in clone.snakemake(EARLY, "--dry-run")
    (clone.path / "away").rename(checkpoints)
    sums = clone.path / Path(WEIGHTS).with_name("SHA256SUMS")
    text = sums.read_text()
    sums.write_text(text.replace(text[:4], "0000"))
    assert "import_encoder" in clone.snakemake(EARLY, "--dry-run")
    sums.write_text(text)


def test_who_has_pretrained_keeps_what_is_built_on_it(lab):
    lab.take_from_dvc("image", "pointcloud")
    assert "Nothing to be done" in lab.snakemake("all_models", "--dry-run")
    lab("git", "checkout", "--quiet", ".")


def test_a_missing_checkpoint_names_the_command_that_fetches_it(lab):
    folder = lab.clone("partial", pull="checkpoints/encoders/image")
    folder.take_from_dvc("image", "pointcloud")
    assert not (folder.path / "checkpoints/encoders/pointcloud").exists()
    said = folder.snakemake("--dry-run", code=1)
    assert f"{WEIGHTS}: missing, and encoders.pointcloud.source = 'dvc' in {CONFIG}" in said
    assert "dvc pull checkpoints/encoders/pointcloud" in said


def test_a_checkpoint_of_another_spec_is_refused_with_both_values(clone, refusal):
    recipe = clone.path / "tests/tiny/recipes/pretrain_pointcloud.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("lr: 1.0e-3", "lr: 2.0e-3"))
    try:
        for said in (
            refusal(clone, "import", "pointcloud"),
            refusal(clone, "check", "--encoders", "pointcloud"),  # before the first training
            refusal(clone, "export", "encoders"),
        ):
            assert f"{WEIGHTS}: made with a spec other than that of {CONFIG}" in said
            assert "spec.recipe.training.lr: stored 0.001, expected 0.002" in said
            assert "source: train" in said
        said = clone.snakemake(code=1)
        assert "stored 0.001, expected 0.002" in said and "Finetune" not in said
    finally:
        recipe.write_text(text)
    assert "seed: stored 0, expected 1" in _refused_with_seed_1(clone, refusal)


def _refused_with_seed_1(clone: Folder, refusal) -> str:
    folder = clone.path / "checkpoints/encoders/image"
    shutil.copytree(folder / "seed0", folder / "seed1")
    try:
        return refusal(clone, "import", "image", "--seed", "1")
    finally:
        shutil.rmtree(folder / "seed1")


def test_a_damaged_cache_object_is_fetched_again_or_refused(lab, refusal):
    folder = lab.clone("damaged", pull="checkpoints/encoders")
    folder.take_from_dvc("image", "pointcloud")
    whole, cache = (folder.path / WEIGHTS).read_bytes(), cached(folder, WEIGHTS)
    damage(cache)
    cache.chmod(0o644)  # DVC looks into an object that can be written, and fetches it again
    (folder.path / WEIGHTS).unlink()
    folder("dvc", "pull", "checkpoints/encoders")
    assert (folder.path / WEIGHTS).read_bytes() == whole
    damage(cache)  # and trusts one that cannot: then we look
    (folder.path / WEIGHTS).unlink()
    folder("dvc", "pull", "checkpoints/encoders")
    said = refusal(folder, "import", "pointcloud")
    assert f"{WEIGHTS}: damaged, its SHA-256 is " in said
    pointcloud = "checkpoints/encoders/pointcloud"
    mend = f"rm -r {pointcloud}/seed0; mv .dvc/cache/files .dvc/cache/set-aside; dvc pull {pointcloud}"
    assert mend in said
    for command in mend.split("; "):
        folder(*command.split())
    assert (folder.path / WEIGHTS).read_bytes() == whole


def test_a_damaged_remote_is_refused_by_dvc_if_told_so_and_by_us_anyhow(lab, refusal):
    store = lab.path.parent / "damaged-store"
    shutil.copytree(lab.path.parent / "store", store)
    damage(store / cached(lab, WEIGHTS).relative_to(lab.path / ".dvc/cache"))
    folder = lab.clone("from-damaged")
    folder.set_remote("store", url=str(store), verify="true")
    assert "failed to pull data from the cloud" in folder("dvc", "pull", "checkpoints/encoders", code=1)
    folder.set_remote("store", url=str(store))
    folder("dvc", "pull", "checkpoints/encoders")
    folder.take_from_dvc("pointcloud")
    assert f"{WEIGHTS}: damaged" in refusal(folder, "import", "pointcloud")


@pytest.fixture(scope="module")
def bucket():
    """The endpoint of an S3 server on this machine with a bucket `lab`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    credentials = {name.lower(): value for name, value in KEYS.items() if "KEY" in name}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **credentials)
    client.create_bucket(Bucket="lab")
    yield f"http://{host}:{port}"
    server.stop()


def test_s3_push_clone_pull_and_import(lab, bucket, monkeypatch):
    lab.set_remote("s3", url="s3://lab/m2pt", endpointurl=bucket)
    assert "pushed" in lab("dvc", "push", "--remote", "s3", "encoders", **KEYS)
    clone = lab.clone("from-s3")
    clone.set_remote("s3", url="s3://lab/m2pt", endpointurl=bucket)
    clone("dvc", "pull", "--remote", "s3", "checkpoints/encoders", **KEYS)
    assert clone.files("checkpoints/encoders") == ENCODERS
    clone.take_from_dvc("image", "pointcloud")
    assert "pretrain_encoder" not in clone.snakemake("--dry-run")
    monkeypatch.chdir(clone.path)
    assert main(["import", "pointcloud", "--config", CONFIG]) == 0
    assert (clone.path / WEIGHTS).read_bytes() == (lab.path / WEIGHTS).read_bytes()
    assert load_weights(clone.path / WEIGHTS.replace("checkpoints", "results"))[0]


def test_s3_without_credentials_bucket_or_server_says_so(lab, bucket):
    pull = ("dvc", "pull", "--remote", "s3", "checkpoints/encoders")
    clone = lab.clone("stranger")
    clone.set_remote("s3", url="s3://lab/m2pt", endpointurl=bucket)
    assert "Unable to locate credentials" in clone(*pull, code=1)
    clone.set_remote("s3", url="s3://nowhere/m2pt", endpointurl=bucket)
    assert "do not exist neither locally nor on remote" in clone(*pull, code=1, **KEYS)
    clone.set_remote("s3", url="s3://lab/m2pt", endpointurl="http://127.0.0.1:1")
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:1/' in clone(*pull, code=1, **KEYS)
