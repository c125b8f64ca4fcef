"""Overrides on the command line."""

import pytest

from m2pt.command_line import parse_overrides
from m2pt.commands import main
from m2pt.errors import InputError


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("seeds", "give KEY=VALUE"),
        ("seeds=[0", "--set seeds=[0: give KEY=VALUE with a YAML value"),
        ("seeds=!!python/name:os.system", "python/name"),
        ("seeds=" + "[" * 100_000, "nested deeper"),
        ("threads=" + "1" * 5000, "--set threads=111"),
        ("device={a: 1, a: 2}", "duplicate key 'a'"),
        ("backbone.dim=8", "give a top-level key"),
        ("=8", "give a top-level key"),
        ("\ud800=8", "give a top-level key"),
        ("x" * 5000 + "-=8", "give a top-level key"),
        ("threads=010", "base-60"),
        ("results=" + "x" * 10**6, "too long"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused_briefly(pair, words):
    with pytest.raises(InputError) as error:
        parse_overrides([pair])
    assert words in str(error.value) and len(str(error.value)) < 500


def test_the_last_value_of_an_override_counts():
    assert parse_overrides(["seeds=[0]", "seeds=[1, 2]"]) == {"seeds": [1, 2]}


def test_ctrl_c_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("m2pt.command_line.Plan.load", interrupted)
    assert main(["plan"]) == 130
    assert capsys.readouterr().err == "m2pt plan: interrupted\n"
