"""What an entry of the catalog may say, and what is said of one that a stranger got wrong."""

from dataclasses import replace

import pytest

from m2pt import catalog
from m2pt.catalog.entries import check_name, load_class, naming
from m2pt.config.recipes import Recipe
from m2pt.errors import InputError
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


@pytest.mark.parametrize("name", ["", "Joint", "a-b", "a b", "1st", "_x", "ä", "class", "a\n", 3, None])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(InputError, match=r"kind of run .*: a name has lower-case letters"):
        check_name("kind of run", name)


@pytest.mark.parametrize("listing", ["modality", "layout", "task", "method", "kind"])
def test_entries_of_all_lists_have_names_of_one_form(monkeypatch, listing):
    plural = {"modality": "modalities"}.get(listing, f"{listing}s").upper()
    entries = getattr(catalog, plural)
    monkeypatch.setitem(entries, "a-b", next(iter(entries.values())))
    with pytest.raises(InputError, match="'a-b': a name has lower-case letters"):
        getattr(catalog, listing)("a-b")


def test_an_error_of_a_stranger_s_code_is_named_with_its_place():
    words = r"^kind x: recipe: KeyError: 'y' \(.*test_entries.py, line \d+\)$"
    with pytest.raises(InputError, match=words), naming("kind x: recipe"):
        {}["y"]
    with pytest.raises(InputError, match=r"^give z$"), naming("kind x: recipe"):
        raise InputError("give z")


@pytest.mark.parametrize("path", ["m2pt.errors:InputError", "m2pt.errors:listed", "m2pt.errors"])
def test_a_class_of_another_kind_is_refused(path):
    with pytest.raises(InputError, match=f"^x: {path} must be a subclass of m2pt.config.recipes.Recipe$"):
        load_class(path, "x", Recipe)
    assert load_class("m2pt.config.recipes:Pretraining", "x", Recipe).__name__ == "Pretraining"
