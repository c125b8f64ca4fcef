"""Settings of joint training: what a recipe, a row and a config may say, and what reruns what."""

import pytest
import yaml
from multimodal_config import METHODS, write_config

from m2pt import catalog
from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan

AGM = {"agm": {"method": "agm"}}


def test_the_methods_that_tests_train_are_those_of_the_catalog():
    assert set(METHODS) == set(catalog.METHODS)


def said(capsys, config):
    capsys.readouterr()
    assert main(["check", "--config", str(config)]) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("rows", "recipe", "words"),
    [
        ({"x": {"method": "agn"}}, {}, "there is no method 'agn'; did you mean 'agm'?"),
        ({"x": {"method": "joint", "alpha": 1.0}}, {}, "method joint takes no alpha"),
        ({"x": {"method": "agm", "alpha": -1}}, {}, "alpha = -1: must be >= 0"),
        ({"x": {"method": "joint", "modalities": ["video"]}}, {}, "avmnist has no modality 'video'; it has"),
        (
            {"x": {"method": "agm", "modalities": ["audio"]}},
            {},
            "methods.agm: AdaptiveGradientModulation needs at least 2 modalities, got ['audio']: train a "
            "model of one modality with Joint",
        ),
        (AGM, {"methods": {"joint": {}}}, "methods: agm is missing; this recipe has joint"),
        (AGM, {"methods": {"agm": {"alpha": 1, "cop": 2}}}, "methods.agm.cop: unknown key; did you mean"),
        (AGM, {"methods": {"agm": {"alpha": ".nan"}}}, "methods.agm.alpha"),
        (AGM, {"methods": {"amg": {}}}, "methods.amg: unknown key; did you mean 'agm'?"),
        (AGM, {"head_clip": 0}, "head_clip = 0: must be > 0"),
        (AGM, {"input": {"audio_size": 0}}, "input.audio_size = 0: must be >= 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, capsys, rows, recipe, words):
    assert words in said(capsys, write_config(tmp_path, rows, **recipe))


@pytest.mark.parametrize(
    ("method", "settings", "fault"),
    [
        ("agm", {"alpha": 1, "window": [3, None]}, "window: has no effect, since it needs 3 epochs"),
        ("agm", {"alpha": 1, "window": [1, 9]}, "window: has no effect, since it needs 9 epochs"),
        ("ogm", {"alpha": 1, "first_epoch": 4}, "first_epoch: has no effect, since it needs 4 epochs"),
        ("ogm_ge", {"alpha": 1, "last_epoch": 3}, "last_epoch: has no effect, since it needs 3 epochs"),
        ("mslr", METHODS["mslr"] | {"memory": 2}, "memory: has no effect, since it needs 3 epochs"),
        ("mses", {"patience": 2}, "patience: has no effect, since it needs 3 epochs"),
        ("gradient_blending", {"super_epoch": 2}, "super_epoch: has no effect, since it needs 3 epochs"),
    ],
)
def test_epochs_that_a_training_never_reaches_are_refused(tmp_path, capsys, method, settings, fault):
    methods = METHODS | {method: settings}
    text = said(capsys, write_config(tmp_path / "a", {"x": {"method": method}}, methods=methods))
    end = "and training.epochs = 2; lower it, or train for longer."
    assert f"recipe.yaml: methods.{method}.{fault} {end}" in text
    Plan.load(write_config(tmp_path / "b", {"x": {"method": "joint"}}, methods=methods))


def test_the_last_epochs_that_a_training_reaches_are_taken(tmp_path):
    methods = METHODS | {
        "agm": {"alpha": 1, "window": [2, 2]},
        "ogm": {"alpha": 1, "first_epoch": 2, "last_epoch": 2},
        "mslr": METHODS["mslr"] | {"memory": 5, "strategy": "keep"},
    }
    assert len(Plan.load(write_config(tmp_path, methods=methods)).runs) == len(METHODS)


@pytest.mark.parametrize(
    ("balancing", "metric", "words"),
    [
        (
            {"method": "agm"},
            "top1_video",
            "run reads audio and image, so it has top1_audio, top1_image; leave",
        ),
        ({"method": "joint", "modalities": ["audio"]}, "top1_audio", "no response of a modality; leave"),
        ({"method": "joint", "modalities": ["audio"]}, "top1_image", "no response of a modality; leave"),
    ],
)
def test_a_metric_that_a_run_cannot_have_is_named_before_it(tmp_path, capsys, balancing, metric, words):
    config = write_config(tmp_path, {"x": balancing})
    table = read_yaml(tmp_path / "table.yaml")
    table["columns"] = [table["columns"][0] | {"metric": metric}]
    table["rows"][0]["columns"] = ["all"]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    text = said(capsys, config)
    assert f"metric {metric}: the " in text and words in text


def test_encoders_must_be_those_of_the_dataset(tmp_path, capsys):
    model = {"encoders": {"audio": {"kind": "resnet18"}}, "fusion": {"kind": "concat"}}
    text = said(capsys, write_config(tmp_path, AGM, model=model))
    assert "model.encoders: audio; the dataset has audio, image" in text


def test_an_encoder_that_a_row_starts_from_is_one_of_the_config(tmp_path, capsys):
    rows = {"x": {"method": "agm", "encoders": {"image": "none"}}}
    assert "no encoder 'none'" in said(capsys, write_config(tmp_path, rows))


def test_only_a_transformer_starts_from_an_encoder(tmp_path, capsys):
    path = write_config(tmp_path, {"x": {"method": "agm", "encoders": {"image": "vit"}}})
    config = read_yaml(path)
    config["encoders"] = {"vit": {"modality": "image", "random": True}}
    path.write_text(yaml.safe_dump(config))
    fault = "recipe.yaml: model.encoders.image: only a transformer can start from an encoder."
    assert fault in said(capsys, path)


def test_settings_of_another_method_do_not_rerun_a_run(tmp_path):
    config = write_config(tmp_path, AGM)
    (before,) = Plan.load(config).runs.values()
    changed = METHODS | {"ogm": {"alpha": 2.0}, "agm": METHODS["agm"]}
    (same,) = Plan.load(write_config(tmp_path, AGM, methods=changed)).runs.values()
    changed = METHODS | {"agm": {"alpha": 2.0}}
    (other,) = Plan.load(write_config(tmp_path, AGM, methods=changed)).runs.values()
    assert before.digest == same.digest != other.digest


def test_a_row_may_replace_alpha(tmp_path):
    config = write_config(tmp_path, {"a": {"method": "agm"}, "b": {"method": "agm", "alpha": 9.0}})
    alphas = [run.spec.recipe.methods["agm"].alpha for run in Plan.load(config).runs.values()]
    assert alphas == [1.5, 9.0]


def test_rows_of_pathways_and_of_methods_do_not_mix(tmp_path, capsys):
    config = write_config(tmp_path, AGM)
    table = (tmp_path / "table.yaml").read_text()
    (tmp_path / "table.yaml").write_text(table.replace("    balancing:\n      method: agm\n", ""))
    assert "column all: the task is trained with a method: give the row balancing" in said(capsys, config)


TRANSFORMER = {
    "encoders": {"audio": {"kind": "resnet18", "width": 4}, "image": {"kind": "transformer"}},
    "fusion": {"kind": "concat"},
}


def test_an_encoder_for_planes_of_another_size_is_named(tmp_path, capsys):
    architecture = {"image": {"input": {"image_size": 56}}}
    text = said(capsys, write_config(tmp_path, AGM, model=TRANSFORMER, architecture=architecture))
    assert "a sample has the sides 28 x 28, but its encoder transformer has image_size: 56; give" in text


def test_a_batch_that_batch_norms_cannot_normalize_is_named(tmp_path, capsys):
    training = {"epochs": 2, "batch_size": 1, "lr": 0.05}
    text = said(capsys, write_config(tmp_path, AGM, training=training))
    assert "training.batch_size = 1: the model has batch norms" in text and "give 2 or more" in text


def test_what_replaces_settings_of_a_modality_is_checked(tmp_path, capsys):
    architecture = {"image": {"input": {"image_side": 28}}}
    text = said(capsys, write_config(tmp_path, AGM, model=TRANSFORMER, architecture=architecture))
    assert "architecture.image: input.image_side: unknown key; did you mean 'image_size'?" in text


def test_modalities_in_another_order_or_all_of_them_are_the_same_run(tmp_path):
    rows = {"a": {"method": "agm"}, "b": {"method": "agm", "modalities": ["image", "audio"]}}
    assert len(Plan.load(write_config(tmp_path, rows)).runs) == 1


def test_an_alpha_that_a_row_repeats_from_the_recipe_makes_no_other_run(tmp_path):
    alpha = METHODS["agm"]["alpha"]
    rows = {
        "x": {"method": "agm"},
        "y": {"method": "agm", "alpha": alpha},
        "z": {"method": "agm", "alpha": 9.0},
    }
    plan = Plan.load(write_config(tmp_path, rows))
    assert sorted(run.spec.recipe.methods["agm"].alpha for run in plan.runs.values()) == [alpha, 9.0]


def test_official_gives_the_others_the_released_head_and_no_clipping(tmp_path):
    rows = {name: {"method": name} for name in ("joint", "agm", "ogm")}
    rows["alone"] = {"method": "joint", "modalities": ["image"]}
    model = {"encoders": {name: {"kind": "resnet18", "width": 4} for name in ("audio", "image")}}

    def chosen(name, **recipe):
        plan = Plan.load(write_config(tmp_path / name, rows, **recipe))
        factors = {name: run.experiment.balancing for name, run in plan.runs.items()}
        names = {name: "alone" if each.modalities else each.method for name, each in factors.items()}
        recipes = {names[name]: run.spec.recipe for name, run in plan.runs.items()}
        return {method: (each.model.fusion.kind, each.head_clip) for method, each in recipes.items()}

    equal = dict.fromkeys(rows, ("concat", 1.0))
    assert chosen("ours") == chosen("not", official=False) == equal
    late = equal | {"joint": ("sum", None), "ogm": ("sum", None), "alone": ("concat", None)}
    assert chosen("late", official=True) == late
    early = chosen(
        "early", official=True, model=model | {"fusion": {"kind": "maxout", "hidden_dims": [8, 8]}}
    )
    assert early == dict.fromkeys(rows, ("maxout", 1.0)) | {"alone": ("maxout", None)}


def test_equal_terms_are_stored_as_ever(tmp_path):
    for name, official in (("a", {}), ("b", {"official": False})):
        (run,) = Plan.load(write_config(tmp_path / name, AGM, **official)).runs.values()
        assert "official" not in run.spec.stored["recipe"]
