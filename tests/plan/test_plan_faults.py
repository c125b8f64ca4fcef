"""All faults of a config and of the files that it names are told in one run, each once."""

import copy
from pathlib import Path

import pytest
import yaml
from config_documents import TINY, changed

from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan

CELL = "table:M2PT-Point:tune_acc"
BARS = {"kind": "gain_bars", "bars": {"a": "table:MAE:tune_acc", "b": "table:no such:tune_acc"}}
CLAIM = {"claim": "It helps", "source": "here", "comparisons": [{"gain": "table:MAE:tune_acc"}]}


@pytest.fixture
def refuse(tmp_path):
    """Change the tiny config, by dotted paths, and files that it names; return the lines of the refusal."""

    def run(config=(), **files):
        document = read_yaml(TINY)
        for path, (key, content) in files.items():
            (tmp_path / f"{path}.yaml").write_text(yaml.safe_dump(content))
            document = changed(document, key, str(tmp_path / f"{path}.yaml"))
        for key, value in dict(config).items():
            document = changed(document, key, value)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
        with pytest.raises(InputError) as error:
            Plan.load(tmp_path / "config.yaml")
        return [line.removeprefix(f"{tmp_path}/") for line in str(error.value).splitlines()]

    return run


def recipe(name, **changes):
    document = read_yaml(TINY.parent / "recipes" / f"{name}.yaml")
    for path, value in changes.items():
        document = changed(document, path.replace("__", "."), value)
    return document


FILES = {
    "image": ("encoders.image.pretrain", recipe("pretrain_image", training__lr="fast", mask_ration=0.5)),
    "tune": ("finetune.imagenet.pretrained_tune", recipe("imagenet_tune", training__batch_size=0)),
    "targets": ("tables.1", changed(read_yaml(TINY.parent / "targets.yaml"), "rows.0.setting", "best")),
    "bars": ("figures.0", {"title": "", "caption": "", "plot": BARS}),
    "claims": ("claims", {"claims": [CLAIM]}),
}
TOLD_OF_FILES = [
    "targets.yaml: rows.0.setting = 'best': must be",
    "image.yaml: training.lr = 'fast': must be a number",
    "image.yaml: mask_ration: unknown key; did you mean 'mask_ratio'?",
    "tune.yaml: training.batch_size = 0: must be > 0.",
    "config.yaml: names no_such.yaml, which cannot be read; give the path of a file.",
    "bars.yaml: table:MAE:tune_acc: row MAE has no gain",
    "bars.yaml: table:no such:tune_acc: table has no method 'no such'",
    "claims.yaml: table:MAE:tune_acc: has no gain, since its row has no baseline.",
]
CONFIG = {
    "threads": 0,
    "backbone.num_heads": 3,
    "modalities.text.input.length": 0,
    "encoders.video.file": "video.pth",
    "encoders.audio.dataset": "no_such",
    "encoders.pointcloud_early.epoch_of": "pointclouds",
    "target_encoders": {"image": "no_such"},
}
TOLD_OF_CONFIG = [
    "config.yaml: threads = 0: must be >= 1.",
    "config.yaml: backbone = {",
    "config.yaml: modalities.text.input.length = 0: must be >= 1.",
    "config.yaml: encoders.video = {",
    "config.yaml: encoders.audio.dataset: no dataset 'no_such'; the datasets are ",
    "config.yaml: target_encoders: no encoder 'no_such'; the encoders are ",
    "config.yaml: encoders.pointcloud_early: epoch_of = 'pointclouds' is not a pretrained encoder",
]


def assert_told(lines, beginnings):
    assert len(lines) == len(beginnings), "\n".join(lines)
    for line, beginning in zip(sorted(lines), sorted(beginnings), strict=True):
        assert line.startswith(beginning), line


def test_the_faults_of_all_files_are_told_at_once(refuse):
    assert_told(refuse({"transfer.ade20k.recipe": "no_such.yaml"}, **FILES), TOLD_OF_FILES)


def test_the_faults_of_the_config_are_told_with_those_of_its_files(refuse):
    config = CONFIG | {"transfer.ade20k.recipe": "no_such.yaml"}
    assert_told(refuse(config, **FILES), [*TOLD_OF_CONFIG, *TOLD_OF_FILES])


