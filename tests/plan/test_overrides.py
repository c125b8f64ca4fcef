"""Overrides of a config on the command line of Snakemake."""

import pytest
from config_documents import TINY
from snakemake.cli import parse_config
from snakemake.utils import update_config

from m2pt.formats.documents import read_yaml
from m2pt.plan.overrides import overrides


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("seeds=[0, 1]", {"seeds": [0, 1]}),
        ("backbone={dim: 32}", {"backbone": {"dim": 32, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0}}),
        ("backbone={dim: 16, mlp_ratio: 2.0}", {}),  # as in the file
        ("results=results/123", {"results": "results/123"}),
        ("figures=[]", {"figures": []}),
        ("device=null", {"device": None}),
    ],
)
def test_what_snakemake_makes_of_its_config_option_is_typed(word, expected):
    """It leaves numbers, booleans and nulls inside lists and mappings strings, and merges mappings."""
    in_file, merged = read_yaml(TINY), read_yaml(TINY)
    update_config(merged, parse_config([word]))
    assert overrides(merged, in_file) == expected
