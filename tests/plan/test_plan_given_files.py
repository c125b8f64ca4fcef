"""Encoders given as files: what cannot be made of a file is left empty and said, and nothing else changes."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from config_documents import TINY, given_points

from m2pt import build
from m2pt.config.cell_names import locate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.claims import missing_cells, runs_of_result
from m2pt.plan.plan import Plan
from m2pt.plan.rules import Rules

EARLY = "targets:pretrained/VideoMAE:video_top1"
WHY = (
    "encoder pointcloud is a file, of which no epoch 1 is kept; pretrain it, or give pointcloud_early a file "
    "of its own"
)
LATE = "table:pretrained/M2PT-Point:tune_acc"


def figure(tmp_path, name, plot):
    """The path of a figure."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"title": name, "caption": "", "plot": plot}))
    return str(path)


@pytest.fixture
def before():
    return Plan.load(TINY)


@pytest.fixture
def given():
    return Plan.load(TINY, {"encoders": given_points()})


def test_the_runs_of_an_epoch_are_not_planned_and_all_others_are(before, given):
    assert given.left_empty == {EARLY: WHY}
    assert set(before.runs) - set(given.runs) == {
        name for name, run in before.runs.items() if "pointcloud_early" in run.experiment.encoders
    }
    assert set(given.runs) < set(before.runs)
    place = locate(given.tables, EARLY)
    assert before.cell_runs(*place) and given.cell_runs(*place) == ()
    assert set(runs_of_result(before, "targets")) - set(runs_of_result(given, "targets"))
    assert given.reports == before.reports


def test_only_the_table_with_the_empty_cell_gets_another_digest(before, given):
    assert given.table_digest("table") == before.table_digest("table")
    assert given.figure_digest("curves") == before.figure_digest("curves")
    random = Plan.load(TINY, {"encoders": given_points(random=True)})
    digests = [plan.table_digest("targets") for plan in (before, given, random)]
    assert len(set(digests)) == 3, "the note below it is another one"


def test_a_target_that_starts_from_it_is_left_empty_too():
    encoders = given_points()
    plan = Plan.load(TINY, {"encoders": encoders, "target_encoders": {"video": "pointcloud_early"}})
    assert set(plan.left_empty) == {EARLY}
    plan = Plan.load(TINY, {"encoders": encoders, "target_encoders": {"image": "pointcloud_early"}})
    assert {name.partition(":")[0] for name in plan.left_empty} == {"table", "targets"}
    assert set(plan.left_empty.values()) == {WHY}


def test_the_encoder_is_refused_with_the_reason(given):
    with pytest.raises(InputError) as error:
        given.encoder("pointcloud_early")
    assert str(error.value) == f"encoder 'pointcloud_early' of {TINY} cannot be made: {WHY}."


def test_the_claims_that_need_no_such_cell_have_no_note(given):
    assert missing_cells(given) == [f"{EARLY}: left empty, since {WHY}."]
    assert missing_cells(given, ["table", "summary", "curves"]) == []


def test_a_figure_shows_the_cells_that_it_has(tmp_path):
    curves = {"early": "targets:VideoMAE:video_top1", "late": LATE}
    path = figure(tmp_path, "some", {"kind": "training_curves", "curves": curves})
    plan = Plan.load(TINY, {"encoders": given_points(), "figures": [path]})
    assert list(plan.figure("some").plot.curves) == ["late"]
    assert missing_cells(plan, ["some"]) == [f"{curves['early']}: not drawn in some, since {WHY}."]
    digests = {plan.figure_digest("some")}
    path = figure(tmp_path, "some", {"kind": "training_curves", "curves": {"late": LATE}})
    digests.add(Plan.load(TINY, {"encoders": given_points(), "figures": [path]}).figure_digest("some"))
    assert len(digests) == 2, "their notes differ"


def test_a_figure_without_any_cell_is_no_result(tmp_path):
    path = figure(
        tmp_path, "none", {"kind": "training_curves", "curves": {"early": "targets:VideoMAE:video_top1"}}
    )
    overrides = {"encoders": given_points(), "figures": [path]}
    plan = Plan.load(TINY, overrides)
    assert not any("none" in name for name in plan.reports)
    assert missing_cells(plan)[-1] == f"targets:VideoMAE:video_top1: not drawn in none, since {WHY}."
    words = f"{TINY}: figure none is not drawn, since {WHY}."
    for refuse in (
        plan.figure,
        lambda name: Rules([TINY], read_yaml(TINY) | overrides).refuse(name_of(name)),
    ):
        with pytest.raises(InputError) as error:
            refuse("none")
        assert str(error.value) == words


def name_of(name):
    """Wildcards of a result."""
    return SimpleNamespace(name=name)


def test_a_gain_is_not_drawn_without_its_baseline(tmp_path):
    table = read_yaml(TINY.with_name("table.yaml"))
    table["rows"][1]["run"]["target_init"] = "pointcloud_early"
    table["rows"][1]["run"]["pathway"] = None
    table["rows"] = table["rows"][1:3]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    bars = figure(tmp_path, "bars", {"kind": "gain_bars", "bars": {"late": LATE}})
    curves = figure(tmp_path, "curves", {"kind": "training_curves", "curves": {"late": LATE}})
    overrides = {"tables": [str(tmp_path / "table.yaml")], "figures": [bars, curves], "claims": None}
    plan = Plan.load(TINY, {**overrides, "encoders": given_points()})
    assert set(plan.left_empty) == {"table:pretrained/MAE:tune_acc"}
    assert list(plan.figures) == ["curves"] and plan.not_drawn == {"bars": {LATE: WHY}}


