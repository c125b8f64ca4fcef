import copy
from pathlib import Path

import pytest
import torch
from image_encoders import tiny_encoder
from oracle_detector import OBJECTS, Oracle, Views, run_length, write_annotations
from pycocotools.coco import COCO
from torch import Tensor, nn
from torch.utils.data import DataLoader

from m2pt.models.mask_rcnn import PlainMaskRCNN, build_mask_rcnn
from m2pt.models.settings import MaskRCNNSettings
from m2pt.tasks import detection, evaluation

CPU = torch.device("cpu")


@pytest.fixture
def annotation_file(tmp_path: Path) -> Path:
    return write_annotations(tmp_path)


@pytest.fixture
def truth(annotation_file: Path) -> COCO:
    return COCO(str(annotation_file))


def result(
    image: int, category: int, box: tuple[int, int, int, int], score: float = 0.9
) -> dict[str, object]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "segmentation": run_length(*box),
        "score": score,
    }


def test_perfect_predictions_score_100(truth: COCO) -> None:
    scores = detection.average_precision(truth, [result(*item) for item in OBJECTS])
    assert scores == pytest.approx(dict.fromkeys(detection.METRICS, 100.0))


def test_no_prediction_scores_0(truth: COCO) -> None:
    assert detection.average_precision(truth, []) == dict.fromkeys(detection.METRICS, 0.0)


def test_predictions_of_the_wrong_class_score_0(truth: COCO) -> None:
    wrong = [result(image, 7 if category == 90 else 90, box) for image, category, box in OBJECTS]
    assert detection.average_precision(truth, wrong) == dict.fromkeys(detection.METRICS, 0.0)


def test_average_precision_of_a_hand_computed_case(truth: COCO) -> None:
    # Class 7: one of two objects found, 16x13 of 16x16 pixels (IoU 0.8125: 7 of the 10 thresholds), after a
    # better-scored false alarm: precision 1/2 up to recall 1/2, i.e. at 51 of the 101 recall points.
    # Class 90: nothing found.
    results = [result(11, 7, (4, 4, 16, 13), 0.5), result(13, 7, (60, 20, 10, 10), 0.8)]
    at_one_threshold = 100 * (51 / 101) * 0.5 / 2
    scores = detection.average_precision(truth, results)
    assert scores["ap50_box"] == scores["ap50_mask"] == pytest.approx(at_one_threshold)
    assert scores["ap_box"] == scores["ap_mask"] == pytest.approx(0.7 * at_one_threshold)


def test_results_are_not_modified_and_nothing_is_printed(
    truth: COCO, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [result(*item) for item in OBJECTS]
    before = copy.deepcopy(results)
    capsys.readouterr()
    detection.average_precision(truth, results)
    assert results == before
    assert capsys.readouterr().out == ""


def test_predictions_are_mapped_back_to_original_images_and_categories(annotation_file: Path) -> None:
    loader = DataLoader(Views(annotation_file), batch_size=2, collate_fn=detection.Detection.collate)
    scores = evaluation.evaluate(detection.Detection(), Oracle(), loader, CPU)
    assert scores["ap_box"] == pytest.approx(100)
    assert scores["ap50_mask"] == pytest.approx(100)
    assert scores["ap_mask"] > 80  # pasting 28 x 28 probabilities rounds the corners off


def tiny_model(**changes: object) -> PlainMaskRCNN:
    encoder = tiny_encoder(depth=2)
    settings: dict[str, object] = {
        "strides": (4, 8),
        "extra_level": False,
        "channels": 16,
        "anchor_sizes": ((10,), (20,)),
        "rpn_convs": 1,
        "rpn_pre_nms": (50, 50),
        "rpn_post_nms": (20, 20),
        "roi_batch": 16,
        "canonical_scale": 64,
        "box_convs": (),
        "box_units": (32,),
        "mask_convs": (8,),
        "sampling_ratio": 1,
        **changes,
    }
    return build_mask_rcnn(encoder, num_classes=2, image_size=32, freeze_backbone=False, **settings)


def one_batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    image = torch.zeros(3, 32, 32)
    image[:, 4:16, 6:22] = 2.0
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)
    masks[0, 4:16, 6:22] = 1
    boxes = torch.tensor([[6.0, 4.0, 22.0, 16.0]])
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 32, 32, dtype=torch.uint8),
    }
    return [image, torch.zeros(3, 32, 32)], [
        {"boxes": boxes, "labels": torch.tensor([2]), "masks": masks},
        empty,
    ]


def test_training_lowers_the_loss_and_finds_the_object() -> None:
    model, batch = tiny_model(), one_batch()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(60):
        value, parts = detection.Detection.loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
        assert value.item() == pytest.approx(sum(part.item() for part in parts.values()), rel=1e-5)
    assert sum(history[-5:]) < 0.4 * sum(history[:5])

    model.eval()
    found, nothing = model(batch[0])
    assert found["labels"][0] == 2
    assert found["boxes"][0].tolist() == pytest.approx([6, 4, 22, 16], abs=3)
    assert (nothing["scores"] < 0.5).all()


def test_every_trainable_parameter_gets_a_gradient() -> None:
    model = tiny_model()
    model.train()
    detection.Detection.loss(model, one_batch())[0].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_smaller_images_are_padded_and_do_not_change_the_strides() -> None:
    model = tiny_model().eval()
    small = torch.randn(3, 20, 12)
    padded = torch.zeros(3, 32, 32)
    padded[:, :20, :12] = small
    images, _ = model.transform([small, padded])
    assert torch.equal(images.tensors[0], images.tensors[1])
    assert images.image_sizes == [(20, 12), (32, 32)]
    # torchvision's pool would take 8 x 8 of a 12-pixel image for stride 2, and keep to it
    model([small])
    assert model.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8]
    assert all((prediction["boxes"] <= torch.tensor([12, 20, 12, 20])).all() for prediction in model([small]))


def test_settings_shape_the_heads() -> None:
    vitdet = MaskRCNNSettings()
    assert (vitdet.strides, vitdet.channels, vitdet.box_units) == ((4, 8, 16, 32), 256, (1024,))
    model = tiny_model(box_convs=(12, 12, 12, 12), mask_convs=(6, 6), rpn_convs=2, extra_level=True,
                       anchor_sizes=((8,), (16,), (32,)))  # fmt: skip
    convolutions = [m.out_channels for m in model.roi_heads.box_head.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [12, 12, 12, 12]
    assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 3
    assert len(model.rpn.head.conv) == 2
    detection.Detection.loss(model.train(), one_batch())[0].backward()


def test_anchors_must_be_given_for_every_level() -> None:
    with pytest.raises(ValueError, match="anchor_sizes has 2 entries, the pyramid 3 levels"):
        MaskRCNNSettings(strides=(4, 8), anchor_sizes=((16,), (32,)), extra_level=True)
