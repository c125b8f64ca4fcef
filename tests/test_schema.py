"""Config, recipe and table files: what is refused, and with which words."""

import copy
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from m2pt.commands.planned import parse_overrides
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.reporting.lineage import steps
from m2pt.schema.base import validate
from m2pt.schema.config import Config
from m2pt.schema.experiments import Experiment, PathwaySpec
from m2pt.schema.plan import Plan
from m2pt.schema.recipes import Finetuning, ImagePretraining
from m2pt.schema.rules import MINIATURE, Rules
from m2pt.schema.tables import Table

TINY = Path("tests/tiny/config.yaml")
CONFIG = Path("config/config.yaml")


@pytest.fixture
def config():
    return read_yaml(TINY)


def refused(model, value):
    with pytest.raises(InputError) as error:
        validate(model, value, "here.yaml")
    return str(error.value)


def test_a_misspelt_key_is_named_with_its_path_and_the_key_that_was_meant(config):
    config["backbone"]["dmi"] = config["backbone"].pop("dim")
    message = refused(Config, config)
    assert "here.yaml: backbone.dmi: unknown key; did you mean 'dim'?" in message
    assert "backbone.dim: this key is missing" in message


def test_a_misspelt_training_setting_is_named(tmp_path):
    recipe = read_yaml(Path("tests/tiny/recipes/imagenet_tune.yaml"))
    recipe["training"]["weight_decy"] = 0.1
    assert "training.weight_decy: unknown key; did you mean 'weight_decay'?" in refused(Finetuning, recipe)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": "zero"}, "seeds = 'zero'"),
        ({"seeds": [-1]}, "seeds.0 = -1"),
        ({"seeds": [1, 1]}, "seeds: duplicate 1"),
        ({"threads": 0}, "threads = 0"),
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"tables": []}, "tables = []"),
        ({"backbone": {"dim": 10, "depth": 1, "num_heads": 3}}, "dim 10 is not a multiple of num_heads 3"),
    ],
)
def test_a_wrong_type_or_range_is_named_with_its_value(config, change, words):
    assert words in refused(Config, config | change)


