"""A stranger adds a dataset layout with one module and one entry, and reads what is missing."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch
from strangers.commands import faults, run, trained

from m2pt import catalog
from m2pt.commands import main
from m2pt.plan.plan import Plan

ARRAYS = "strangers.arrays"
ARRAYS_LAYOUT = catalog.Layout(
    modalities=("image",), labels="class", reader=ARRAYS, augmentation="strangers.arrays:Noise"
)


def arrays_sections(recipe):
    return {
        "datasets": {"letters": {"layout": "arrays", "num_classes": 2, "miniature": {"seed": 0}}},
        "finetune": {"letters": {"scratch_tune": recipe(augmentation={"noise": 0.1})}},
        "column": {"dataset": "letters"},
        "row": {"target_init": "scratch"},
    }


def test_a_new_layout_is_classified(write, recipe, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", ARRAYS_LAYOUT)
    config = write(**arrays_sections(recipe))
    run("check", "--config", str(config))
    (name,) = Plan.load(config).runs
    run("data", "build", "letters", "--config", str(config))
    result = trained(config, name)
    assert result["metrics"].keys() == {"top1"} and result["spec"]["recipe"]["augmentation"] == {"noise": 0.1}


def test_what_a_layout_s_module_lacks_is_named(write, recipe, capsys, monkeypatch):
    module = ModuleType("strangers.empty")
    monkeypatch.setitem(sys.modules, "strangers.empty", module)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="strangers.empty"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: reader: strangers.empty lacks Reader, check, classes, counts, files, " in said
    assert "layout arrays: miniature: strangers.empty lacks build" in said


def test_an_augmentation_without_defaults_is_named(write, recipe, capsys, monkeypatch):
    entry = replace(ARRAYS_LAYOUT, augmentation="strangers.one_hot:Settings")
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", entry)
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert (
        "layout arrays: augmentation: every field of strangers.one_hot:Settings must have a default" in said
    )


class Plain:
    """Settings without fields."""


class Unknown:
    """A type that pydantic cannot validate."""


@dataclass(frozen=True)
class Unreadable:
    """Settings with a field that no YAML gives."""

    noise: Unknown | None = None


@pytest.mark.parametrize("field", ["augmentation", "evaluation", "input"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Plain, "{field}: strangers.arrays:Chosen must be a dataclass or a pydantic model"),
        (lambda: None, "{field}: strangers.arrays:Chosen must be a dataclass or a pydantic model"),
        (Unreadable, "{field}: PydanticSchemaGenerationError: "),
    ],
)
def test_settings_of_another_form_are_named(write, recipe, capsys, monkeypatch, field, settings, words):
    monkeypatch.setattr("strangers.arrays.Chosen", settings, raising=False)
    entry = replace(ARRAYS_LAYOUT, **{field: "strangers.arrays:Chosen"})
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", entry)
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: " in said and words.format(field=field) in said


def test_a_layout_of_an_unknown_modality_is_named(write, recipe, capsys, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, modalities=("imge",)))
    assert "there is no modality 'imge'; did you mean 'image'?" in faults(
        capsys, write(**arrays_sections(recipe))
    )


def arrays_module(monkeypatch, **changes):
    """Replace the layout's module by one with other members."""
    module = ModuleType("strangers.changed")
    vars(module).update({**vars(sys.modules[ARRAYS]), **changes})
    monkeypatch.setitem(sys.modules, "strangers.changed", module)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="strangers.changed"))


def fail(*_, **__):
    raise NotImplementedError("yet")


def on_the_device(size, *, device, **_):
    return torch.randn(size, 7, device=device), 0


def on_the_cpu(size, **_):
    return [{"pictures": torch.randn(size, 3, 32, 32)}]


def build_with_other_sizes(root, *, seed, items=8):
    pass


def build_without_seed(root, train=8, val=4):
    pass


