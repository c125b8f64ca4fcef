"""`m2pt check`: what cannot be built is found without data and without training."""

import copy
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from config_documents import given_points
from damaged_layouts import LAYOUTS
from multimodal_config import write_config

from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.modalities.image import ImageTokenizer
from m2pt.models.bodies import build_body
from m2pt.models.exchange import to_exchange
from m2pt.plan.plan import Plan

TINY = Path("tests/tiny/config.yaml")


@pytest.fixture
def check(tmp_path, capsys):
    """Change the tiny config, and recipes by the encoder or section that names them; return what is said."""

    def run(change=None, **recipes):
        config = copy.deepcopy(read_yaml(TINY))
        for where, changes in recipes.items():
            section, key = where.split("__")
            entry = config[section][key.partition("_")[0] if section == "finetune" else key]
            name = {"encoders": "pretrain", "transfer": "recipe"}.get(section, key.partition("_")[2])
            recipe = read_yaml(Path(entry[name]))
            for path, value in changes.items():
                *parents, last = path.split(".")
                inner = recipe
                for parent in parents:
                    inner = inner.setdefault(parent, {})
                inner[last] = value
            written = tmp_path / f"{where}.yaml"
            written.write_text(yaml.safe_dump(recipe))
            entry[name] = str(written)
        if change:
            change(config)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        code = main(["check", "--config", str(path)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_the_shipped_configs_can_be_built(capsys):
    assert main(["check", "--config", str(TINY)]) == 0
    assert main(["check", "--config", "config/config.yaml"]) == 0
    assert main(["check", "--config", "config/paper.yaml"]) == 0
    assert "distinct trainings build" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        ({"encoders__image": {"decoder.num_heads": 5}}, "dim 16 is not a multiple of num_heads 5"),
        ({"encoders__image": {"mask_ratio": 0.99}}, "mask_ratio masks 16 of 16 tokens"),
        ({"encoders__pointcloud": {"decoder.dim": 8}}, "decoder.dim 8 differs from backbone.dim 16"),
        ({"encoders__image": {"training.optimizer_args": {"momentun": 0.9}}}, "does not accept {'momentun'"),
        ({"encoders__video": {"augmentation.crop_scales": [0.0]}}, "crop_scales.0 = 0.0"),
        ({"encoders__image": {"augmentation.scale": [1.0, 0.2]}}, "the lower bound 1 must not exceed"),
        ({"finetune__imagenet_pretrained_tune": {"training.batch_size": 15}}, "batch_size = 15"),
        ({"finetune__imagenet_pretrained_tune": {"augmentation.auto_augment": "rnd-m9"}}, "'rnd-m9'"),
        ({"transfer__coco": {"model.strides": [5]}}, "stride"),
        ({"transfer__ade20k": {"model.class_weights": [1.0, 1.0]}}, "2 weights for 11 classes"),
        ({"finetune__audioset_pretrained_tune": {"augmentation.time_mask": 500}}, "time_mask = 500"),
        ({"finetune__shapenetpart_pretrained_tune": {"model.taps": [0, 9]}}, "model.taps = [0, 9]"),
    ],
)
def test_what_does_not_fit_is_named(check, recipes, words):
    code, said = check(**recipes)
    assert code == 2 and words in said, said
    assert "Traceback" not in said


def test_what_cannot_be_made_of_a_file_is_said_and_the_rest_is_built(check):
    code, said = check(lambda config: config["encoders"].update(given_points()))
    assert code == 0 and "distinct trainings build" in said
    assert (
        "targets:pretrained/VideoMAE:video_top1: left empty, since encoder pointcloud is a file, of" in said
    )


@pytest.mark.parametrize("command", [["check"], ["plan"], ["show", "x"], ["export", "tables"]])
def test_a_command_that_is_no_job_of_the_workflow_takes_no_digest(capsys, command):
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--config", str(TINY), "--expect", "0"])
    assert "unrecognized arguments: --expect" in capsys.readouterr().err