def changed(document, path, value):
    """The document with another value at a dotted path."""
    document = copy.deepcopy(document)
    *parents, key = path.split(".")
    parent = document
    for each in parents:
        parent = parent[int(each) if isinstance(parent, list) else each]
    parent[int(key) if isinstance(parent, list) else key] = value
    return document


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("seeds", [[True], [0.0], ["0"], [-1], [2**31], [None], [], 0, [0, 0], {"a": 0}]),
        ("pretrain_seeds", [[False], [1.5], []]),
        ("threads", [0, -1, 10**22, True, 1.0, "1", NAN, None, 5000]),
        ("paper_scale", ["yes", 1, 0, None]),
        ("backbone.dim", [0, -16, 16.0, True, "16", 10**7, None]),
        ("backbone.depth", [0, 1000]),
        ("backbone.num_heads", [0, 3, 17]),
        ("backbone.mlp_ratio", [INF, NAN, 0, -1, True, 1e6, 1e-9, "x"]),
        ("convnext.depths", [[1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1, 1]]),
        ("modalities.image.input.image_size", [0, 31, 10**6]),
        ("modalities.image.tokenizer.patch_size", [0, 5, 64]),
        ("modalities.video.input.frames", [0, 3]),
        ("modalities.audio.input.frames", [0, 8, 100]),
        ("modalities.audio.input", [{"frames": 128, "std": 0}, {"frames": 128, "mean": NAN}]),
        ("modalities.pointcloud.tokenizer.groups", [0, 65]),
        ("modalities.text.input.length", [0, 10**6]),
        ("datasets.imagenet.num_classes", [0, -1, 10.0, True, 10**9]),
        ("datasets.imagenet.miniature.seed", [-1, 1.0, True]),
        (
            "datasets.imagenet.miniature.sizes",
            [-1, [1], {"train": -1}, {"train": 0}, {"train": 1.5}, {"train": True}],
        ),
        ("datasets.imagenet.miniature.sizes.train", [NAN, INF, "60", None, 10**12, [60]]),
        ("datasets.partnet.subsets", [{}, {"Chair-1": 0}, {"": 5}, {"../x": 5}, {"a\nb": 5}]),
        ("encoders.pointcloud_early.epoch", [0, -1, 1.0, True]),
        ("transfer.coco.freeze_backbone", ["no", 0]),
        ("tables", [[], [""], ["a\nb"], "x", [None], ["x" * 5000]]),
    ],
)
def test_nonsense_in_a_config_is_refused_with_its_key(config, path, values):
    for value in values:
        message = refused(Config, changed(config, path, value))
        assert (
            path.partition(".")[0] in message and len(message) < 2000 and message.startswith("here.yaml: ")
        ), (
            path,
            value,
            message,
        )


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("training.epochs", [0, -1, 1.0, True, "1", 10**9, NAN]),
        ("training.batch_size", [0, -8, 8.0, True, 10**9, None]),
        ("training.accumulation", [0, 10**9]),
        ("training.lr", [NAN, INF, -INF, 0, -1e-3, True, "x", 1e6, None]),
        ("training.scale_lr", [NAN, 0]),
        ("training.betas", [[0.9], [0.9, 1.0], [NAN, 0.9], [0.9, True], 0.9]),
        ("training.weight_decay", [-1, NAN, INF]),
        ("training.layer_decay", [0, 1.1, NAN]),
        ("training.warmup_epochs", [-1, NAN, 10, 10**9]),
        ("training.clip_grad", [0, INF]),
        ("training.num_workers", [-1, 10**6, 1.0]),
        ("training.log_every", [0, True]),
        ("training.checkpoint_every", [0, 1.5]),
        ("training.optimizer_args", [{"eps": NAN}, {"eps": "x"}, [1]]),
        ("mix.mixup", [-1, NAN, True, 1e9]),
        ("mix.smoothing", [-0.1, 1.0, NAN]),
        ("mix.switch_prob", [1.1, -0.1]),
        ("model.drop_path", [1.0, -1, NAN]),
        ("augmentation.scale", [[1, 0.5], [0, 1], [0.5, 2], [NAN, 1], [0.5], "0.5"]),
        ("augmentation.ratio", [[2, 1], [0, 1], [1, INF]]),
        ("augmentation.hflip", [1.5, -0.5, True]),
        ("augmentation.auto_augment", ["", "a\0b", "x" * 1000, 1]),
    ],
)
def test_nonsense_in_a_recipe_is_refused_with_its_key(path, values):
    recipe = read_yaml(Path("tests/tiny/recipes/imagenet_tune.yaml")) | {"model": {}, "augmentation": {}}
    for value in values:
        message = refused(Finetuning, changed(recipe, path, value))
        assert path.partition(".")[0] in message and len(message) < 2000, (path, value, message)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("rows", [[]]),
        ("columns", [[]]),
        ("rows.0.published.tune_acc", [-0.1, 100.1, 1234.5, NAN, INF, True, "x"]),
        ("rows.0.method", ["", "a\nb", "x" * 1000, 1, "M2PT-Point"]),
        ("rows.1.columns", [["tune_acc", "tune_acc"], ["x"], "tune_acc"]),
        ("rows.2.run.pathway.auxiliaries", [[], ["pointcloud", "pointcloud"], ["Point Cloud"]]),
        ("rows.2.run.pathway", [{"auxiliaries": ["audio"], "scale_init": NAN}]),
        ("rows.2.run.pathway", [{"auxiliaries": ["audio"], "layers": ["attn.qkv", "attn.qkv"]}]),
        ("columns.0.name", ["fix_acc", "x" * 200, "A b"]),
        ("labels", [["a", "a"], [""]]),
    ],
)
def test_nonsense_in_a_table_is_refused(path, values):
    table = read_yaml(Path("tests/tiny/table.yaml")) | {"labels": []}
    for value in values:
        assert len(refused(Table, changed(table, path, value))) < 2000, (path, value)


@pytest.mark.parametrize(
    "folder",
    [
        "",
        ".",
        "..",
        "/",
        "./",
        "results/..",
        "a\0b",
        pytest.param(str(Path.home()), id="home"),
        pytest.param(str(Path.cwd()), id="here"),
        pytest.param("x" * 300, id="long name"),
        pytest.param("x/" * 600, id="long path"),
    ],
)
def test_a_folder_that_is_or_holds_anything_else_is_refused(config, folder):
    for key in ("results", "checkpoints"):
        refused(Config, config | {key: folder})


