"""`m2pt data`: every kind of fault is found and named, and wrong arguments are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from damaged_layouts import LAYOUTS as DAMAGED
from damaged_layouts import cut
from PIL import Image
from tiny_trainings import TINY

from m2pt.catalog import LAYOUTS
from m2pt.commands import main
from m2pt.datasets import urfunny
from m2pt.datasets.coco import annotation_file
from m2pt.datasets.layouts import check
from m2pt.datasets.miniature.urfunny import build
from m2pt.formats.documents import read_yaml

CLASSES = {"imagenet": 10, "coco": 10, "ade20k": 11}


@pytest.fixture
def copied(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    def copy(layout: str) -> Path:
        shutil.copytree(request.getfixturevalue(layout), tmp_path / layout)
        return tmp_path / layout

    return copy


def faults(layout: str, root: Path, *, full: bool = False) -> list[str]:
    return check(layout, root, num_classes=CLASSES[layout], full=full)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", CLASSES)
def test_a_sound_dataset_has_no_fault(layout: str, full: bool, request: pytest.FixtureRequest) -> None:
    assert faults(layout, request.getfixturevalue(layout), full=full) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_root_that_is_no_folder_or_another_layout_is_named(layout: str, tmp_path: Path) -> None:
    assert check(layout, tmp_path / "nowhere", num_classes=5, full=False) == [
        f"{tmp_path / 'nowhere'} is not a folder: give the folder that holds the {layout} dataset."
    ]
    found = check(layout, tmp_path, num_classes=5, full=True)
    assert found
    assert all(str(tmp_path) in fault for fault in found if not fault.startswith("num_classes"))


@pytest.mark.parametrize("layout", CLASSES)
def test_another_number_of_classes_is_named(layout: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(layout)
    found = check(layout, root, num_classes=CLASSES[layout] + 2, full=False)
    assert any(
        f"{CLASSES[layout]} c" in fault and f"not num_classes = {CLASSES[layout] + 2}" in fault
        for fault in found
    )


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("imagenet", "train/*/*.JPEG"),
        ("coco", "val2017/*.jpg"),
        ("ade20k", "images/training/*.jpg"),
        ("ade20k", "annotations/validation/*.png"),
    ],
)
def test_full_names_every_truncated_or_unreadable_file(layout: str, file: str, copied: Callable) -> None:
    root = copied(layout)
    cut, empty = sorted(root.glob(file))[:2]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    empty.write_bytes(b"")
    found = faults(layout, root, full=True)
    for path in (cut, empty):
        assert len([fault for fault in found if str(path) in fault]) == 1
    assert len(found) == 2


def test_imagenet_folders(copied: Callable) -> None:
    root = copied("imagenet")
    first, second, third, *_ = sorted(path.name for path in (root / "train").iterdir())
    shutil.rmtree(root / "val" / first)
    for image in (root / "train" / second).iterdir():
        image.unlink()
    (root / "val" / "n99").mkdir()
    shutil.copy(next((root / "val" / third).iterdir()), root / "val" / "loose.JPEG")
    assert faults("imagenet", root) == [
        f"{root}/train/{second} is an empty class.",
        f"{root}/val has 1 images outside class folders, such as loose.JPEG: move them into one.",
        f"{root}/val/n99 is an empty class.",
        f"{root}/val/{first} is missing, but it is a class of train.",
        f"{root}/val/n99 is not a class of train.",
    ]
    shutil.rmtree(root / "val")
    assert f"{root}/val is missing." in faults("imagenet", root)


def test_coco_files_and_annotations(copied: Callable) -> None:
    root = copied("coco")
    path = annotation_file(root, "train")
    instances = json.loads(path.read_text())
    images, annotations = instances["images"], instances["annotations"]
    (root / "train2017" / images[0]["file_name"]).unlink()
    Image.new("RGB", (9, 9)).save(root / "train2017" / "stranger.jpg")
    annotations[0]["category_id"] = 77
    annotations[1]["image_id"] = 4242
    annotations[2]["bbox"] = [1, 2, 3]
    annotations[3]["segmentation"] = [[1, 2, 3, 4]]
    annotations[4]["segmentation"] = {"size": [5, 5], "counts": "1"}
    annotations[5]["segmentation"] = None
    lonely = next(entry for entry in instances["categories"] if entry["name"] == "digit 4")
    instances["annotations"] = [entry for entry in annotations if entry["category_id"] != lonely["id"]]
    kept = [entry["id"] for entry in instances["annotations"]]
    images.append(dict(images[1]))
    path.write_text(json.dumps(instances))
    expected = {
        "images[50] (id 2) has the duplicate id 2.",
        f"category 'digit 4' is an empty class: no annotation has category_id {lonely['id']}.",
        "annotations[0] (id 1) has category_id 77, which is not in categories.",
        "annotations[1] (id 2) has image_id 4242, which is not in images.",
        "annotations[2] (id 3) has the bbox [1, 2, 3], which must be [x, y, width, height].",
        "annotations[3] (id 4) has a polygon that is not at least three pairs of x and y.",
        "annotations[4] (id 5) has a mask of size [5, 5], but its image has [96, 96].",
        "annotations[5] (id 6) has a segmentation that is neither polygons nor a run-length encoding.",
    }
    assert {1, 2, 3, 4, 5, 6} <= set(kept), "the miniature's first digits include a 4: choose another"
    assert set(faults("coco", root)) == {f"{path}: {fault}" for fault in expected} | {
        f"{root}/train2017/{images[0]['file_name']} is missing, but {path} lists it.",
        f"{root}/train2017/stranger.jpg has no record in {path}.",
    }
    Image.new("RGB", (9, 9)).save(root / "train2017" / images[0]["file_name"])
    assert any("is 9x9, but its record says 96x96" in fault for fault in faults("coco", root))


def test_coco_annotation_file(copied: Callable) -> None:
    root = copied("coco")
    shutil.rmtree(root / "val2017")
    annotation_file(root, "train").write_text('{"images": [')
    annotation_file(root, "val").write_text('{"images": [], "annotations": []}')
    broken, missing, lacking = faults("coco", root)
    assert broken.startswith(f"{annotation_file(root, 'train')}: not valid JSON")
    assert missing == f"{root}/val2017 is missing."
    assert "has no list 'categories'" in lacking


def test_ade20k_pairs_and_labels(copied: Callable) -> None:
    root = copied("ade20k")
    one, two, three, four, five = sorted((root / "annotations/training").iterdir())[:5]
    one.unlink()
    (root / "images/training" / f"{two.stem}.jpg").unlink()
    Image.new("L", (96, 95), 1).save(three)
    Image.new("L", (96, 96), 12).save(four)
    Image.new("I;16", (96, 96)).save(five)
    assert set(faults("ade20k", root)) == {
        f"{root}/images/training/{one.stem}.jpg has no annotation.",
        f"{two} has no image.",
        f"{three} is 96x95, but its image is 96x96.",
        f"{four} has label 12, but there are 11 classes.",
        f"{five} stores pixels as I;16B, not with 8 bits; save labels as 8-bit gray.",
    }


def test_ade20k_empty_class_and_missing_parts(copied: Callable) -> None:
    root = copied("ade20k")
    for path in (root / "annotations/validation").iterdir():
        labels = np.array(Image.open(path))
        labels[labels == 6] = 0
        Image.fromarray(labels).save(path)
    assert faults("ade20k", root) == [
        f"{root}/annotations/validation: class 6 is empty: no annotation has it."
    ]
    (root / "objectInfo150.txt").unlink()
    shutil.rmtree(root / "images/validation")
    classes, images = faults("ade20k", root)
    assert "objectInfo150.txt" in classes
    assert images == f"{root}/images/validation is missing."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text", "nowhere"], "nowhere is not a folder: give the folder that holds the text dataset."),
        (["text", "file"], "file is not a folder"),
        (["cifar", "."], "there is no dataset layout 'cifar'"),
        (["text", ".", "--num-classes", "-1"], "--num-classes -1: must be an integer from 1 to 1000000."),
        (["text", ".", "--num-classes", "0"], "--num-classes 0: must be"),
        (["imagenet", "--num-classes", "0"], "--num-classes 0: must be"),
        (["kinetics", ".", "--num-classes", "1000000000000"], "--num-classes 1000000000000: must be"),
    ],
)
def test_the_command_refuses_in_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_miniature_that_is_not_built_yet_is_no_wrong_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["data", "check", "coco", "--config", "tests/tiny/config.yaml", "--set", f"results={tmp_path}"])
        == 2
    )
    assert (
        f"{tmp_path}/data/coco does not exist yet; build it with: m2pt data build coco"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", [["data", "check", "imagenet"], ["check", "--datasets", "imagenet"]])
def test_a_dataset_that_is_not_made_yet_is_no_wrong_folder(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load(Path("tests/tiny/config.yaml").read_text())
    config["datasets"]["imagenet"] = {
        "layout": "imagenet",
        "num_classes": 3,
        "root": str(tmp_path / "shards"),
        "packed_from": str(tmp_path / "files"),
        "prepare": {"downloads": "my archives"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main([*command, "--config", str(tmp_path / "mine.yaml")]) == 2
    assert (
        f"{tmp_path}/shards does not exist yet; the workflow makes it, or: "
        f"m2pt data prepare imagenet 'my archives' {tmp_path}/files --num-classes 3 && "
        f"m2pt data pack imagenet {tmp_path}/files {tmp_path}/shards"
    ) in capsys.readouterr().err


def test_outside_a_clone_the_config_is_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan"]) == 2
    assert "there is no config/config.yaml here: run m2pt in the clone" in capsys.readouterr().err


def test_convert_is_for_layouts_that_need_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", "imagenet", str(tmp_path)]) == 2
    assert "layout imagenet is read as it is distributed" in capsys.readouterr().err
    assert main(["data", "convert", "imagnet", str(tmp_path)]) == 2
    assert "did you mean 'imagenet'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["urfunny", "."],
            "there is no preparation of layout urfunny: put its files in place as docs/data.md says",
        ),
        (["imagnet", "."], "did you mean 'imagenet'?"),
        (["coco", ".", "--check"], "layout coco has no option --check: leave it out."),
        (["imagenet", ".", "--unbalanced"], "layout imagenet has no option --unbalanced: leave it out."),
        (["kinetics", ".", "--statistics", "0"], "layout kinetics has no option --statistics: leave it out."),
        (["coco", "nowhere"], "nowhere is not a folder: give the folder that holds the downloaded files."),
        (["coco", ".", "--num-classes", "0"], "--num-classes 0: must be an integer from 1 to 1000000."),
    ],
)
def test_prepare_refuses_in_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    layout, downloads, *options = arguments
    assert main(["data", "prepare", layout, downloads, "root", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_convert_calls_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2pt.datasets.layouts.layout_module", lambda layout: urfunny)
    build(tmp_path / "a", seed=0, train=4, valid=2, test=2)
    shutil.rmtree(tmp_path / "a" / urfunny.ARRAYS)
    assert main(["data", "convert", "urfunny", str(tmp_path / "a")]) == 0
    assert urfunny.check(tmp_path / "a", num_classes=2, full=True) == []
    assert main(["data", "convert", "urfunny", str(tmp_path / "none")]) == 2


def test_corrupt_training_samples_are_skipped_only_if_the_config_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root, images = tmp_path / "imagenet", DAMAGED["imagenet"]
    images.build(root)
    files = images.damage(root, 3, 150)

    def m2pt(*words: str, **settings: str) -> tuple[int, str]:
        dataset = {"layout": "imagenet", "num_classes": 2, "root": str(root), **settings}
        config = read_yaml(TINY)
        config |= {
            "results": str(tmp_path / "results"),
            "datasets": config["datasets"] | {"imagenet": dataset},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        code = main([*words, "--config", str(tmp_path / "config.yaml")])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    manifest = tmp_path / "results/data/imagenet.manifest.json"
    check_it = ("data", "check", "imagenet", "--manifest", str(manifest))
    code, said = m2pt(*check_it)
    assert code == 2 and all(str(file) in said for file in files) and not manifest.exists()
    assert "To train without these files, set corrupt_samples: skip for the dataset" in said
    code, said = m2pt(*check_it, corrupt_samples="skip")
    assert code == 0 and all(said.count(str(file)) == 1 for file in files)
    assert "has 2 corrupt training samples, left out by trainings" in said and "no other problems" in said

    assert m2pt("pretrain", "image")[0] == 2
    assert m2pt("pretrain", "image", corrupt_samples="skip")[0] == 0
    (folder,) = (tmp_path / "results/encoders/image").iterdir()
    listed = (folder / "skipped.txt").read_text()
    assert len(listed.splitlines()) == 2 and all(str(file) in listed for file in files)
    spec = json.loads((folder / "run.json").read_text())["spec"]
    assert spec["dataset"]["corrupt_samples"] == "skip"

    evaluated = cut(root / images.evaluated)
    code, said = m2pt(*check_it, corrupt_samples="skip")
    assert code == 2 and str(evaluated) in said and str(files[0]) not in said
    code, said = m2pt(*check_it)
    assert code == 2 and "To train without these files" not in said, "it would not help"