def test_a_backbone_that_positions_do_not_fit_is_named(check):
    def change(config):
        config["backbone"] |= {"dim": 18, "num_heads": 3}

    code, said = check(change)
    assert code == 2 and "must be a multiple of 4" in said


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("layers", ["attn.qvk"], "attn.qvk"),
        ("depth", "second_third", "second_third"),
    ],
)
def test_a_misspelled_pathway_is_found_in_the_table(tmp_path, key, value, words, capsys):
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table["rows"][2]["run"]["pathway"][key] = value
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(table))
    assert main(["check", "--config", str(TINY), "--set", f"tables=[{path}]"]) == 2
    assert words in capsys.readouterr().err


def test_a_metric_that_the_task_lacks_is_found_in_the_table(tmp_path, capsys):
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table["columns"][0]["metric"] = "top_1"
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(table))
    assert main(["check", "--config", str(TINY), "--set", f"tables=[{path}]"]) == 2
    assert "no metric 'top_1'; it has top1, top5" in capsys.readouterr().err


def test_loader_processes_and_rarer_checkpoints_make_no_other_result(tmp_path):
    config = read_yaml(TINY)
    recipe = read_yaml(Path(config["encoders"]["image"]["pretrain"]))
    recipe["training"] |= {"num_workers": 3, "checkpoint_every": 7}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    config["encoders"]["image"]["pretrain"] = str(path)
    before, after = Plan.load(TINY), Plan.load(TINY, {"encoders": config["encoders"]})
    assert before.encoder_digest("image") == after.encoder_digest("image")
    assert {name: run.digest for name, run in before.runs.items()} == {
        name: run.digest for name, run in after.runs.items()
    }
    training = after.encoder("image").recipe.training
    assert (training.num_workers, training.checkpoint_every) == (3, 7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--datasets", "no_such"],
            "--datasets no_such: the datasets of tests/tiny/config.yaml are imagenet",
        ),
        (["--encoders", "no_such"], "--encoders no_such: the encoders with file or source: dvc"),
        (["--encoders", "random"], "--encoders random: the encoders with file or source: dvc"),
    ],
)
def test_a_dataset_or_an_encoder_that_cannot_be_checked(capsys, words, said):
    assert main(["check", "--config", str(TINY), *words]) == 2
    assert said in capsys.readouterr().err