@pytest.mark.parametrize(("key", "value"), CONFIG.items())
def test_a_fault_has_no_consequences_that_are_told_too(refuse, key, value):
    (line,) = refuse({key: value})
    assert any(line.startswith(beginning) for beginning in TOLD_OF_CONFIG), line


@pytest.mark.parametrize("name", FILES)
def test_a_faulty_file_has_no_consequences_that_are_told_too(refuse, name):
    lines = refuse(**{name: FILES[name]})
    assert all(line.startswith(f"{name}.yaml: ") for line in lines) and len(lines) <= 2, lines


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("datasets.imagenet.num_classes", 0),
        ("datasets.shapenet55", {"layout": "no_such"}),
        ("modalities.image", {}),
        ("modalities", []),
        ("encoders.image", {}),
        ("encoders", 3),
        ("datasets", None),
        ("finetune", None),
        ("finetune.imagenet", []),
        ("finetune.imagenet.pretrained_tune", 3),
        ("transfer.coco", {}),
        ("convnext", {"depths": 1}),
        ("backbone", None),
    ],
)
def test_what_is_left_out_of_the_config_is_not_missed(refuse, key, value):
    for line in refuse({key: value}):
        assert line.startswith(f"config.yaml: {key}"), line


def test_encoders_that_lack_a_section_are_told_and_not_their_runs(refuse):
    lines = refuse({"convnext": None})
    said = "config.yaml: encoders.{}_convnext: body convnext needs a convnext section."
    assert sorted(lines) == [said.format("audio"), said.format("image")]


def test_a_config_without_tables_is_refused_by_its_own_faults_alone(refuse):
    lines = refuse({"tables": [], "threads": 0}, image=FILES["image"])
    assert_told(lines, ["config.yaml: tables = []: must have at least 1 item.", TOLD_OF_CONFIG[0]])


def test_what_many_runs_lack_is_told_once(refuse):
    lines = refuse({"finetune.imagenet.pretrained_tune": None, "finetune.partnet": {}})
    faults = sorted(line.partition(": run ")[2].partition(": ")[2] for line in lines)
    assert faults == [
        "the config has no recipe finetune.imagenet.pretrained_tune.",
        "the config has no recipe finetune.partnet.pretrained_tune.",
    ]


def test_every_fault_of_the_encoders_is_told(refuse):
    config = {
        "encoders.image.modality": "video",
        "encoders.audio.modality": "image",
        "encoders.image_convnext.modality": "no_such",
        "encoders.pointcloud.dataset": "partnet",
    }
    lines = refuse(config)
    for name in ("image", "audio", "image_convnext", "pointcloud"):
        assert any(line.startswith(f"config.yaml: encoders.{name}: ") for line in lines), (name, lines)


def test_the_number_of_lines_is_bounded(refuse):
    document = copy.deepcopy(read_yaml(TINY.parent / "table.yaml"))
    for number in range(30):
        document["rows"].append({"method": f"m{number}", "setting": "best"})
    lines = refuse({"threads": 0}, table=("tables.0", document))
    assert len(lines) == 21 and lines[0] == TOLD_OF_CONFIG[0] and lines[-1] == "and 11 more errors."


def test_claims_are_not_judged_by_other_tables(tmp_path):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [CLAIM]}))
    overrides = {"claims": str(tmp_path / "claims.yaml")}
    with pytest.raises(InputError, match="row has no baseline"):
        Plan.load(TINY, overrides)
    Plan.load(TINY, overrides | {"tables": ["tests/tiny/table.yaml"], "figures": []})


@pytest.mark.parametrize("path", ["config/config.yaml", "config/paper.yaml"])
def test_a_recipe_that_most_runs_use_is_named_once(path):
    document = changed(read_yaml(Path(path)), "finetune.imagenet.pretrained_tune", "no_such.yaml")
    with pytest.raises(InputError) as error:
        Plan.load(Path(path), {"finetune": document["finetune"]})
    assert str(error.value) == f"{path}: names no_such.yaml, which cannot be read; give the path of a file."