def test_results_checkpoints_and_datasets_lie_apart(config, tmp_path):
    folder = str(tmp_path / "made")
    assert "results lies in checkpoints" in refused(
        Config, config | {"results": folder, "checkpoints": folder}
    )
    within = {"results": f"{folder}/x", "checkpoints": folder}
    assert "results lies in checkpoints" in refused(Config, config | within)
    (tmp_path / "link").symlink_to(tmp_path / "made")
    linked = {"results": str(tmp_path / "link" / "x"), "checkpoints": folder}
    assert "results lies in checkpoints" in refused(Config, config | linked)
    datasets = config["datasets"] | {"imagenet": {"layout": "imagenet", "num_classes": 10, "root": folder}}
    message = refused(Config, config | {"results": folder, "datasets": datasets})
    assert "results is the root of dataset imagenet" in message
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(Config, config | {"results": str(tmp_path / "loop")})


def test_a_message_is_short_whatever_the_value_and_however_many_the_faults(config):
    message = refused(Config, config | {"threads": "x" * 10**6})
    assert len(message) < 300 and "here.yaml: threads = 'xxx" in message
    message = refused(Config, config | {f"key{i}{'x' * 1000}": i for i in range(100_000)})
    assert len(message) < 20_000 and "and 99980 more faults" in message
    message = refused(Config, config | {"encoders": {f"e{i}": {} for i in range(20_000)}})
    assert len(message) < 20_000
    assert len(refused(Config, config | {"device": ["x"] * 10**6})) < 300


def test_a_name_with_a_line_break_makes_no_second_line():
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table["rows"][2]["baseline"] = "x y"
    assert "\n" not in refused(Table, table)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("seeds", "give KEY=VALUE"),
        ("seeds=[0", "--set seeds=[0: give KEY=VALUE, the value in YAML"),
        ("seeds=!!python/name:os.system", "python/name"),
        ("seeds=" + "[" * 100_000, "nested deeper"),
        ("threads=" + "1" * 5000, "--set threads=111"),
        ("device={a: 1, a: 2}", "duplicate key 'a'"),
        ("backbone.dim=8", "give a top-level key"),
        ("=8", "give a top-level key"),
        ("\ud800=8", "give a top-level key"),
        ("x" * 5000 + "-=8", "give a top-level key"),
        ("threads=010", "base-60"),
        ("results=" + "x" * 10**6, "too long"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused_briefly(pair, words):
    with pytest.raises(InputError) as error:
        parse_overrides([pair])
    assert words in str(error.value) and len(str(error.value)) < 500


def test_the_last_value_of_an_override_counts():
    assert parse_overrides(["seeds=[0]", "seeds=[1, 2]"]) == {"seeds": [1, 2]}


@pytest.mark.parametrize("name", ["results", "checkpoints"])
@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_is_not_made_where_a_file_is(config, tmp_path, name, below):
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} is not a folder" in refused(
        Config, config | {name: str(tmp_path / "file" / below)}
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [True]}, "seeds.0 = True: must be an integer."),
        ({"seeds": [-1]}, "seeds.0 = -1: must be >= 0."),
        ({"seeds": []}, "seeds = []: must have at least 1 item."),
        ({"seeds": 1}, "seeds = 1: must be a list."),
        ({"threads": 10**22}, "threads = 10000000000000000000000: must be <= 1024."),
        ({"backbone": 1}, "backbone = 1: must be a mapping."),
        ({"paper_scale": "x"}, "paper_scale = 'x': must be true or false."),
        ({"results": None}, "results = None: must be a string."),
        ({"device": "tpu"}, "device = 'tpu': must be 'auto', 'cpu' or 'cuda'."),
    ],
)
def test_a_fault_is_told_once_in_plain_words(config, change, said):
    assert refused(Config, config | change) == f"here.yaml: {said}"


def test_an_encoder_on_an_unknown_dataset_or_of_another_modality_is_refused(config):
    unknown = copy.deepcopy(config)
    unknown["encoders"]["image"]["dataset"] = "imagnet"
    assert "no dataset 'imagnet'" in refused(Config, unknown)
    config["encoders"]["image"]["dataset"] = "shapenet55"
    assert "shapenet55 is not a dataset of modality image" in refused(Config, config)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(InputError, match="duplicate key 'a'"):
        read_yaml(path)