def test_every_file_of_an_encoder_that_does_not_fit_is_named(tmp_path, capsys):
    """A missing file, one of no known dialect, of another width, depth or modality: all in one run."""
    config, plan = read_yaml(TINY), Plan.load(TINY)

    def save(name, encoder, **sizes):
        architecture = plan.encoders[encoder].architecture.stored
        architecture = {**architecture, "backbone": {**architecture["backbone"], **sizes}}
        torch.save(to_exchange(build_body(architecture).state_dict()), tmp_path / name)

    save("wide.pth", "pointcloud", dim=32)
    save("deep.pth", "video", depth=2)
    save("photos.pth", "image")
    torch.save({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "resnet.pth")
    files = {"pointcloud": "wide", "video": "deep", "audio": "photos", "image": "resnet", "text": "gone"}
    for name, file in files.items():
        config["encoders"][name] = {"modality": name, "file": str(tmp_path / f"{file}.pth")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["check", "--config", str(tmp_path / "config.yaml"), "--encoders", *files]
    assert main(words) == 2
    head, *lines = capsys.readouterr().err.splitlines()
    assert head.endswith("cannot be run:") and len(lines) == len(files)
    for (name, file), line, words in zip(
        files.items(),
        lines,
        (
            "the encoder is 32 wide with 4 blocks, the model is 16 wide with 4 blocks; use",
            "the encoder is 16 wide with 2 blocks, the model is 16 wide with 4 blocks; use",
            "its tokenizer is of another modality, but targets of modality audio start with it; give",
            "its keys begin with conv1.weight, which match no known dialect",
            "cannot be read (No such file or directory); give the path of a readable file",
        ),
        strict=True,
    ):
        assert line.startswith(f"  encoder {name}: {tmp_path / file}.pth: {words}"), line


def test_files_that_were_not_read_are_named(check):
    def give(config):
        config["encoders"]["image"] = {"modality": "image", "file": "gone.pth"}

    code, said = check(give)
    assert code == 0
    assert "files of encoders were not read; check them too with: --encoders image\n" in said


def test_finetuned_weights_without_the_final_norm_cannot_start_a_target_that_has_it(tmp_path, capsys):
    config, plan = read_yaml(TINY), Plan.load(TINY)
    state = to_exchange(build_body(plan.encoders["image"].architecture.stored).state_dict())
    state = {
        key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: state[key] for key in state
    }
    torch.save(state, tmp_path / "finetuned.pth")
    config["encoders"]["image"] = {"modality": "image", "file": str(tmp_path / "finetuned.pth")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["check", "--config", str(tmp_path / "config.yaml"), "--encoders", "image"]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "finetuned.pth" in line]
    assert said.endswith(
        " start with one; give pretrained weights, or set norm: false in encoders.image, "
        "which leaves their cells empty"
    )
    needing = [run.name for run in plan.runs.values() if run.spec.recipe.starts_with_norm]
    assert any(name in said for name in needing)
    config["encoders"]["image"]["norm"] = False
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["check", "--config", str(tmp_path / "config.yaml"), "--encoders", "image"]) == 0


def test_what_was_imported_without_the_final_norm_starts_no_target_that_has_it(tmp_path, capsys):
    config, plan = read_yaml(TINY), Plan.load(TINY)
    state = to_exchange(build_body(plan.encoders["image"].architecture.stored).state_dict())
    torch.save(
        {key: value for key, value in state.items() if not key.startswith("norm.")}, tmp_path / "avg.pth"
    )
    config |= {"results": str(tmp_path / "results"), "claims": None, "figures": []}
    config["encoders"]["image"] = {"modality": "image", "file": str(tmp_path / "avg.pth")}
    table = read_yaml(TINY.with_name("table.yaml"))
    rows = [row for row in table["rows"] if row["method"] == "MAE"]
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({**table, "rows": rows}))
    few, all_cells = tmp_path / "few_config.yaml", tmp_path / "config.yaml"
    few.write_text(yaml.safe_dump({**config, "tables": [str(tmp_path / "few.yaml")]}))
    all_cells.write_text(yaml.safe_dump(config))
    assert main(["check", "--config", str(all_cells)]) == 0, "nothing is imported yet"
    assert main(["import", "image", "--config", str(few)]) == 0
    assert main(["check", "--config", str(few)]) == 0
    capsys.readouterr()
    assert main(["check", "--config", str(all_cells)]) == 2
    assert "avg.pth: has no final norm" in (said := capsys.readouterr().err)
    assert "set norm: false in encoders.image" in said
    (tmp_path / "avg.pth").unlink()
    assert main(["check", "--config", str(all_cells)]) == 2, "its file is not read"
    config["encoders"]["image"]["norm"] = False
    all_cells.write_text(yaml.safe_dump(config))
    assert main(["check", "--config", str(all_cells)]) == 0


def test_a_file_that_has_the_norm_is_not_said_to_lack_it(tmp_path, capsys):
    config, plan = read_yaml(TINY), Plan.load(TINY)
    state = to_exchange(build_body(plan.encoders["image"].architecture.stored).state_dict())
    torch.save(state, tmp_path / "whole.pth")
    config["encoders"]["image"] = {"modality": "image", "file": str(tmp_path / "whole.pth"), "norm": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["check", "--config", str(tmp_path / "config.yaml"), "--encoders", "image"]) == 2
    assert "whole.pth: has the final norm; leave norm: false out of encoders.image" in capsys.readouterr().err