def build_with_a_required_size(root, *, seed, side, train=8):
    pass


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"synthetic_batch": fail}, "NotImplementedError: yet ("),
        ({"synthetic_batch": lambda size: size}, "TypeError: <lambda>() got an unexpected keyword argument"),
        (
            {"synthetic_batch": on_the_device},
            "the model does not take the inputs of letters",
        ),
        ({"synthetic_batch": on_the_cpu}, "must make tensors on `device`"),
        ({"build": fail}, "miniature: build(*_, **__): must have a parameter train"),
        ({"build": lambda root, *, seed, **sizes: None}, "must have a parameter train, with a number as def"),
        ({"build": build_with_other_sizes}, "build(root, *, seed, items=8): must have a parameter train"),
        (
            {"build": build_without_seed},
            "must take (root, *, seed, **sizes): got an unexpected keyword argum",
        ),
        ({"build": build_with_a_required_size}, "must take (root, *, seed, **sizes): missing a required"),
    ],
)
def test_a_member_that_does_not_do_its_work_is_named(write, recipe, capsys, monkeypatch, members, words):
    arrays_module(monkeypatch, **members)
    assert words in faults(capsys, write(**arrays_sections(recipe)))


def test_a_misspelled_size_of_a_miniature_is_named(write, recipe, capsys, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", ARRAYS_LAYOUT)
    sections = arrays_sections(recipe)
    sections["datasets"]["letters"]["miniature"]["sizes"] = {"trian": 4}
    words = "dataset letters: the miniature arrays has no size 'trian'; its sizes are train, val, image_size"
    assert words in faults(capsys, write(**sections))


def test_a_builder_may_take_any_sizes(write, recipe, monkeypatch):
    arrays_module(monkeypatch, build=lambda root, *, seed, train=8, **sizes: None)
    sections = arrays_sections(recipe)
    sections["datasets"]["letters"]["miniature"]["sizes"] = {"side": 4}
    run("check", "--config", str(write(**sections)))


def test_a_window_that_the_input_lacks_is_named(write, recipe, capsys, monkeypatch):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, window="lenght"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: window: the input has no number 'lenght'; it has image_size" in said


@pytest.mark.parametrize("counted", [{"val": 4}, {"train": None}, 12])
def test_counts_without_training_items_are_named_when_they_are_written(
    write, recipe, capsys, monkeypatch, counted
):
    arrays_module(monkeypatch, counts=lambda root: counted)
    config = write(**arrays_sections(recipe))
    assert main(["data", "build", "letters", "--config", str(config)]) == 2
    words = f"layout arrays: reader: counts must return a number for 'train', got {counted}"
    assert words in capsys.readouterr().err
    assert not Plan.load(config).manifest("letters").exists()


SYNTAX, RAISES, EXITS = "def (", "undefined", "raise SystemExit(3)"


@pytest.mark.parametrize("text", [SYNTAX, RAISES, EXITS, "raise ValueError('no')"])
def test_a_module_that_cannot_be_imported_is_named(write, recipe, capsys, monkeypatch, tmp_path, text):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="broken_module"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: reader: broken_module cannot be imported: " in said


@pytest.mark.parametrize("path", ["", ".arrays", None, 3, "a b", "strangers.arrays:"])
def test_a_path_of_another_form_is_named(write, recipe, capsys, monkeypatch, path):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader=path))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert f"layout arrays: reader: must be 'package.module:Name' or 'package.module', got {path!r}" in said


@pytest.mark.parametrize("entry", [{}, "strangers.arrays", catalog.MODALITIES["image"]])
def test_an_entry_of_another_form_is_named(write, recipe, capsys, monkeypatch, entry):
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", entry)
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert f"dataset layout arrays: the entry must be a Layout, got {type(entry).__name__}" in said


def test_a_member_that_cannot_be_called_is_named(write, recipe, capsys, monkeypatch):
    module = ModuleType("strangers.not_callable")
    vars(module).update({**vars(sys.modules[ARRAYS]), "check": [], "Reader": 3})
    monkeypatch.setitem(sys.modules, "strangers.not_callable", module)
    monkeypatch.setitem(catalog.LAYOUTS, "arrays", replace(ARRAYS_LAYOUT, reader="strangers.not_callable"))
    said = faults(capsys, write(**arrays_sections(recipe)))
    assert "layout arrays: reader: strangers.arrays lacks " in said and "check" in said
