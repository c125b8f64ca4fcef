"""A stranger adds a method of joint training with a class, a function and an entry; faults are named."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from multimodal_config import write_config
from strangers.commands import faults, run

from m2pt import catalog
from m2pt.config.strict import Strict
from m2pt.plan.plan import Plan
from m2pt.run_files import EVALUATION, METRICS

HERE = __name__


class Settings(Strict):
    """Settings without alpha."""


class NotStrict:
    """Settings that are no pydantic model."""


def settings():
    """A function in place of a class."""


EXAMPLE = Path("docs/extending.md").read_text(encoding="utf-8").partition("## A balancing method\n")[2]


def test_the_documented_method_is_trained(tmp_path, monkeypatch):
    *files, entry = re.findall(r"^```python\n(.*?)^```$", EXAMPLE, re.MULTILINE | re.DOTALL)
    method, *additions = files
    new = ModuleType("equalized")
    exec(method, vars(new))
    for text, added in zip(additions, ("Equalized", "equalized"), strict=True):
        name = text.removeprefix("# ").partition(".py")[0].replace("/", ".")
        module = importlib.import_module(name)
        names = {"Equalized": new.Equalized, **vars(module), "__name__": name}
        exec(text, names)
        monkeypatch.setattr(module, added, names[added], raising=False)
    entries = eval(f"{{{entry}}}", {"Balancing": catalog.Balancing})
    monkeypatch.setitem(catalog.METHODS, "equalized", entries["equalized"])
    methods = {"equalized": {"strength": 0.5}}
    config = write_config(tmp_path, {"x": {"method": "equalized"}}, methods=methods)
    run("check", "--config", str(config))
    run("data", "build", "avmnist", "--config", str(config))
    plan = Plan.load(config)
    (name,) = plan.runs
    run("multimodal", name, "--config", str(config))
    folder = plan.run_directory(name, 0)
    assert json.loads((folder / EVALUATION).read_text())["spec"]["recipe"]["methods"] == methods
    steps = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    factors = [(line["factor/audio"], line["factor/image"]) for line in steps if "factor/audio" in line]
    # f = (m / n)^(1/2) with the mean m of both norms n: 1 / f² is the norm in units of the mean
    assert factors and all(1 / a**2 + 1 / b**2 == pytest.approx(2, rel=1e-4) for a, b in factors)


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
