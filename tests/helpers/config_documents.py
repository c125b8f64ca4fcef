"""The tiny config as a document, and how a model refuses a document."""

import copy
from pathlib import Path

import pytest

from m2pt.config.config import read_config
from m2pt.config.faults import Faults
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml

TINY = Path("tests/tiny/config.yaml")


@pytest.fixture
def config():
    return read_yaml(TINY)


def refused(model, value):
    """The message of the refusal."""
    with pytest.raises(InputError) as error:
        validate(model, value, "here.yaml")
    return str(error.value)


def read(value):
    """The config of a document, or a refusal."""
    faults = Faults()
    found = read_config(value, "here.yaml", faults)
    faults.raise_all()
    return found


def refused_config(value):
    """The message of the refusal of a config."""
    with pytest.raises(InputError) as error:
        read(value)
    return str(error.value)


def changed(document, path, value):
    """The document with another value at a dotted path."""
    document = copy.deepcopy(document)
    *parents, key = path.split(".")
    parent = document
    for each in parents:
        parent = parent[int(each) if isinstance(parent, list) else each]
    parent[int(key) if isinstance(parent, list) else key] = value
    return document


def given_points(**source):
    """The tiny config's encoders with a given point cloud encoder, by default from a file."""
    encoders = read_yaml(TINY)["encoders"]
    return encoders | {"pointcloud": {"modality": "pointcloud"} | (source or {"file": "points.pth"})}
