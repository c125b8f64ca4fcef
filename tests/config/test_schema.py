"""config/schema.json: what an editor checks a config against."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from m2pt.formats.documents import read_yaml

SCHEMA = Path("config/schema.json")
CONFIGS = [Path("config/config.yaml"), Path("config/paper.yaml"), Path("tests/tiny/config.yaml")]


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_it_is_that_of_the_code():
    made = subprocess.run(
        [sys.executable, "tools/config_schema.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == SCHEMA.read_text(), "make config/schema.json"


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_the_shipped_configs_are_valid_and_name_it(path, validator):
    assert list(validator.iter_errors(read_yaml(path))) == []
    named = path.read_text().partition("\n")[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SCHEMA.resolve()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("backbone", "dmi", 8),
        ("modalities", "immage", {}),
        ("datasets", "x", {"layout": "imgnet", "num_classes": 2}),
        ("encoders", "x", {"modality": "image", "objective": "mask"}),
    ],
)
def test_a_misspelled_key_or_name_is_found(section, key, value, validator):
    config = copy.deepcopy(read_yaml(CONFIGS[0]))
    config[section][key] = value
    assert len(list(validator.iter_errors(config))) == 1
