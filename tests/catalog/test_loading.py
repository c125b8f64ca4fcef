"""What is said of an entry that a stranger got wrong: its name, and what it names."""

import pytest

from m2pt import catalog
from m2pt.catalog.loading import check_name, load_class, naming
from m2pt.config.recipes import Recipe
from m2pt.errors import InputError


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
    words = r"^kind x: recipe: KeyError: 'y' \(.*test_loading.py, line \d+\)$"
    with pytest.raises(InputError, match=words), naming("kind x: recipe"):
        {}["y"]
    with pytest.raises(InputError, match=r"^give z$"), naming("kind x: recipe"):
        raise InputError("give z")


@pytest.mark.parametrize("path", ["m2pt.errors:InputError", "m2pt.errors:listed", "m2pt.errors"])
def test_a_class_of_another_kind_is_refused(path):
    with pytest.raises(InputError, match=f"^x: {path} must be a subclass of m2pt.config.recipes.Recipe$"):
        load_class(path, "x", Recipe)
    assert load_class("m2pt.config.recipes:Pretraining", "x", Recipe).__name__ == "Pretraining"
