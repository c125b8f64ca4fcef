"""Runs, specs, seeds and digests of a plan."""

from pathlib import Path

import pytest
import yaml
from config_documents import TINY, changed

from m2pt.config.config import Config
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.jobs import jobs
from m2pt.plan.plan import Plan
from m2pt.plan.specs import PretrainingSpec, RunSpec

CONFIG = Path("config/config.yaml")


def test_a_changed_recipe_value_changes_exactly_the_specs_that_depend_on_it(config, tmp_path):
    before = Plan.load(TINY)
    recipe = read_yaml(Path("tests/tiny/recipes/pretrain_pointcloud.yaml"))
    recipe["training"]["lr"] = 2.0e-3
    changed = tmp_path / "recipe.yaml"
    changed.write_text(yaml.safe_dump(recipe))
    config["encoders"]["pointcloud"]["pretrain"] = str(changed)
    after = Plan.load(TINY, config)
    assert list(before.runs) == list(after.runs)
    different = {name for name in before.runs if before.runs[name].digest != after.runs[name].digest}
    assert different == {name for name in before.runs if "pointcloud" in name}
    assert before.encoder_digest("image") == after.encoder_digest("image")


def test_a_comment_in_a_recipe_changes_nothing(config, tmp_path):
    text = Path("tests/tiny/recipes/pretrain_image.yaml").read_text()
    copied = tmp_path / "recipe.yaml"
    copied.write_text("# another comment\n" + text)
    config["encoders"]["image"]["pretrain"] = str(copied)
    before, after = Plan.load(TINY), Plan.load(TINY, config)
    assert {name: run.digest for name, run in before.runs.items()} == {
        name: run.digest for name, run in after.runs.items()
    }


def test_skipping_corrupt_samples_is_part_of_a_result_and_raising_an_error_is_not(config):
    before = Plan.load(TINY)
    for policy, differs in (("error", False), ("skip", True)):
        after = Plan.load(TINY, changed(config, "datasets.imagenet.corrupt_samples", policy))
        assert ("corrupt_samples" in after.encoders["image"].stored["dataset"]) is differs
        assert (after.encoder_digest("image") != before.encoder_digest("image")) is differs
        assert (after.dataset_digest("imagenet") != before.dataset_digest("imagenet")) is differs
        assert after.encoder_digest("video") == before.encoder_digest("video")


def test_a_setting_that_came_later_changes_a_result_only_where_it_is_set(config, tmp_path):
    """Results of versions without it stay valid."""
    recipe = read_yaml(Path("tests/tiny/recipes/pretrain_image.yaml"))
    digests = []
    for number, change in enumerate(
        (
            {},
            {
                "training": {"step_decay": None, "decay_vectors": False, "ema": None},
                "augmentation": {"backend": "pil"},
            },
            {"training": {"step_decay": {"epochs": 2}}},
            {"training": {"decay_vectors": True}},
            {"augmentation": {"backend": "tensor"}},
        )
    ):
        path = tmp_path / f"recipe{number}.yaml"
        changed = {section: {**recipe.get(section, {}), **values} for section, values in change.items()}
        path.write_text(yaml.safe_dump({**recipe, **changed}))
        config["encoders"]["image"]["pretrain"] = str(path)
        digests.append(Plan.load(TINY, config).encoder_digest("image"))
    assert digests[0] == digests[1] == Plan.load(TINY).encoder_digest("image")
    assert len(set(digests)) == 4


def test_another_epsilon_of_the_norms_changes_the_models_of_its_modality(config):
    before = Plan.load(TINY)
    for modality, given in (("image", 1e-6), ("pointcloud", 1e-5)):
        after = Plan.load(TINY, changed(config, f"modalities.{modality}.norm_eps", given))
        assert after.encoders[modality].stored == before.encoders[modality].stored, "the method's own"
    after = Plan.load(TINY, changed(config, "modalities.image.norm_eps", 1e-12))
    assert after.encoders["image"].stored["architecture"]["backbone"]["norm_eps"] == 1e-12
    assert after.encoders["image_convnext"].stored == before.encoders["image_convnext"].stored
    for name, run in before.runs.items():
        same = all(each.modality != "image" or each.body == "convnext" for each in architectures(run.spec))
        assert (after.runs[name].digest == run.digest) is same, name


