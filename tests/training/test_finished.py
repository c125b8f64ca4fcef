"""A finished training is not repeated when Snakemake deletes its outputs and runs its job again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "helpers/finished_processes.py"
KINDS = ("pretrain pointcloud", "pretrain image", "finetune", "transfer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, dict]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr + (folder / "log").read_text()
    return json.loads(run.stdout)


def has_trained(result: dict) -> bool:
    return "training finished after" in result["output"]


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_outputs_are_restored_without_training(report: dict[str, dict], kind: str) -> None:
    first = next(iter(report[kind].values()))
    assert first["code"] == 0 and has_trained(first) and "restored" not in first["output"]
    for moment, again in list(report[kind].items())[1:]:
        if moment == "killed while restoring":
            assert again["code"] == -signal.SIGKILL and not has_trained(again)
            continue
        assert again["code"] == 0, again["output"]
        assert again["output"].count("\n") == 1 and "already finished; restored" in again["output"]
        assert again["files"] == first["files"]


def test_kept_files_are_hard_links_and_younger_than_their_inputs(
    report: dict[str, dict], folder: Path
) -> None:
    (run,) = (folder / "results/runs").glob("ade20k-*/seed0")
    for name in ("merged.safetensors", "evaluation.json"):
        assert (run / name).samefile(run / "finished" / name)
        inputs = (folder / "results/encoders").glob("*/seed0/encoder.safetensors")
        assert all(
            (run / name).stat().st_mtime > path.stat().st_mtime for path in inputs if "image" in str(path)
        )
    (early,) = (folder / "results/encoders/image").glob("seed0/encoder-epoch1.safetensors")
    assert early.samefile(early.parent / "finished" / early.name)


def test_killed_after_the_last_step_it_ends_with_the_same_bits(report: dict[str, dict]) -> None:
    undisturbed = report["finetune"]["first"]["files"]["attached.safetensors"]
    *killed, last = report["kills"].values()
    assert [result["code"] for result in killed] == [-signal.SIGKILL] * 4
    assert [has_trained(result) for result in killed] == [True, False, False, False]
    assert last["code"] == 0 and not has_trained(last)
    assert last["files"].keys() == report["finetune"]["first"]["files"].keys()
    assert last["files"]["attached.safetensors"] == undisturbed
    assert last["files"]["metrics.jsonl"] == report["finetune"]["first"]["files"]["metrics.jsonl"]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("weights", "finished/attached.safetensors is damaged"),
        ("lost weights", "finished/attached.safetensors is damaged"),
        ("state", "finished/state.json is damaged"),
        ("metrics", "metrics.jsonl has been changed"),
    ],
)
def test_damaged_kept_files_are_moved_away_and_trained_again(
    report: dict[str, dict], kind: str, named: str
) -> None:
    again, first = report["changes"][kind], report["finetune"]["first"]
    assert again["code"] == 0 and has_trained(again)
    assert named in again["output"] and "damaged/finished (safe to delete)" in again["output"]
    assert "damaged/finished/state.json" in again["files"]
    for name in ("attached.safetensors", "metrics.jsonl"):
        assert again["files"][name] == first["files"][name]


def test_lost_records_are_restored_too(report: dict[str, dict]) -> None:
    before, after = report["changes"]["lost weights"]["files"], report["changes"]["lost records"]
    assert not has_trained(after)
    assert after["files"] == before


def test_copies_are_kept_where_there_are_no_hard_links(report: dict[str, dict]) -> None:
    first, again = report["changes"]["without links"], report["changes"]["restored without links"]
    assert has_trained(first) and not has_trained(again)
    assert again["files"] == first["files"]


def test_a_changed_spec_is_trained_and_so_is_the_first_one_after_it(report: dict[str, dict]) -> None:
    other, again = report["specs"].values()
    for result in (other, again):
        assert result["code"] == 0 and has_trained(result) and "restored" not in result["output"]
        assert "the spec or the input weights changed" in result["output"]
    first = report["pretrain pointcloud"]["first"]["files"]
    assert again["files"]["encoder.safetensors"] == first["encoder.safetensors"]
    assert not any(name.startswith("superseded") for name in again["files"])


@pytest.mark.parametrize(
    ("kind", "message"), [("damaged", "is damaged or truncated"), ("lost", "No such file")]
)
def test_snapshots_are_verified_before_they_are_kept(
    report: dict[str, dict], kind: str, message: str
) -> None:
    refused, again = report["lost snapshots"][kind], report["lost snapshots"][f"{kind}, again"]
    assert refused["code"] == 1 and "Traceback" not in refused["output"]
    assert message in refused["output"] and "encoder-epoch1.safetensors" in refused["output"]
    assert "start the same command again" in refused["output"]
    assert again["code"] == 0 and has_trained(again)
    first = report["pretrain image"]["first"]["files"]
    assert all(again["files"][name] == first[name] for name in first if name.endswith(".safetensors"))
