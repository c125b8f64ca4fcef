"""What a config may say: types, ranges, and the datasets and encoders it names."""

import copy

import pytest
from config_documents import changed, read, refused_config


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
    assert words in refused_config(config | change)


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
        message = refused_config(changed(config, path, value))
        assert (
            path.partition(".")[0] in message and len(message) < 2000 and message.startswith("here.yaml: ")
        ), (
            path,
            value,
            message,
        )


def test_an_encoder_on_an_unknown_dataset_or_of_another_modality_is_refused(config):
    unknown = copy.deepcopy(config)
    unknown["encoders"]["image"]["dataset"] = "imagnet"
    assert "no dataset 'imagnet'" in refused_config(unknown)
    config["encoders"]["image"]["dataset"] = "shapenet55"
    assert (
        "modality = 'image': shapenet55 has layout shapenet55, whose modality is pointcloud"
        in refused_config(config)
    )


@pytest.mark.parametrize(
    "dataset",
    [
        {"layout": "imagenet", "num_classes": 10, "root": "data"},
        {"layout": "cremad", "num_classes": 6, "miniature": {}},
    ],
    ids=["layout without frames", "miniature"],
)
def test_videos_need_a_layout_that_reads_their_frames(config, dataset):
    config["datasets"]["more"] = dataset | {"videos": "videos"}
    assert "videos: only for a dataset with root and layout cremad" in refused_config(config)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"layout": "cremad", "num_classes": 6, "prepare": {"downloads": "d"}},
            "prepare: only for a dataset with root and layout ade20k, ",
        ),
        (
            {"layout": "imagenet", "num_classes": 9, "prepare": {"downloads": "d", "check": True}},
            "prepare.check: not an option of layout imagenet; it has no options",
        ),
        (
            {"layout": "kinetics", "num_classes": 9, "prepare": {"downloads": "d", "unbalanced": True}},
            "prepare.unbalanced: not an option of layout kinetics; its options are annotations, check",
        ),
        (
            {"layout": "kinetics", "num_classes": 9, "packed_from": "d"},
            "packed_from: only for a dataset with root and layout imagenet",
        ),
        (
            {"layout": "imagenet", "num_classes": 9, "packed_from": "./data/"},
            "packed_from: the folder of the files must not be root",
        ),
    ],
)
def test_what_the_workflow_cannot_make_is_refused(config, dataset, message):
    config["datasets"]["more"] = {"root": "data", **dataset}
    assert message in refused_config(config)


@pytest.mark.parametrize("name", ["scratch", "target_init", "transfer_from"])
def test_no_encoder_has_a_name_with_a_meaning_of_its_own(config, name):
    config["encoders"][name] = {"modality": "image", "random": True}
    assert f"encoders.{name}: this name has a meaning of its own" in refused_config(config)


@pytest.mark.parametrize(
    ("source", "what"),
    [({"file": "points.pth"}, "is a file"), ({"random": True}, "has random weights")],
)
def test_an_epoch_of_a_given_encoder_cannot_be_made(config, source, what):
    config["encoders"]["pointcloud"] = {"modality": "pointcloud"} | source
    found = read(config)
    assert found.why_unmade("pointcloud_early") == (
        f"encoder pointcloud {what}, of which no epoch 1 is kept; pretrain it, or give pointcloud_early a "
        "file of its own"
    )
    assert not any(found.why_unmade(name) for name in found.encoders if name != "pointcloud_early")


def test_an_epoch_of_a_file_of_unknown_modality_is_no_fault(config):
    config["encoders"]["pointcloud"] = {"file": "points.pth"}
    assert "is a file" in read(config).why_unmade("pointcloud_early")
    config["encoders"]["pointcloud"] = {"modality": "audio", "file": "points.pth"}
    assert "pointcloud_early: pointcloud has another modality or body" in refused_config(config)


def test_the_kept_epochs_of_an_encoder_from_dvc_can_be_made(config):
    config["encoders"]["pointcloud"]["source"] = "dvc"
    assert read(config).why_unmade("pointcloud_early") is None


@pytest.mark.parametrize("name", ["pointcloud_late", "pointclouds", "pointcloud_early"])
def test_an_epoch_of_an_epoch_or_of_no_encoder_is_refused(config, name):
    config["encoders"]["pointcloud_early"]["epoch_of"] = name
    config["encoders"]["pointcloud_late"] = {"modality": "pointcloud", "epoch_of": "pointcloud", "epoch": 1}
    said = refused_config(config)
    assert f"encoders.pointcloud_early: epoch_of = '{name}' is not a pretrained encoder; give one of" in said
    assert "image, pointcloud, text" in said and "_early," not in said


def test_samples_are_skipped_only_where_each_is_a_file_of_its_own(config):
    assert not read(config).datasets["imagenet"].skips_corrupt
    assert (
        read(changed(config, "datasets.imagenet.corrupt_samples", "skip")).datasets["imagenet"].skips_corrupt
    )
    for name in ("text", "partnet"):
        refusal = refused_config(changed(config, f"datasets.{name}.corrupt_samples", "skip"))
        assert "corrupt_samples: skip is only for layouts ade20k, audioset, coco, imagenet" in refusal
        assert read(changed(config, f"datasets.{name}.corrupt_samples", "error")) == read(config)
    assert "corrupt_samples" in refused_config(changed(config, "datasets.imagenet.corrupt_samples", "ignore"))