def test_what_a_start_s_file_says_of_its_model_is_compared(tmp_path, capsys):
    config = read_yaml(TINY)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "intermediate_size": 32}
    vit = transformers.ViTConfig(**sizes, num_attention_heads=4, image_size=32, patch_size=8)
    transformers.ViTModel(vit).save_pretrained(tmp_path / "vit")
    for name in ("image", "text"):  # no target starts from a text model
        config["encoders"][name] = {"modality": name, "file": str(tmp_path / "vit" / "model.safetensors")}
    config["results"] = str(tmp_path / "results")
    path = tmp_path / "config.yaml"
    check = ["check", "--config", str(path), "--encoders", "image", "text"]
    path.write_text(yaml.safe_dump(config))
    assert main(check) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "encoder image" in line]
    assert "its model has 4 attention heads, but modality image has 2" in said
    assert said.endswith("set modalities.image.num_heads: 4")
    config["modalities"]["image"]["num_heads"] = 4
    for eps, count in ((1e-6, 1), (1e-12, 0)):
        config["modalities"]["image"]["norm_eps"] = eps
        path.write_text(yaml.safe_dump(config))
        assert main(check) == 0
        assert capsys.readouterr().out.count("norm_eps 1e-12 in its model, 1e-06 in modality image") == count
        assert main(["import", "image", "--config", str(path)]) == 0
        assert capsys.readouterr().out.count("norm_eps") == 2 * count


def test_another_default_of_the_norms_than_the_tokenizer_s_is_named(monkeypatch, capsys):
    monkeypatch.setattr(ImageTokenizer, "norm_eps", 1e-5)
    assert main(["check", "--config", str(TINY)]) == 2
    words = "the default of norm_eps is 1e-06 in m2pt.config.architecture:Image, but 1e-05 in its tokenizer"
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("heads", "code"), [(8, 0), (3, 2), (0, 2)])
def test_a_modality_may_have_its_own_number_of_heads(check, heads, code):
    found, said = check(lambda config: config["modalities"]["pointcloud"].update(num_heads=heads))
    assert found == code, said
    if heads == 3:
        assert "modalities.pointcloud.num_heads: backbone.dim 16 is not a multiple of 3" in said


@pytest.mark.parametrize(("policy", "code"), [("error", 2), ("skip", 0)])
def test_corrupt_training_samples_are_refused_unless_they_are_skipped(tmp_path, capsys, policy, code):
    LAYOUTS["imagenet"].build(tmp_path / "imagenet")
    (corrupt,) = LAYOUTS["imagenet"].damage(tmp_path / "imagenet", 3)
    config = read_yaml(TINY)
    config["datasets"]["imagenet"] = {
        "layout": "imagenet",
        "num_classes": 2,
        "root": str(tmp_path / "imagenet"),
        "corrupt_samples": policy,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["check", "--config", str(tmp_path / "config.yaml"), "--datasets", "imagenet"]) == code
    assert (str(corrupt) in capsys.readouterr().err) == (policy == "error")


def test_a_model_that_cannot_checkpoint_its_activations_is_named(tmp_path, capsys):
    training = {"epochs": 1, "batch_size": 8, "optimizer": "sgd", "lr": 0.05}
    training["activation_checkpointing"] = True
    config = write_config(tmp_path, {"joint": {"method": "joint"}}, training=training)
    assert main(["check", "--config", str(config)]) == 2
    assert ": activation_checkpointing: Joint has no set_grad_checkpointing()" in capsys.readouterr().err


def test_all_unknown_names_are_refused_at_once(capsys):
    words = ["--datasets", "no_such", "--encoders", "random", "neither"]
    assert main(["check", "--config", str(TINY), *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": the ")[0].rpartition(" ")[2] for line in said] == [
        "no_such",
        "random",
        "neither",
    ]


def test_faulty_claims_are_named_unless_the_tables_are_others(tmp_path, capsys):
    claims = "claims: [{claim: x, source: y, comparisons: [{gain: 'a:b:c'}]}]"
    (tmp_path / "claims.yaml").write_text(claims)
    options = ["--config", str(TINY), "--set", f"claims={tmp_path / 'claims.yaml'}"]
    assert main(["check", *options]) == 2
    assert f"{tmp_path / 'claims.yaml'}: a:b:c: no table 'a'" in capsys.readouterr().err
    assert main(["check", *options, "--set", "tables=[tests/tiny/table.yaml]", "--set", "figures=[]"]) == 0
