"""The room that trainings take: four bytes a number, kept epochs, imported encoders."""

from tiny_trainings import CLASSES, DEPTH, DIM, HIDDEN, LINEAR, META, TOKENS, find

from m2pt.models.bodies import build_body
from m2pt.ops.storage import footprint
from m2pt.ops.synthetic_training import build_synthetic


def test_storage_is_four_bytes_a_number(tiny):
    norms, head = 2 * DIM, DIM * CLASSES + CLASSES
    biases = 3 * DIM + DIM + HIDDEN + DIM
    blocks = DEPTH * (sum(LINEAR.values()) + biases + 2 * norms)
    embeddings = 8 * 8 * 3 * DIM + DIM + DIM + TOKENS * DIM  # patches, class token, positions
    plain = blocks + embeddings + norms + head
    pathways = DEPTH * (sum(LINEAR.values()) + len(LINEAR))
    synthetic = build_synthetic(find(tiny, "finetune imagenet-tune-from-image-pointcloud"), META)
    left = footprint(synthetic.model, synthetic.saved, "adamw")
    assert left.kept == {"merged": 4 * plain, "attached": 4 * (plain + pathways)}
    frozen = sum(p.numel() for p in synthetic.model.parameters() if not p.requires_grad)
    assert left.resume == 4 * (plain + pathways + 2 * (plain + pathways - frozen))
    assert footprint(synthetic.model, synthetic.saved, "sgd").resume < left.resume
    averaged = footprint(synthetic.model, synthetic.saved, "adamw", averaged=True)
    assert averaged.resume == left.resume + 4 * plain


def test_kept_epochs_and_imported_encoders_take_room(document, tiny):
    made = document("targets")
    pointcloud = next(each for each in made["trainings"] if each["id"] == "pretrain pointcloud seed0")
    encoder = build_body(find(tiny, "pretrain pointcloud").spec.stored["architecture"]).state_dict()
    size = sum(
        4 if tensor.is_floating_point() else 8 for tensor in encoder.values() for _ in tensor.flatten()
    )
    kept = len(find(tiny, "pretrain pointcloud").spec.stored["recipe"]["keep_epochs"])
    assert kept > 0 and pointcloud["bytes"] == {"encoder": (1 + kept) * size}
    assert made["bytes"]["encoders, imported"] > size  # pointcloud_early, and image_convnext
