"""The catalog is the only list of modalities, layouts, tasks and kinds of run. What it names exists."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import m2pt
from m2pt import catalog
from m2pt.catalog import KINDS, LAYOUTS, MODALITIES, TASKS
from m2pt.config.recipes import Pretraining, Recipe
from m2pt.datasets.layouts import layout_module, miniature_module, preparation_module
from m2pt.errors import InputError
from m2pt.modalities.tokenizer import Tokenizer
from m2pt.ops.workflow_files import workflow_faults
from m2pt.run_files import EVALUATION

PACKAGE = Path(m2pt.__file__).parent
TALK = {  # words of other things, in modules about themselves
    ("datasets/text.py", "text"),
    ("datasets/kinetics.py", "kinetics"),
    ("datasets/video_files.py", "video"),
    ("datasets/frames.py", "video"),
    ("commands/data.py", "video"),
}


SEVERAL = [name for name, layout in LAYOUTS.items() if len(layout.modalities) > 1]
"""Layouts with modules that name the modalities of their samples."""


def test_reading_it_imports_neither_torch_nor_pydantic():
    code = "import sys, m2pt.catalog; print({'torch', 'pydantic'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_no_other_module_names_its_entries():
    names = {*MODALITIES, *LAYOUTS, *TASKS}
    found = {
        (path.relative_to(PACKAGE).as_posix(), node.value)
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE / "catalog"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }
    of_samples = {(path, name) for path, name in found if Path(path).stem in SEVERAL and name in MODALITIES}
    assert found - of_samples - {("commands/data.py", "urfunny")} == TALK


@pytest.mark.parametrize("name", MODALITIES)
def test_a_modality_s_modules_exist(name):
    entry = catalog.modality(name)
    assert issubclass(catalog.load(entry.tokenizer, name), Tokenizer)
    assert {"input", "tokenizer"} <= catalog.load(entry.settings, name).model_fields.keys()
    assert issubclass(catalog.load(entry.masked.recipe, name), Pretraining)
    assert callable(catalog.load(entry.masked.model, name))
    if entry.plane:
        sizes = catalog.load(entry.settings, name).model_fields["input"].annotation.model_fields
        assert set(entry.plane.sides) <= sizes.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_s_modules_exist(name):
    entry = catalog.layout(name)
    assert layout_module(name).Reader and miniature_module(name).build
    assert entry.modalities and set(entry.modalities) <= set(MODALITIES)
    assert isinstance(entry.num_classes, dict) == entry.subsets
    settings = (entry.augmentation, entry.pretraining_augmentation, entry.evaluation, entry.input)
    for path in filter(None, settings):
        catalog.load(path, name)()
    if module := preparation_module(name):
        _, _, *options = inspect.signature(module.prepare).parameters
        assert set(entry.preparation_options) == set(options)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_s_modules_exist_and_some_layout_has_its_labels(name):
    entry = catalog.task(name)
    assert issubclass(catalog.load(entry.recipe, name), Recipe)
    assert callable(catalog.load(entry.task, name).from_recipe)
    assert any(layout.labels == entry.labels for layout in LAYOUTS.values())


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_run_is_complete(name):
    entry = catalog.kind(name)
    for path in (entry.experiments, entry.recipe, entry.model, entry.interface):
        assert callable(catalog.load(path, name))
    assert entry.files[-1] == EVALUATION
    assert any(task.kind == name for task in TASKS.values())


def test_each_command_of_a_kind_of_run_has_a_module_and_a_rule():
    assert list(workflow_faults(KINDS, Path())) == []
    rules = "".join(path.read_text() for path in Path("workflow/rules").glob("*.smk"))
    for name in catalog.commands():
        module = catalog.load(catalog.command_module(name), name)
        assert callable(module.add_arguments) and callable(module.run)
        assert f'RULES.runs("{name}")' in rules


def test_an_unknown_name_is_refused_with_what_was_meant():
    with pytest.raises(InputError, match="there is no modality 'vidoe'; did you mean 'video'"):
        catalog.modality("vidoe")
    with pytest.raises(InputError, match="there is no task 'x'; choose one of classification, "):
        catalog.task("x")
