"""Commands on the config of a stranger's entry."""

import json

from m2pt.commands import main
from m2pt.plan.plan import Plan


def run(*words):
    assert main([*words]) == 0


def trained(config, name):
    """Finetune, merge and evaluate a run; return what evaluation.json says."""
    folder = Plan.load(config).run_directory(name, 0)
    run("finetune", name, "--config", str(config))
    run("merge", str(folder / "attached.safetensors"), str(folder / "merged.safetensors"))
    run("evaluate", name, "--config", str(config))
    return json.loads((folder / "evaluation.json").read_text())


def faults(capsys, config):
    """What `m2pt check` says, which is to be no traceback."""
    capsys.readouterr()
    assert main(["check", "--config", str(config)]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return said.err
