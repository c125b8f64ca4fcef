"""What an entry of the catalog may say."""

from dataclasses import replace

import pytest

from m2pt import catalog
from m2pt.run_files import ATTACHED, EVALUATION, MERGED

FINETUNE, CLASSIFICATION = catalog.KINDS["finetune"], catalog.TASKS["classification"]
IMAGE, IMAGENET = catalog.MODALITIES["image"], catalog.LAYOUTS["imagenet"]
MERGE, EVALUATE = catalog.MERGE, catalog.EVALUATE
AGAIN = replace(MERGE, command="merge_again")
LATE = replace(EVALUATE, command="late", input="late.safetensors")


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        (FINETUNE, {"outputs": ()}, "outputs must not be empty"),
        (FINETUNE, {"outputs": ATTACHED}, "outputs must be a tuple of names, got 'attached.safetensors'"),
        (FINETUNE, {"outputs": (ATTACHED, ATTACHED)}, "outputs has duplicates"),
        (FINETUNE, {"outputs": (None,)}, r"outputs must be a tuple of names, got \(None,\)"),
        (FINETUNE, {"outputs": (EVALUATION,), "followed_by": ()}, "outputs must name a file of weights"),
        (FINETUNE, {"outputs": (MERGED, EVALUATION), "followed_by": (EVALUATE,)}, "files .* has duplicates"),
        (FINETUNE, {"outputs": ("x.safetensors",)}, "merge reads attached.safetensors, which nothing before"),
        (FINETUNE, {"followed_by": EVALUATE}, "followed_by must be a tuple of FollowUp entries"),
        (FINETUNE, {"followed_by": ("merge",)}, "followed_by must be a tuple of FollowUp entries"),
        (FINETUNE, {"followed_by": (MERGE, MERGE, EVALUATE)}, "followed_by has duplicates"),
        (FINETUNE, {"followed_by": (MERGE, AGAIN, EVALUATE)}, "the files .* has duplicates"),
        (FINETUNE, {"followed_by": (LATE, MERGE)}, "late reads late.safetensors, which nothing before it"),
        (FINETUNE, {"column": "mode"}, "column must be a tuple of names, got 'mode'"),
        (FINETUNE, {"help": ""}, "help must say what the command does, got ''"),
        (MERGE, {"help": None}, "help must say what the command does, got None"),
        (IMAGENET, {"modalities": ("image", "image")}, "modalities has duplicates"),
        (IMAGENET, {"modalities": ()}, "modalities must not be empty"),
        (IMAGENET, {"modalities": "image"}, "modalities must be a tuple of names, got 'image'"),
        (IMAGENET, {"transposed": ("audio",)}, "transposed has audio, which is not among the modalities"),
        (CLASSIFICATION, {"metrics": "top1"}, "metrics must be a tuple of names, got 'top1'"),
        (CLASSIFICATION, {"metrics": ()}, "metrics must not be empty"),
        (IMAGE, {"color": "teal"}, "color must be #rrggbb, such as #0072B2, got 'teal'"),
        (IMAGE, {"color": "#07B"}, "color must be #rrggbb"),
        (IMAGE, {"color": 0x0072B2}, "color must be #rrggbb"),
        (IMAGE.plane, {"sides": "image_size"}, "sides must be a tuple of names, got 'image_size'"),
    ],
)
def test_an_entry_that_contradicts_itself_cannot_be_made(entry, change, words):
    with pytest.raises((TypeError, ValueError), match=words):
        replace(entry, **change)


def test_a_command_may_read_what_an_earlier_one_wrote():
    entry = replace(FINETUNE, followed_by=(MERGE, replace(EVALUATE, input=MERGED)))
    assert entry.files == (ATTACHED, MERGED, EVALUATION)
