"""Parameters that the rules of the workflow get."""

import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from config_documents import TINY
from snakemake.cli import parse_config
from snakemake.utils import update_config

from m2pt.command_line import parse_overrides
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan
from m2pt.plan.rules import MINIATURE, Rules


@pytest.mark.parametrize("paper_scale", [True, False])
def test_only_a_miniature_s_captions_say_that_it_reproduces_nothing(config, tmp_path, paper_scale):
    path, made = tmp_path / "config.yaml", tmp_path / "table.made.txt"
    path.write_text(yaml.safe_dump(config | {"paper_scale": paper_scale}))
    made.write_text("Measured.\n")
    caption = Rules([path], read_yaml(path)).made(None, SimpleNamespace(made=made))
    assert caption == ("Measured." if paper_scale else f"Measured. {MINIATURE}")


def test_an_override_reaches_the_commands_whatever_its_value():
    in_file = read_yaml(TINY)
    backbone = {"dim": 32, "depth": 4, "num_heads": 2}
    rules = Rules([str(TINY)], in_file | {"backbone": backbone, "seeds": [0, 1]})
    command = rules.arguments(None, None)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True).stdout
    flags = words.splitlines()
    assert flags[:2] == ["--config", str(TINY)]
    overrides = parse_overrides([word for flag, word in pairwise(flags) if flag == "--set"])
    assert overrides == {"backbone": backbone, "seeds": [0, 1]}


def test_the_command_that_messages_print_gives_snakemake_the_same_overrides():
    overrides = {"seeds": [3, 4], "results": "results/5 6", "device": "cpu", "claims": None, "threads": 2}
    words = shlex.split(Plan.load(TINY, overrides).command(Path("results/table.csv")))
    merged = read_yaml(TINY)
    update_config(merged, parse_config(words[words.index("--config") + 1 :]))
    assert Rules([str(TINY)], merged).plan.overrides == {
        key: value for key, value in overrides.items() if read_yaml(TINY).get(key) != value
    }


def test_a_dataset_that_is_still_to_be_made_is_left_to_its_own_check():
    mine = {"layout": "imagenet", "num_classes": 10, "root": "shards"}
    datasets = read_yaml(TINY)["datasets"] | {"made": mine, "packed": mine | {"packed_from": "files"}}
    rules = Rules([TINY], {"datasets": datasets})
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=rule), wildcards=SimpleNamespace(dataset=dataset))
        for rule, dataset in [
            ("pack_dataset", "packed"),
            ("check_dataset", "packed"),
            ("check_dataset", "made"),
            ("finetune", None),
        ]
    ]
    assert rules.preflight(jobs).endswith("--datasets made")