def test_a_file_has_no_place_on_an_axis_of_epochs(tmp_path):
    random = "table:random auxiliary:tune_acc"
    points = {"kind": "auxiliary_quality", "points": [{"cell": LATE}, {"cell": random}]}
    overrides = {"figures": [figure(tmp_path, "quality", points)]}
    assert Plan.load(TINY, overrides).pretraining_epochs("pointcloud") == (2, 2)
    assert Plan.load(TINY, overrides).pretraining_epochs("pointcloud_early") == (1, 2)
    plan = Plan.load(TINY, {**overrides, "encoders": given_points()})
    assert plan.pretraining_epochs("pointcloud") is None and plan.pretraining_epochs("random") == (0, 1)
    assert list(plan.figure("quality").plot.cell_names()) == [random]
    why = "encoder pointcloud is a file, and the epochs of its pretraining are unknown"
    assert plan.not_drawn == {"quality": {LATE: why}}


def test_the_workflow_names_every_file_that_is_missing(tmp_path):
    encoders = given_points(file=str(tmp_path / "points.pth"))
    encoders["text"] = {"file": str(tmp_path / "text.pth")}
    encoders["unused"] = {"file": str(tmp_path / "unused.pth")}
    rules = Rules([TINY], read_yaml(TINY) | {"encoders": encoders, "results": str(tmp_path / "results")})
    said = [
        f"{TINY}: encoders.{name}.file = '{tmp_path / file}': there is no such file; give the path of a "
        "checkpoint."
        for name, file in (("pointcloud", "points.pth"), ("text", "text.pth"))
    ]
    wildcards = SimpleNamespace(encoder="text", seed="0")
    with pytest.raises(InputError) as error:
        rules.encoder_source(wildcards)
    assert str(error.value).splitlines() == said
    rules.plan.encoder_weights("text", 0).parent.mkdir(parents=True)
    rules.plan.encoder_weights("text", 0).touch()  # imported before
    assert rules.encoder_source(wildcards) == [str(tmp_path / "text.pth")]


def test_the_workflow_says_what_is_left_empty_and_plans_the_rest(tmp_path):
    (tmp_path / "points.pth").touch()
    path = tmp_path / "config.yaml"
    encoders = given_points(file=str(tmp_path / "points.pth"))
    path.write_text(yaml.safe_dump(read_yaml(TINY) | {"results": str(tmp_path / "r"), "encoders": encoders}))
    words = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--configfile", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count(f"{EARLY}: left empty, since {WHY}.") == 1
    assert "m2pt import pointcloud " in said and "pointcloud_early --seed" not in said
    assert "m2pt tabulate targets" in said and "m2pt pretrain pointcloud" not in said


def without_norm(**encoder):
    """Encoders of the tiny config, with images from a file without final norm."""
    encoders = read_yaml(TINY)["encoders"]
    return {"encoders": {**encoders, "image": {"modality": "image", "file": "image.pth", **encoder}}}


def test_models_that_start_with_a_norm_that_the_file_lacks_are_left_empty(before):
    needing = {
        name
        for name, run in before.runs.items()
        if (run.experiment.transfer_from or run.experiment).target_init == "image"
        and run.experiment.dataset == "imagenet"
        and run.experiment.mode == "fix"
    }
    assert needing and needing < set(before.runs)
    plan = Plan.load(TINY, without_norm(norm=False))
    assert set(before.runs) - set(plan.runs) == needing
    assert plan.left_empty and {name.rpartition(":")[2] for name in plan.left_empty} == {"fix_acc"}
    (why,) = set(plan.left_empty.values())
    assert why.startswith("encoder image has norm: false, but models of ") and "imagenet_fix" in why
    other = Plan.load(TINY, without_norm())
    assert other.left_empty == {}
    assert plan.encoder_digest("image") == other.encoder_digest("image")
    assert all(run.digest == other.runs[name].digest for name, run in plan.runs.items()), "nothing is rerun"


def test_what_is_transferred_from_such_a_model_is_left_empty_too():
    finetune = read_yaml(TINY)["finetune"]
    finetune["imagenet"]["pretrained_tune"] = finetune["imagenet"]["pretrained_fix"]
    plan = Plan.load(TINY, {**without_norm(norm=False), "finetune": finetune})
    empty = {name for name in plan.left_empty if name.startswith("table:pretrained/M2PT-Point:")}
    transferred = [
        column for column in ("ap_box", "miou") if f"table:pretrained/M2PT-Point:{column}" in empty
    ]
    assert transferred == ["ap_box"], "ADE20K starts from the pretrained encoder"


def test_a_norm_is_only_said_of_files():
    with pytest.raises(InputError, match="norm: false describes a file; leave it out"):
        Plan.load(TINY, {"encoders": {"image": {"modality": "image", "random": True, "norm": False}}})


@pytest.mark.parametrize("config", [TINY, Path("config/config.yaml")])
def test_recipes_know_the_parts_that_their_models_start_from(config):
    starting = {}
    for run in Plan.load(config).runs.values():
        if run.experiment.target_init != "scratch" and not run.experiment.balancing:
            starting.setdefault((run.spec.recipe.model_dump_json(), run.command), run)
    for run in starting.values():
        parts = []
        with torch.device("meta"):
            build.run_model(run, lambda model, parts=parts: parts.extend(model.pretrained_parts))
        assert run.spec.recipe.starts_with_norm == ("norm" in parts), run.name
    assert len({run.spec.recipe.starts_with_norm for run in starting.values()}) == 2