def test_a_missing_file_and_a_file_that_is_no_mapping_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(InputError, match=r"list\.yaml: holds a list"):
        read_yaml(path)


def test_a_number_that_yaml_reads_as_a_string_is_hashed_as_a_number():
    decoder = "{dim: 8, depth: 1, num_heads: 1}"
    text = f"{{training: {{epochs: 1, batch_size: 8, lr: 1e-3}}, mask_ratio: 0.75, decoder: {decoder}}}"
    assert isinstance(yaml.safe_load(text)["training"]["lr"], str)
    recipe = validate(ImagePretraining, yaml.safe_load(text), "recipe")
    assert recipe.training.lr == 0.001


def test_a_table_with_an_unknown_column_or_baseline_is_refused():
    table = read_yaml(Path("tests/tiny/table.yaml"))
    wrong_column = copy.deepcopy(table)
    wrong_column["rows"][1]["columns"] = ["top1"]
    assert "row MAE: no column 'top1'" in refused(Table, wrong_column)
    table["rows"][2]["baseline"] = "MEA"
    assert "its baseline 'MEA' is not a row" in refused(Table, table)


def test_a_run_s_name_depends_on_its_factors_only():
    def name(**changes):
        factors = {"task": "classification", "dataset": "imagenet", "mode": "tune", "target_init": "image"}
        return Experiment(**{**factors, **changes}).name

    plain = name()
    assert plain.startswith("imagenet-tune-from-image-")
    pathways = [PathwaySpec(auxiliaries=("audio",), scale_init=scale) for scale in (0.0, 0.01)]
    others = [name(mode="fix"), name(target_init="scratch"), *(name(pathway=pathway) for pathway in pathways)]
    assert len({plain, *others}) == 5
    assert name(pathway=PathwaySpec(auxiliaries=["audio"], scale_init="0")) == others[2]


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
    assert before.encoders["image"] == after.encoders["image"]


def test_a_comment_in_a_recipe_changes_nothing(config, tmp_path):
    text = Path("tests/tiny/recipes/pretrain_image.yaml").read_text()
    copied = tmp_path / "recipe.yaml"
    copied.write_text("# another comment\n" + text)
    config["encoders"]["image"]["pretrain"] = str(copied)
    before, after = Plan.load(TINY), Plan.load(TINY, config)
    assert {name: run.digest for name, run in before.runs.items()} == {
        name: run.digest for name, run in after.runs.items()
    }


def test_pretraining_seeds_are_dealt_out_in_turn(config):
    plan = Plan.load(TINY, {"seeds": [3, 4, 5], "pretrain_seeds": [7, 8]})
    folders = [plan.encoder_weights("image", seed).parent.name for seed in (3, 4, 5)]
    assert folders == ["seed7", "seed8", "seed7"]


def test_random_weights_are_drawn_anew_for_every_run_s_seed():
    """Also the ConvNeXt "from scratch", whose initialisation is an encoder: else its seeds share one."""
    overrides = {"tables": ["config/tables/extensions.yaml"], "figures": [], "claims": None}
    plan = Plan.load(CONFIG, {**overrides, "seeds": [3, 4], "pretrain_seeds": [7]})
    for name in ("random", "image_convnext", "random_convnext"):
        assert [plan.encoder_weights(name, seed).parent.name for seed in (3, 4)] == ["seed3", "seed4"]
    convnext = next(run for run in plan.runs.values() if run.experiment.encoders == ("image_convnext",))
    assert plan.input_weights(convnext.name, 4)["target_init"] == plan.encoder_weights("image_convnext", 4)
    assert plan.seeded_spec(convnext, 4)["encoder_seeds"] == {"image_convnext": 4}
    both = next(run for run in plan.runs.values() if "random_convnext" in run.experiment.auxiliaries)
    assert plan.seeded_spec(both, 4)["encoder_seeds"] == {"image_convnext": 4, "random_convnext": 4}
    made = {str(step.makes.parent) for step in steps(plan, both, 4) if "import" in step.command}
    assert made == {str(plan.encoder_directory(name, 4)) for name in ("image_convnext", "random_convnext")}
    commands = [step.command.split(" --config")[0] for step in steps(plan, both, 4)]
    assert "m2pt import random_convnext --seed 4" in commands


