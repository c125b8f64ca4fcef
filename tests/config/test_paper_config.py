"""The config of the paper's scale, against numbers that the papers and official scripts state.

It must load with no data on disk; the sizes are those of models built without memory (torch's meta device).
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from m2pt import build, pathway
from m2pt.agm.modulation import PRESETS
from m2pt.catalog import LAYOUTS
from m2pt.config.config import config_class
from m2pt.errors import InputError
from m2pt.models.masked_autoencoder import build_masked_autoencoder
from m2pt.plan.plan import Plan
from m2pt.plan.rules import Rules
from m2pt.plan.runs import cells
from m2pt.training.optimizer import create_optimizer, parameter_groups
from m2pt.training.settings import TrainingSettings

PATH = Path("config/paper.yaml")
RECIPES = Path("config/recipes/paper")


@pytest.fixture(scope="module")
def plan():
    return Plan.load(PATH)


def settings(recipe):
    return TrainingSettings(**yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["training"])


def runs(plan, **factors):
    return [
        run
        for run in plan.runs.values()
        if all(getattr(run.experiment, name) == value for name, value in factors.items())
    ]


@pytest.mark.parametrize(
    ("recipe", "batch", "lr", "length"),
    [
        ("pretrain_image", 4096, 2.4e-3, 1600),
        ("pretrain_video", 2048, 1.2e-3, 800),
        ("pretrain_video_k400", 2048, 1.2e-3, 1600),
        ("pretrain_audio", 512, 4e-4, 33),
        ("pretrain_pointcloud", 128, 1e-3, 300),
        ("imagenet_tune", 1024, 2e-3, 100),
        ("imagenet_fix", 16384, 6.4, 90),
        ("imagenet_scratch_tune", 1024, 1e-3, 300),
        ("audioset_tune", 32, 1.25e-4, 60),
        ("audioset_scratch_tune", 32, 1.25e-4, 60),
        ("shapenetpart_tune", 16, 2e-4, 300),
        ("shapenetpart_scratch_tune", 16, 2e-4, 300),
        ("partnet_tune", 16, 2e-4, 300),
        ("coco", 64, 1e-4, 184_375),
        ("ade20k", 16, 1e-4, 160_000),
    ],
)
def test_effective_batch_learning_rate_and_length_are_the_published_ones(recipe, batch, lr, length):
    found = settings(recipe)
    assert found.effective_batch() == batch
    assert found.peak_lr() == pytest.approx(lr)
    assert (found.epochs or found.steps) == length


def test_every_recipe_of_the_folder_is_used_and_no_other():
    named = PATH.read_text().split("config/recipes/")[1:]
    assert {Path(text.split()[0].rstrip("},")).name for text in named} == {p.name for p in RECIPES.iterdir()}
    assert all(text.startswith("paper/") for text in named)


def test_nothing_of_the_default_config_shows_through(plan):
    in_file = yaml.safe_load(PATH.read_text())
    assert set(in_file) == set(config_class().model_fields)
    assert not any(dataset.miniature for dataset in plan.config.datasets.values())
    rules = Rules([str(PATH)], in_file)
    assert rules.plan.config == plan.config
    assert "--set" not in rules.arguments(None, None)
    with pytest.raises(InputError, match="one --configfile"):
        Rules(["config/config.yaml", str(PATH)], in_file)


def test_datasets_have_the_official_numbers_of_classes_and_lie_where_the_user_says(plan):
    found = {
        name: dataset.num_classes for name, dataset in plan.config.datasets.items() if dataset.num_classes
    }
    assert found == {
        "imagenet": 1000,
        "coco": 80,
        "ade20k": 150,
        "kinetics": 400,
        "avmnist": 10,
        "cremad": 6,
        "urfunny": 2,
        "kinetics700": 700,
        "audioset": 527,
        "audioset2m": 527,
        "shapenet55": 55,
        "shapenetpart": 50,
        "text": 256,
    }
    assert plan.config.datasets["partnet"].subsets == LAYOUTS["partnet"].num_classes
    assert all(not plan.root(name).is_absolute() for name in plan.config.datasets)


def test_the_jobs_are_those_of_table_1(tmp_path):
    """8 models tuned and fixed, a shuffled one tuned; 4 and random weights on 2 dense tasks; 3 seeds.

    The random auxiliary is drawn once for each seed.
    """
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "12"]
    target = str(tmp_path / "results/table1.csv")
    options = [target, "--configfile", str(PATH), "--config", f"results={tmp_path / 'results'}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    counts = {}
    for line in (done.stdout + done.stderr).splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit():
            counts[words[0]] = int(words[1])
    assert counts.pop("total") == sum(counts.values())
    assert {name: counts.get(name) for name in ("finetune", "merge", "evaluate")} == {
        "finetune": 51,
        "merge": 51,
        "evaluate": 51,
    }
    assert (counts["transfer"], counts["pretrain_encoder"], counts["import_encoder"]) == (30, 4, 3)
    assert counts["check_dataset"] == 6
    assert "build_miniature" not in counts


def test_an_attached_vit_b_has_the_official_number_of_parameters_and_48_scales(plan):
    names = {
        run.name
        for row, column in cells(plan.table("table1"))
        for run in plan.cell_runs("table1", row, column)
    }
    attached = [
        run for run in runs(plan, task="classification") if run.experiment.auxiliaries and run.name in names
    ]
    assert (
        len(attached) == 13
    )  # of 8 models tuned and fixed, MAE and ViT have no pathway; a shuffled one tuned
    for run in attached:
        with torch.device("meta"):
            model = build.target_model(run.spec)
            assert sum(p.numel() for p in model.parameters()) == 86_567_656  # timm's vit_base_patch16_224
            build.attach_placeholders(model, run)
        assert sum(p.numel() for p in model.parameters()) == 171_502_360
        assert sum(pathway.is_scale(name) for name, _ in model.named_parameters()) == 48


@pytest.mark.parametrize(
    ("encoder", "visible", "masked", "decoder_depth"),
    [("image", 49, 147, 8), ("video", 160, 1408, 4), ("audio", 102, 410, 16), ("pointcloud", 26, 38, 4)],
)
def test_the_masked_autoencoders_see_as_many_tokens_as_the_official_ones(
    plan, encoder, visible, masked, decoder_depth
):
    spec = plan.encoders[encoder].stored
    recipe = spec["recipe"]
    with torch.device("meta"):
        model = build_masked_autoencoder(
            **spec["architecture"],
            decoder=recipe["decoder"],
            mask_ratio=recipe["mask_ratio"],
            drop_path=recipe["drop_path"],
        )
    seen, hidden = model.encoder.tokenizer.draw_mask(1, model.mask_ratio, torch.device("cpu"))
    assert (seen.shape[1], hidden.shape[1]) == (visible, masked)
    assert len(model.decoder.blocks) == decoder_depth
    assert len(model.encoder.blocks) * len(("qkv", "proj", "fc1", "fc2")) == 48


@pytest.mark.parametrize(
    ("task", "grid", "decay"),
    [("detection", (64, 64), 0.7), ("semantic_segmentation", (32, 32), 0.65)],
)
def test_the_dense_models_can_be_built_and_train_the_whole_backbone(plan, task, grid, decay):
    run = runs(plan, task=task, target_init="image")[0]
    recipe = run.spec.stored["recipe"]
    with torch.device("meta"):
        encoder = build.dense_backbone(run.spec)
        model = build.dense_model(run.spec, encoder)
    assert encoder.tokenizer.grid == grid
    assert all(parameter.requires_grad for parameter in encoder.blocks.parameters())
    scales = [group["lr_scale"] for group in parameter_groups(model, TrainingSettings(**recipe["training"]))]
    assert min(scales) == pytest.approx(decay**13)  # 12 blocks and the embeddings below them
    assert max(scales) == 1


def test_linear_probing_gives_lars_the_classifier_and_the_scales_their_own_learning_rate(plan):
    """The released code leaves the 48 scales out; MAE's LARS has trust coefficient 0.001 and momentum 0.9."""
    run = next(run for run in runs(plan, task="classification", mode="fix") if run.experiment.auxiliaries)
    with torch.device("meta"):
        model = build.target_model(run.spec)
        build.attach_placeholders(model, run)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(pathway.is_scale(name) or name.startswith("head."))
    chosen = TrainingSettings(**run.spec.stored["recipe"]["training"])
    groups = create_optimizer(model, chosen).param_groups
    sizes = {
        (group["lr"], group["always_adapt"]): sum(p.numel() for p in group["params"]) for group in groups
    }
    assert sizes == {(6.4, True): 768_000, (6.4, False): 1000, (chosen.scale_lr, False): 48}
    assert all((group["momentum"], group["trust_coeff"]) == (0.9, 0.001) for group in groups)
    assert all(group["weight_decay"] == 0 for group in groups)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_the_presets_of_agm_are_those_of_the_recipes(name, fusion):
    preset = PRESETS[name]
    layout = name.replace("-", "").lower()
    recipe = yaml.safe_load((RECIPES / f"{layout}_{fusion}.yaml").read_text())
    agm = recipe["methods"]["agm"]
    alpha = agm.pop("alpha")
    assert alpha == preset.alpha.get(fusion, preset.alpha["late"])  # an unknown one is that of late fusion
    limits = {"cap": preset.cap, "probability_floor": preset.probability_floor}
    assert agm == {key: value for key, value in limits.items() if value is not None}
    assert recipe["head_clip"] == preset.clip_limit
