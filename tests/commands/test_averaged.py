"""What the commands make of a recipe with `ema`: the average of the merged weights."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.formats.weights import load_weights, save_weights
from m2pt.models.exchange import split_average
from m2pt.pathway import merge_state_dict
from m2pt.plan.plan import Plan
from m2pt.training import averaging as averaging_module

CONFIG = Path("tests/tiny/config.yaml")


def averaging(folder, recipe):
    """Write a recipe with an average and larger steps, so that it is not the last weights."""
    content = read_yaml(Path(recipe))
    content["training"] |= {"ema": 0.9, "scale_lr": 0.1}
    path = folder / Path(recipe).name
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def call(tmp_path):
    config = read_yaml(CONFIG)
    imagenet = config["finetune"]["imagenet"]
    imagenet["scratch_tune"] = averaging(tmp_path, imagenet["scratch_tune"])
    config["transfer"]["ade20k"]["recipe"] = averaging(tmp_path, config["transfer"]["ade20k"]["recipe"])
    pointcloud = {"modality": "pointcloud", "random": True}
    config["encoders"] |= {"pointcloud": pointcloud, "pointcloud_early": pointcloud}
    config["encoders"]["image"] = {"modality": "image", "random": True}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))

    def run(*words):
        assert main([*words, "--config", str(path), "--set", f"results={tmp_path}"]) == 0

    run.plan = Plan.load(path, {"results": str(tmp_path)})
    return run


def test_the_merged_model_is_the_average_and_is_what_is_evaluated(call, tmp_path, capsys):
    run = next(name for name in call.plan.runs if name.startswith("imagenet-tune-from-scratch-random"))
    folder = call.plan.run_directory(run, 0)
    call("data", "build", "imagenet")
    call("import", "random")
    call("finetune", run)
    attached, merged = (str(folder / f"{name}.safetensors") for name in ("attached", "merged"))
    assert main(["merge", attached, merged]) == 0
    assert "averaged over the training" in capsys.readouterr().out
    call("evaluate", run)

    own, average = split_average(load_weights(Path(attached))[0])
    last, plain = merge_state_dict(own), load_weights(Path(merged))[0]
    assert average.keys() == last.keys() == plain.keys()
    assert all(torch.equal(average[name], plain[name]) for name in plain)
    assert not torch.equal(last["blocks.0.attn.qkv.weight"], plain["blocks.0.attn.qkv.weight"])
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["spec"]["recipe"]["training"]["ema"] == 0.9
    assert evaluation["merged_difference"] < 1e-5

    state, metadata = load_weights(Path(attached))
    del state["ema.head.bias"]
    save_weights(Path(attached), state, metadata)
    assert main(["merge", attached, merged]) != 0
    assert "the averaged weights are not those of its model" in capsys.readouterr().err


def test_the_model_of_a_transfer_is_the_average(call, monkeypatch):
    made = []

    class Kept(averaging_module.MergedAverage):
        def __init__(self, model, decay):
            super().__init__(model, decay)
            made.append(self)

    monkeypatch.setattr(averaging_module, "MergedAverage", Kept)
    run = next(name for name in call.plan.runs if name.startswith("ade20k-tune-from-image-pointcloud"))
    for words in (("data", "build", "ade20k"), ("import", "image"), ("import", "pointcloud")):
        call(*words)
    call("transfer", run)
    (average,) = made
    model = load_weights(call.plan.run_directory(run, 0) / "merged.safetensors")[0]
    assert all(torch.equal(value, model[name]) for name, value in average.merged().items())
    last = merge_state_dict(average.model.state_dict())
    assert average.decay == 0.9 and not torch.equal(last["head.1.weight"], model["head.1.weight"])