def test_the_paper_s_scale_cannot_be_claimed_by_an_override():
    with pytest.raises(InputError, match=r"paper_scale speaks of the recipes .* a config file of its own"):
        Plan.load(TINY, {"paper_scale": True})


@pytest.mark.parametrize("paper_scale", [True, False])
def test_only_a_miniature_s_captions_say_that_it_reproduces_nothing(config, tmp_path, paper_scale):
    path, made = tmp_path / "config.yaml", tmp_path / "table.made.txt"
    path.write_text(yaml.safe_dump(config | {"paper_scale": paper_scale}))
    made.write_text("Measured.\n")
    caption = Rules([path], read_yaml(path)).made(None, SimpleNamespace(made=made))
    assert caption == ("Measured." if paper_scale else f"Measured. {MINIATURE}")


@pytest.mark.parametrize("path", [CONFIG, Path("config/paper.yaml")])
def test_every_masked_pretraining_keeps_the_epochs_that_table_5_asks_about(path):
    """20 and 220 of 300, so that a row with another modality's early auxiliary repeats no pretraining."""
    kept = {}
    for name, spec in Plan.load(path).encoders.items():
        epochs = spec.get("recipe", {}).get("training", {}).get("epochs")
        if spec.get("task") == "masked_modelling" and name != "text":
            kept[name] = spec["recipe"]["keep_epochs"]
            assert kept[name] == [max(1, round(epochs * part / 300)) for part in (20, 220)], name
    assert {"image", "video", "audio", "pointcloud"} <= set(kept)


def test_what_is_ours_in_a_miniature_s_recipe_has_a_reason():
    paths = sorted(Path("config/recipes/mini").glob("*.yaml"))
    bare = [
        f"{path}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"# ours\W*$", line) or re.search(r"^  (epochs|batch_size|lr|scale_lr): [^#]*$", line)
    ]
    assert len(paths) > 15 and not bare


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_another_order_is_of_all_blocks(order):
    for depth in ("all", "first_third"):
        pathway = {"auxiliaries": ["video"], "order": order, "depth": depth}
        if depth == "all":
            assert validate(PathwaySpec, pathway, "here").order == order
        else:
            with pytest.raises(InputError, match="give depth: all or order: normal"):
                validate(PathwaySpec, pathway, "here")


def test_an_override_reaches_the_commands_whatever_its_value():
    in_file = read_yaml(TINY)
    backbone = {"dim": 32, "depth": 4, "num_heads": 2}
    rules = Rules([str(TINY)], in_file | {"backbone": backbone, "seeds": [0, 1]})
    command = rules.arguments(None, None)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True).stdout
    flags = words.splitlines()
    assert flags[:2] == ["--config", str(TINY)]
    overrides = parse_overrides([word for flag, word in pairwise(flags) if flag == "--set"])
    assert overrides == {"backbone": backbone, "seeds": [0, 1]}


def test_another_pretraining_seed_is_another_result():
    one, other = (Plan.load(TINY, {"pretrain_seeds": [seed]}) for seed in (0, 1))
    for name, run in one.runs.items():
        pretrained = {name for name in run.experiment.encoders if not one.config.encoders[name].random}
        same = one.seeded_spec(run, 0) == other.seeded_spec(other.runs[name], 0)
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


@pytest.mark.parametrize("place", ["rows.1.method", "columns.0.title", "rows.0.method"])
@pytest.mark.parametrize("odd", ["a\nb", "a\x85b", "a\u2028b", "a\u2029b", "\x9b31m"])
def test_a_title_is_one_line(place, odd):
    table = changed(read_yaml(Path("tests/tiny/table.yaml")), place, odd)
    assert place in refused(Table, table)


@pytest.mark.parametrize("odd", ["", " ", "\u3000"])
def test_a_method_has_a_name(odd):
    table = changed(read_yaml(Path("tests/tiny/table.yaml")), "rows.0.method", odd)
    assert "rows.0.method" in refused(Table, table)


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
    with pytest.raises(InputError, match="no run 'imagenet-tune'"):
        plan.run("imagenet-tune")
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
