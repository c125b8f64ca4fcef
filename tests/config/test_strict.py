"""Messages about unknown keys and wrong values."""

from pathlib import Path

import pytest
from config_documents import refused, refused_config

from m2pt.config.tables import Table
from m2pt.formats.documents import read_yaml


def test_a_misspelled_key_is_named_with_its_path_and_the_key_that_was_meant(config):
    config["backbone"]["dmi"] = config["backbone"].pop("dim")
    message = refused_config(config)
    assert "here.yaml: backbone.dmi: unknown key; did you mean 'dim'?" in message
    assert "backbone.dim: this key is missing" in message


def test_a_message_is_short_whatever_the_value_and_however_many_the_faults(config):
    message = refused_config(config | {"threads": "x" * 10**6})
    assert len(message) < 300 and "here.yaml: threads = 'xxx" in message
    message = refused_config(config | {f"key{i}{'x' * 1000}": i for i in range(100_000)})
    assert len(message) < 20_000 and "and 99980 more errors" in message
    message = refused_config(config | {"encoders": {f"e{i}": {} for i in range(20_000)}})
    assert len(message) < 20_000
    assert len(refused_config(config | {"device": ["x"] * 10**6})) < 300


def test_a_name_with_a_line_break_makes_no_second_line():
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table["rows"][2]["baseline"] = "x y"
    assert "\n" not in refused(Table, table)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [True]}, "seeds.0 = True: must be an integer."),
        ({"seeds": [-1]}, "seeds.0 = -1: must be >= 0."),
        ({"seeds": []}, "seeds = []: must have at least 1 item."),
        ({"seeds": 1}, "seeds = 1: must be a list."),
        ({"threads": 10**22}, "threads = 10000000000000000000000: must be <= 1024."),
        ({"backbone": 1}, "backbone = 1: must be a mapping."),
        ({"paper_scale": "x"}, "paper_scale = 'x': must be true or false."),
        ({"results": None}, "results = None: must be a string."),
        ({"device": "tpu"}, "device = 'tpu': must be 'auto', 'cpu' or 'cuda'."),
    ],
)
def test_a_fault_is_told_once_in_plain_words(config, change, said):
    assert refused_config(config | change) == f"here.yaml: {said}"