@pytest.mark.parametrize(("modality", "setting"), [("image", "distillation_token"), ("audio", "ast")])
def test_other_tokens_change_the_models_of_their_modality(config, modality, setting):
    key = f"modalities.{modality}.tokenizer.{setting}"
    before, same = Plan.load(TINY), Plan.load(TINY, changed(config, key, False))
    assert same.encoders[modality].stored == before.encoders[modality].stored
    after = Plan.load(TINY, changed(config, key, True)).encoders[modality].stored
    assert after["architecture"]["tokenizer"][setting] is True


def architectures(spec):
    """Architectures of a run and of all weights that it reads."""
    own = spec.architectures.values() if isinstance(spec, RunSpec) else [spec.architecture]
    inputs = spec.inputs.values() if isinstance(spec, RunSpec) else []
    return [*own, *(each for given in inputs for each in architectures(given))]


def test_pretraining_seeds_are_dealt_out_in_turn(config):
    plan = Plan.load(TINY, {"seeds": [3, 4, 5], "pretrain_seeds": [7, 8]})
    folders = [plan.encoder_weights("image", seed).parent.name for seed in (3, 4, 5)]
    assert folders == ["seed7", "seed8", "seed7"]


def test_random_weights_are_drawn_anew_for_every_run_s_seed():
    """Also the ConvNeXt "from scratch", whose initialization is an encoder: else its seeds share one."""
    overrides = {"tables": ["config/tables/extensions.yaml"], "figures": [], "claims": None}
    plan = Plan.load(CONFIG, {**overrides, "seeds": [3, 4], "pretrain_seeds": [7]})
    for name in ("random", "image_convnext", "random_convnext"):
        assert [plan.encoder_weights(name, seed).parent.name for seed in (3, 4)] == ["seed3", "seed4"]
    convnext = next(run for run in plan.runs.values() if run.experiment.encoders == ("image_convnext",))
    assert plan.input_weights(convnext.name, 4)["target_init"] == plan.encoder_weights("image_convnext", 4)
    assert plan.stored_spec(convnext, 4)["encoder_seeds"] == {"image_convnext": 4}
    both = next(run for run in plan.runs.values() if "random_convnext" in run.experiment.auxiliaries)
    assert plan.stored_spec(both, 4)["encoder_seeds"] == {"image_convnext": 4, "random_convnext": 4}
    made = {str(job.makes.parent) for job in jobs(plan, [both], [4]) if "import" in job.command}
    assert made == {str(plan.encoder_directory(name, 4)) for name in ("image_convnext", "random_convnext")}
    commands = [job.command.split(" --config")[0] for job in jobs(plan, [both], [4])]
    assert "m2pt import random_convnext --seed 4" in commands


def test_the_paper_s_scale_cannot_be_claimed_by_an_override():
    with pytest.raises(InputError, match="paper_scale cannot be overridden: it describes the recipes"):
        Plan.load(TINY, {"paper_scale": True})


@pytest.mark.parametrize("path", [CONFIG, Path("config/paper.yaml")])
def test_every_masked_pretraining_keeps_the_epochs_that_table_5_asks_about(path):
    """20 and 220 of 300, so that a row with another modality's early auxiliary repeats no pretraining."""
    kept = {}
    for name, spec in Plan.load(path).encoders.items():
        if isinstance(spec, PretrainingSpec) and spec.objective == "masked" and name != "text":
            kept[name], epochs = spec.recipe.keep_epochs, spec.recipe.training.epochs
            assert kept[name] == tuple(max(1, round(epochs * part / 300)) for part in (20, 220)), name
    assert {"image", "video", "audio", "pointcloud"} <= set(kept)


def test_another_pretraining_seed_is_another_result():
    one, other = (Plan.load(TINY, {"pretrain_seeds": [seed]}) for seed in (0, 1))
    for name, run in one.runs.items():
        pretrained = {name for name in run.experiment.encoders if not one.config.encoders[name].random}
        same = one.stored_spec(run, 0) == other.stored_spec(other.runs[name], 0)
        assert same == (not pretrained)


def test_a_published_number_is_part_of_its_own_table_s_digest(tmp_path):
    tables = ["tests/tiny/table.yaml", "tests/tiny/targets.yaml"]
    changed = tmp_path / "table.yaml"
    changed.write_text(Path(tables[0]).read_text().replace("tune_acc: 83.3", "tune_acc: 83.4"))
    plans = [
        Plan.load(TINY, {"tables": [first, tables[1]], "figures": [], "claims": None})
        for first in (tables[0], str(changed))
    ]
    assert plans[0].table_digest("table") != plans[1].table_digest("table")
    assert plans[0].table_digest("targets") == plans[1].table_digest("targets")


