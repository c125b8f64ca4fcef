"""The classifier of a run and its method, for every method of the catalog; what its encoders see."""

import numpy as np
import pytest
import soundfile
import torch
from multimodal_config import METHODS, write_config
from PIL import Image

from m2pt import catalog
from m2pt.datasets import cremad
from m2pt.errors import InputError
from m2pt.models.multimodal import build_multimodal
from m2pt.multimodal import build_classifier, build_method, sample_shapes
from m2pt.plan.plan import Plan


@pytest.mark.parametrize("method", METHODS)
def test_each_method_of_the_catalog_is_built(tmp_path, method):
    (run,) = Plan.load(write_config(tmp_path, {method: {"method": method}})).runs.values()
    assert sample_shapes(run.spec) == {"audio": (1, 16, 16), "image": (1, 28, 28)}
    built = build_method(run, build_classifier(run.spec), 0)
    inputs = {name: torch.randn(4, *shape) for name, shape in sample_shapes(run.spec).items()}
    built.loss(inputs, torch.tensor([0, 1, 2, 3])).backward()
    assert built.modalities == ("audio", "image")
    assert all(parameter.grad is not None for parameter in built.model.parameters())


def test_the_noise_of_ogm_ge_depends_on_the_seed_of_the_run(tmp_path):
    from m2pt import build

    (run,) = Plan.load(write_config(tmp_path, {"x": {"method": "ogm_ge"}})).runs.values()
    seeds = [build.run_model(run, lambda _: None, seed=seed).seed for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


def seen_by_tokenizer(classifier, inputs):
    """Return what the tokenizer of the audio transformer is given."""
    seen = []
    classifier.encoders["audio"].tokenizer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    classifier.encode("audio", inputs)
    return seen[0]


def write_tone(root, hertz, rate):
    """Write a CREMA-D of one clip in the test list: a constant tone and a gray frame."""
    for folder in ("CREMAD", "Audio", "Image-01-FPS/tone"):
        (root / folder).mkdir(parents=True)
    (root / cremad.LISTS["test"]).write_text("tone,ANG\n")
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    soundfile.write(root / "Audio/tone.wav", wave, rate, subtype="PCM_16")
    Image.new("RGB", (20, 20), "gray").save(root / "Image-01-FPS/tone/1.jpg")


def test_a_tone_is_a_line_along_time_for_the_tokenizer_and_the_resnet_sees_what_is_read(tmp_path):
    input = {"image_size": 16, "sample_rate": 8000, "seconds": 0.4, "n_fft": 128, "hop": 80}
    write_tone(tmp_path, 1000, 8000)
    audio = cremad.Reader(tmp_path, "test", num_classes=6, **input)[0][0]["audio"][None]
    assert audio.shape == (1, 1, 65, 41)  # 65 frequencies of 62.5 Hz each, 41 windows
    architecture = {
        "modality": "audio",
        "input": {"frames": 41, "mel_bins": 65},
        "tokenizer": {"patch_size": 8, "stride": 5},
        "backbone": {"dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0},
    }
    model = {"encoders": {"audio": {"kind": "transformer"}}, "fusion": {"kind": "concat"}}
    built = build_multimodal(
        model,
        num_classes=6,
        shapes={"audio": audio.shape[1:]},
        architectures={"audio": architecture},
        transposed=catalog.layout("cremad").transposed,
    )
    plane = seen_by_tokenizer(built, audio)[0, 0]
    assert plane.shape == (41, 65)  # (frames, mel bins), as the audio tokenizer takes them
    assert set(plane[2:-2].argmax(dim=1).tolist()) == {16}  # 1000 Hz in every frame
    assert plane[2:-2].std(dim=0).max() < 1 < plane[2:-2].std(dim=1).min()
    resnet = build_multimodal(
        model | {"encoders": {"audio": {"kind": "resnet18", "width": 4}}},
        num_classes=6,
        shapes={"audio": audio.shape[1:]},
        transposed=catalog.layout("cremad").transposed,
    )
    seen = []
    resnet.encoders["audio"].conv1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    resnet.encode("audio", audio)
    assert torch.equal(seen[0], audio)


@pytest.mark.parametrize("layout", ["avmnist", "cremad"])
def test_an_audio_transformer_of_a_run_is_built_for_the_frequencies_and_windows_that_are_read(
    tmp_path, layout
):
    input = {"avmnist": {"image_size": 28, "audio_size": 16}, "cremad": {"n_fft": 64, "hop": 1000}}[layout]
    frames, bins = {"avmnist": (16, 16), "cremad": (67, 33)}[layout]
    encoders = {"audio": {"kind": "transformer"}, "image": {"kind": "resnet18", "width": 4}}
    config = write_config(
        tmp_path,
        {"x": {"method": "joint"}},
        layout=layout,
        input=input,
        model={"encoders": encoders, "fusion": {"kind": "concat"}},
        architecture={"audio": {"input": {"frames": frames, "mel_bins": bins}}},
    )
    (run,) = Plan.load(config).runs.values()
    shapes = sample_shapes(run.spec)
    given = torch.randn(1, *shapes["audio"])
    assert torch.equal(seen_by_tokenizer(build_classifier(run.spec), given), given.mT)


def test_sides_that_fit_only_when_swapped_are_refused(tmp_path):
    encoders = {"audio": {"kind": "transformer"}, "image": {"kind": "resnet18", "width": 4}}
    config = write_config(
        tmp_path,
        {"x": {"method": "joint"}},
        layout="cremad",
        input={"n_fft": 64, "hop": 1000},
        model={"encoders": encoders, "fusion": {"kind": "concat"}},
        architecture={"audio": {"input": {"frames": 33, "mel_bins": 67}}},
    )
    (run,) = Plan.load(config).runs.values()
    words = "sides 67 x 33, but its encoder transformer has frames: 33, mel_bins: 67; give the sample"
    with pytest.raises(InputError, match=words):
        build_classifier(run.spec)


@pytest.mark.parametrize("name", ["text", "audio", "video"])
def test_a_stream_of_vectors_takes_no_transformer(tmp_path, name):
    sequence = {"kind": "sequence", "dim": 8, "depth": 1, "num_heads": 2}
    encoders = dict.fromkeys(("text", "audio", "video"), sequence)
    config = write_config(
        tmp_path,
        {"x": {"method": "joint"}},
        layout="urfunny",
        input={},
        model={"encoders": encoders | {name: {"kind": "transformer"}}, "fusion": {"kind": "concat"}},
    )
    (run,) = Plan.load(config).runs.values()
    with pytest.raises(
        InputError, match=f"model.encoders.{name}: dataset urfunny has .* give kind: sequence"
    ):
        build_classifier(run.spec)
