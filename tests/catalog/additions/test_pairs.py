"""A stranger adds a layout whose samples have two modalities, and a kind of run that is trained on them."""

import json
from dataclasses import replace

import pytest
from strangers.commands import faults, run

from m2pt import catalog
from m2pt.plan.jobs import trainings
from m2pt.plan.plan import Plan
from m2pt.run_files import EVALUATION, MERGED, RUN

PAIRS = catalog.Layout(
    modalities=("image", "audio"),
    labels="class",
    reader="strangers.pairs",
    augmentation="strangers.pairs:Noise",
    input="strangers.pairs:Input",
)
PAIRED = catalog.Kind(
    label="trained on pairs",
    help="train on two modalities",
    module="strangers.pairs",
    outputs=(MERGED, EVALUATION),
    several_modalities=True,
    settings="strangers.pairs:Settings",
    experiments="strangers.pairs:experiments",
    recipe="strangers.pairs:recipe",
    model="strangers.pairs:model",
    interface="m2pt.tasks.target:TargetTask",
)
PAIR_TASK = catalog.Task(
    kind="paired",
    labels="class",
    metrics=("top1",),
    task="strangers.pairs:PairTask",
    recipe="strangers.pairs:PairRecipe",
)


@pytest.fixture(autouse=True)
def paired(monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "pairs", PAIRS)
    monkeypatch.setitem(catalog.KINDS, "paired", PAIRED)
    monkeypatch.setitem(catalog.TASKS, "pair_classification", PAIR_TASK)


def sections(recipe):
    return {
        "datasets": {"pairs": {"layout": "pairs", "num_classes": 2, "miniature": {"seed": 0}}},
        "paired": {"pairs": {"recipe": recipe(input={"frames": 32})}},
        "column": {"task": "pair_classification", "dataset": "pairs", "mode": None},
        "row": {"target_init": "scratch"},
    }


def test_a_run_on_two_modalities_is_pair_run_trained_and_evaluated(write, recipe, capsys):
    config = write(**sections(recipe))
    run("check", "--config", str(config))
    plan = Plan.load(config)
    (pair_run,) = plan.runs.values()
    inputs = {name: each["input"] for name, each in pair_run.spec.stored["architectures"].items()}
    image = plan.config.modalities["image"].input.image_size
    assert inputs["image"] == {"image_size": image}
    assert (inputs["audio"]["frames"], inputs["audio"]["mel_bins"]) == (32, 16)
    assert "architecture" not in pair_run.spec.stored and pair_run.spec.reader_input() == {"frames": 32}
    run("plan", "--config", str(config))
    assert "trained on pairs" in capsys.readouterr().out
    run("data", "build", "pairs", "--config", str(config))
    run("paired", pair_run.name, "--config", str(config))
    (training,) = trainings(plan)
    result = json.loads((training.directory / EVALUATION).read_text())
    assert result["metrics"].keys() == {"top1"} and result["spec"] == pair_run.spec.stored
    assert json.loads((training.directory / RUN).read_text())["tags"]["target"] == "image+audio"


def test_settings_of_either_modality_change_the_run_and_no_other_does(write, recipe):
    chosen = sections(recipe)
    config = write(**chosen)
    (before,) = Plan.load(config).runs.values()
    for modality, key, value, changes in (
        ("audio", "tokenizer", {"patch_size": 16, "stride": 8}, True),
        ("pointcloud", "input", {"points": 99}, False),
    ):
        section = Plan.load(config).config.modalities[modality].model_dump(mode="json")
        section[key] = section[key] | value
        (after,) = Plan.load(write(**chosen, modalities={modality: section})).runs.values()
        assert (after.digest != before.digest) == changes


def test_tasks_of_one_modality_refuse_pairs(write, recipe, capsys):
    chosen = sections(recipe) | {"column": {"dataset": "pairs"}}
    said = faults(capsys, write(**chosen, finetune={"pairs": {"scratch_tune": recipe()}}))
    assert "classification is trained on one modality, but its data has image and audio." in said


def test_an_encoder_is_not_pretrained_on_pairs(write, recipe, capsys):
    encoder = {"modality": "image", "dataset": "pairs", "pretrain": recipe()}
    said = faults(capsys, write(**sections(recipe), encoders={"pair": encoder}))
    assert "pairs has layout pairs, whose modality is image and audio" in said


def test_an_unknown_modality_of_a_layout_is_named(write, recipe, capsys, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "pairs", replace(PAIRS, modalities=("image", "sond")))
    assert "there is no modality 'sond'; " in faults(capsys, write(**sections(recipe)))


def test_modalities_of_a_layout_are_a_tuple():
    with pytest.raises(TypeError, match="modalities must be a tuple of names, got 'image'"):
        replace(PAIRS, modalities="image")
