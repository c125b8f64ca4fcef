"""A stranger adds a method of joint training with a class, a function and an entry; faults are named."""

import pytest
from multimodal_config import write_config
from strangers.commands import faults

from m2pt import catalog
from m2pt.config.strict import Strict

HERE = __name__


class Settings(Strict):
    """Settings without alpha."""


class NotStrict:
    """Settings that are no pydantic model."""


def settings():
    """A function in place of a class."""


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"settings": f"{HERE}:NotStrict"},
            f"method plain: settings: {HERE}:NotStrict must be a subclass of",
        ),
        ({"settings": f"{HERE}:settings"}, f"method plain: settings: {HERE}:settings must be a subclass of"),
        ({"settings": HERE}, f"method plain: settings: {HERE} must be a subclass of"),
        ({"settings": f"{HERE}:Missing"}, f"method plain: settings: {HERE} has no 'Missing'"),
        (
            {"has_alpha": True},
            f"method plain: settings: {HERE}:Settings has no field alpha, but the entry says",
        ),
        ({"build": f"{HERE}:build"}, f"method plain: build: {HERE} has no 'build'"),
        ({"build": HERE}, "TypeError: 'module' object is not callable"),
        (
            {"build": f"{HERE}:settings"},
            "TypeError: settings() takes 0 positional arguments but 3 were given",
        ),
    ],
)
def test_what_a_method_s_entry_lacks_is_named(tmp_path, capsys, monkeypatch, entry, words):
    complete = {"settings": f"{HERE}:Settings", "build": "m2pt.multimodal:joint"}
    monkeypatch.setitem(catalog.METHODS, "plain", catalog.Balancing(**complete | entry))
    config = write_config(tmp_path, {"x": {"method": "plain"}}, methods={"plain": {}})
    assert words in faults(capsys, config)


@pytest.mark.parametrize("entry", [{}, "m2pt.multimodal:joint", catalog.MODALITIES["image"]])
def test_an_entry_of_another_form_is_named(tmp_path, capsys, monkeypatch, entry):
    monkeypatch.setitem(catalog.METHODS, "plain", entry)
    config = write_config(tmp_path, {"x": {"method": "plain"}}, methods={"plain": {}})
    words = f"method plain: the entry must be a Balancing, got {type(entry).__name__}"
    assert words in faults(capsys, config)