@pytest.mark.parametrize(
    ("task", "metric", "dataset", "words"),
    [
        ("classification", "top1", "coco", "classification cannot be trained on a dataset of layout coco"),
        ("part_segmentation", "miou_class", "partnet", "cannot be trained on a dataset of layout partnet"),
        (
            "point_segmentation",
            "miou",
            "shapenetpart",
            "cannot be trained on a dataset of layout shapenetpart",
        ),
    ],
)
def test_a_task_on_a_dataset_of_another_layout_is_refused(tmp_path, task, metric, dataset, words):
    table = read_yaml(Path("tests/tiny/targets.yaml"))
    start = "image" if dataset == "coco" else "pointcloud"
    table["columns"] = [
        {
            "name": "c",
            "group": "g",
            "title": "t",
            "metric": metric,
            "task": task,
            "dataset": dataset,
            "mode": "tune",
        }
    ]
    table["rows"] = [
        {"method": "m", "setting": "pretrained", "run": {"target_init": start}, "columns": ["c"]}
    ]
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(table))
    with pytest.raises(InputError, match=words):
        Plan.load(TINY, {"tables": [str(path)], "figures": [], "claims": None})


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("rows.3.run", {"target_init": "scratch", "pathway": {"auxiliaries": ["scratch"]}}, "no encoder"),
        ("rows.2.run.pathway.auxiliaries.0", "no_such", "row M2PT-Point: no encoder 'no_such'"),
        ("columns.0.dataset", "no_such", "column tune_acc: no dataset 'no_such' in the config; it has"),
        ("columns.2.dataset", "no_such", "column ap_box: no dataset 'no_such'"),
        ("columns.2.transfer_from", "no_such", "column ap_box: no dataset 'no_such'"),
        ("columns.3.transfer_from", "no_such", "column miou: no dataset 'no_such'"),  # not read: pretrained
    ],
)
def test_a_name_in_a_table_that_the_config_does_not_know(tmp_path, place, value, words):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(changed(read_yaml(Path("tests/tiny/table.yaml")), place, value)))
    with pytest.raises(InputError, match=words) as error:
        Plan.load(TINY, {"tables": [str(path)], "figures": [], "claims": None})
    assert str(error.value).startswith(f"{TINY}: {path}: ")


def test_a_convnext_is_not_transferred(tmp_path):
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table["rows"] = [
        {
            "method": "m",
            "setting": "extension",
            "run": {"target_init": "image_convnext"},
            "columns": ["ap_box"],
        }
    ]
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(table))
    with pytest.raises(InputError, match="a ConvNeXt can only be finetuned"):
        Plan.load(TINY, {"tables": [str(path)], "figures": [], "claims": None})


def test_an_unknown_run_table_or_encoder_is_named(config):
    plan = Plan.load(TINY)
    with pytest.raises(InputError, match=r"no run 'imagenet-tune' .*did you mean\n  imagenet-tune-"):
        plan.run("imagenet-tune")
    with pytest.raises(InputError, match="no run 'x' made by m2pt transfer in") as refusal:
        plan.run("x", "transfer")
    assert "coco-fix-from" in str(refusal.value) and "imagenet" not in str(refusal.value)
    with pytest.raises(InputError, match="no table 'table9'"):
        plan.table("table9")
    del config["encoders"]["random"]
    with pytest.raises(InputError, match="row random auxiliary: no encoder 'random'"):
        Plan(validate(Config, config, "here"), "here")


def test_the_shipped_config_and_table_agree_with_the_paper():
    plan = Plan.load(Path("config/config.yaml"))
    table = plan.tables["table1"]
    rows = {(row.setting, row.method): row for row in table.rows}
    mae, point = rows["pretrained", "MAE"], rows["pretrained", "M2PT-Point"]
    gains = [round(point.published[c.name] - mae.published[c.name], 1) for c in table.columns]
    assert gains == [0.6, 2.2, 2.7, 1.6, 1.8]  # the arrows of the paper's Table 1
    vit, point = rows["scratch", "ViT"], rows["scratch", "M2PT-Point"]
    assert [round(point.published[c.name] - vit.published[c.name], 1) for c in table.columns] == [
        5.4,
        5.0,
        2.7,
        1.7,
        2.8,
    ]
    assert {row.method for row in table.rows if not row.columns} == {"SemMAE", "MFF"}
