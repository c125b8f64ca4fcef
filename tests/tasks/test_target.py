"""Where the losses of tasks start: the paper's heads and numbers of classes, on small bodies and inputs."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from m2pt.build import expected_losses
from m2pt.formats.documents import read_yaml
from m2pt.ops.synthetic_training import build_synthetic
from m2pt.plan.jobs import trainings
from m2pt.plan.plan import Plan

PAPER = Path("config/paper.yaml")
POINTS = {"input": {"points": 256}, "tokenizer": {"groups": 16, "group_size": 16}}
SMALL = {
    "coco": {
        "input": {"image_size": 128},
        "model": {"window_size": 4, "rpn_post_nms": [50, 50], "roi_batch": 16, "box_convs": [256]},
    },
    "ade20k": {"input": {"image_size": 64}, "model": {"channels": 256, "window_stride": 64}},
    "shapenetpart_tune": POINTS,
    "shapenetpart_scratch_tune": POINTS,
    "partnet_tune": POINTS,
}
LOSSES = {
    "imagenet": {"loss": math.log(1000)},
    "kinetics": {"loss": math.log(400)},
    "audioset": {"loss": math.log(2)},
    "shapenetpart": {"loss": math.log(50)},
    "partnet": {"loss": math.log(39 - 1)},
    "ade20k": {"loss": (1 + 0.4) * math.log(150)},
    "coco": {
        "loss_classifier": math.log(80 + 1),
        "loss_objectness": math.log(2),
        "loss_mask": math.log(2),
    },
    "shapenet55": {"loss": math.log(55)},
    "audioset2m": {"loss": math.log(2)},
    "text": {"loss": math.log(256) + 1 / 2},
}
"""Of finetunings and transfers, then of pretrainings, by dataset; masked autoencoders have none."""


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Trainings of the paper's config, one for each dataset, body and head."""
    folder = tmp_path_factory.mktemp("recipes")
    text = PAPER.read_text()
    for name, changes in SMALL.items():
        path = f"config/recipes/paper/{name}.yaml"
        recipe = read_yaml(Path(path))
        recipe |= {key: recipe[key] | values for key, values in changes.items()}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        text = text.replace(path, str(folder / f"{name}.yaml"))
    config = yaml.safe_load(text)
    config["backbone"] = {"dim": 48, "depth": 12, "num_heads": 6, "mlp_ratio": 2.0}
    config["convnext"] = {"depths": [1, 1, 1, 1], "dims": [24, 48, 96, 192]}
    inputs = {"image": {"image_size": 64}, "video": {"frames": 4, "image_size": 64}, "audio": {"frames": 128}}
    for name, values in inputs.items():
        config["modalities"][name]["input"] |= values
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    plan, found = Plan.load(folder / "config.yaml"), {}
    for training in trainings(plan, plan.runs.values()):
        spec = training.spec
        is_masked = training.run is None and spec.objective == "masked"
        if (
            spec.dataset.name in LOSSES
            and spec.dataset.subset in (None, "Chair-3")
            and (not is_masked or spec.dataset.name == "text")
        ):
            head = getattr(getattr(spec.recipe, "model", None), "head", None)
            found[spec.dataset.name, spec.architecture.body, head] = training
    return found


def test_losses_start_where_the_tasks_say(subjects):
    for (dataset, *_), training in subjects.items():
        torch.manual_seed(0)
        synthetic = build_synthetic(training, torch.device("cpu"), 4)
        expected = expected_losses(training.spec, synthetic.model, synthetic.batch)
        with torch.no_grad():
            loss, others = synthetic.loss(synthetic.model, synthetic.batch)
        measured = {name: value.item() for name, value in {**others, "loss": loss}.items()}
        assert expected == pytest.approx(LOSSES[dataset]), training.id
        assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=0.08), training.id
    assert {dataset for dataset, *_ in subjects} == set(LOSSES)
    assert {each[1:] for each in subjects} >= {
        ("transformer", "linear"),
        ("transformer", "batchnorm_linear"),
        ("convnext", "linear"),
    }


def test_ignored_and_weighted_pixels_count_as_in_the_loss():
    from m2pt.models.upernet import UPerNet
    from m2pt.tasks.semantic_segmentation import SemanticSegmentation

    labels = torch.tensor([[0, 1, 2, 255], [2, 2, 255, 255]])
    for weights in (None, [0.5, 1.0, 3.0]):
        recipe = {"model": {"auxiliary_weight": 0.0, "class_weights": weights, "classifier_std": 0.01}}
        model = torch.nn.Module()
        model.class_weights = None if weights is None else torch.tensor(weights)
        loss = UPerNet._cross_entropy(model, torch.zeros(1, 3, 2, 4), labels[None])
        expected = SemanticSegmentation.initial_losses(3, recipe, ([], [labels]))
        assert expected["loss"] == pytest.approx(loss.item())
        recipe["model"]["classifier_std"] = 0.2
        assert SemanticSegmentation.initial_losses(3, recipe, ([], [labels])) == {}


@pytest.mark.parametrize(
    ("stds", "known"),
    [
        ((0.01, 0.001, 0.001), {"loss_classifier", "loss_mask", "loss_objectness"}),
        ((0.05, 0.05, 0.001), {"loss_mask", "loss_objectness"}),
        ((0.01, 0.05, 0.4), {"loss_classifier", "loss_objectness"}),
    ],
)
def test_a_loss_is_known_where_the_last_layer_starts_small(stds, known):
    from m2pt.tasks.detection import Detection

    assert set(Detection.initial_losses(10, {"model": {"predictor_stds": stds}}, None)) == known
