"""Weights of other people: what cannot serve as weights is refused with its key, in bounded memory."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from timm.models import ConvNeXt
from torch import Tensor

from m2pt.commands import main
from m2pt.errors import InputError
from m2pt.formats.weights import load_weights
from m2pt.models.bodies import build_body
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.transformer import Encoder

KEY = "blocks.1.mlp.fc1.weight"
ARCHITECTURE = {
    "modality": "image",
    "input": {"image_size": 16},
    "tokenizer": {"patch_size": 4},
    "backbone": {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0},
}


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return build_body(ARCHITECTURE)  # type: ignore[return-value]


@pytest.fixture
def state(encoder: Encoder) -> dict[str, Tensor]:
    return to_exchange(encoder.state_dict())


@pytest.fixture(autouse=True)
def prototypes_without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def with_value(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.detach().to(dtype).clone()
        changed[3, 5] = value
        return changed

    return change


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (with_value(float("nan")), "not finite"),
    "infinity": (with_value(float("inf")), "not finite"),
    "minus infinity": (with_value(float("-inf")), "not finite"),
    "NaN in float16": (with_value(float("nan"), torch.float16), "not finite"),
    "infinity in bfloat16": (with_value(float("inf"), torch.bfloat16), "not finite"),
    "a number beyond float32": (with_value(1e300, torch.float64), "not finite"),
    **{
        str(dtype): (lambda tensor, dtype=dtype: tensor.to(dtype), f"{str(dtype)[6:]}, not a real number")
        for dtype in (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
    },
    "complex": (lambda tensor: tensor.to(torch.complex64), "complex64, not a real number"),
    "float8": (lambda tensor: tensor.to(torch.float8_e4m3fn), "float8_e4m3fn, not a real number"),
    "sparse": (lambda tensor: tensor.to_sparse(), "sparse"),
    "compressed sparse": (lambda tensor: tensor.to_sparse_csr(), "sparse"),
    "quantized": (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.quint8), "quantized"),
    "meta": (lambda tensor: tensor.to("meta"), "without content"),
    "nested": (lambda tensor: torch.nested.nested_tensor(list(tensor.unbind())), "nested"),
    "one number repeated": (lambda tensor: torch.ones(1).expand(tensor.shape), "less content"),
    "one number repeated a trillion times": (lambda tensor: torch.ones(1).expand(10**12), "less content"),
    "a row repeated": (lambda tensor: tensor[0].clone().expand(tensor.shape), "less content"),
    "a scalar": (lambda tensor: torch.tensor(1.0), r"has shape \(\)"),
    "nothing": (lambda tensor: torch.zeros(0), r"has shape \(0,\)"),
    "another shape": (lambda tensor: tensor.T.contiguous(), "has shape"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_weights_is_refused_with_its_key(
    tmp_path: Path, encoder: Encoder, state: dict[str, Tensor], kind: str
) -> None:
    change, words = REFUSED[kind]
    torch.save({"model": state | {KEY: change(state[KEY].detach())}}, tmp_path / "given.pth")
    given, _ = load_weights(tmp_path / "given.pth")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(InputError, match=rf"^given: {KEY} .*{words}"):
        load_exchange(encoder, given, parts=("blocks",), source="given")
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    "key", ["blocks.0.norm1.weight", "pos_embed", "patch_embed.proj.weight", "cls_token"]
)
@pytest.mark.parametrize("odd", [torch.tensor(1.0), torch.zeros(0), torch.zeros(3), torch.zeros(1, 0, 16)])
def test_odd_shapes_of_what_the_model_is_measured_by(
    encoder: Encoder, state: dict[str, Tensor], key: str, odd: Tensor
) -> None:
    with pytest.raises(InputError):
        load_exchange(encoder, state | {key: odd}, parts=("tokenizer", "blocks"))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.half(),
        lambda tensor: tensor.bfloat16(),
        lambda tensor: tensor.double(),
        lambda tensor: torch.nn.Parameter(tensor.detach()),
        lambda tensor: tensor.T.contiguous().T,
        lambda tensor: torch.cat([tensor, tensor])[len(tensor) :],
    ],
)
def test_what_official_files_hold_is_taken(
    tmp_path: Path, encoder: Encoder, state: dict[str, Tensor], change: Callable[[Tensor], Tensor]
) -> None:
    unused = {"head.weight": torch.full((2, 2), torch.nan), "decoder_steps": torch.tensor(3)}
    changed = {key: change(value) if value.ndim == 2 else value for key, value in state.items()}
    torch.save({"model": changed | unused}, tmp_path / "given.pth")
    given, _ = load_weights(tmp_path / "given.pth")
    fresh = build_body(ARCHITECTURE)
    load_exchange(fresh, given, parts=("blocks",))
    for key, value in to_exchange(fresh.state_dict()).items():
        if key.startswith("blocks."):
            assert torch.equal(value, changed[key].float())


def test_tied_tensors_are_taken(tmp_path: Path, encoder: Encoder, state: dict[str, Tensor]) -> None:
    state["blocks.1.norm1.weight"] = state["blocks.0.norm1.weight"]
    torch.save(state, tmp_path / "given.pt")
    load_exchange(build_body(ARCHITECTURE), load_weights(tmp_path / "given.pt")[0], parts=("blocks",))


def test_counts_of_a_batch_norm_stay_whole_numbers(tmp_path: Path) -> None:
    architecture = ARCHITECTURE | {
        "modality": "pointcloud",
        "input": {"points": 40},
        "tokenizer": {"groups": 5, "group_size": 8, "hidden": 4},
    }
    model = build_body(architecture)
    state = to_exchange(model.state_dict())
    counts = [key for key in state if key.endswith("num_batches_tracked")]
    assert counts
    load_exchange(model, state)
    with pytest.raises(InputError, match=rf"{counts[0]} is float32, not a whole number"):
        load_exchange(model, state | {counts[0]: torch.tensor(1.0)})


@pytest.mark.parametrize(
    ("odd", "is_"),
    [
        (torch.ones(2, 2, dtype=torch.complex64), "complex64"),
        (torch.ones(2, 2, dtype=torch.int32), "int32"),
        (torch.ones(2, 2, dtype=torch.bool), "bool"),
    ],
)
def test_what_cannot_be_weights_is_not_merged(tmp_path: Path, capsys, odd: Tensor, is_: str) -> None:
    torch.save({KEY: odd}, tmp_path / "attached.pth")
    assert main(["merge", str(tmp_path / "attached.pth"), str(tmp_path / "merged.safetensors")]) == 2
    assert f"attached.pth: {KEY} is {is_}, not a real number" in capsys.readouterr().err
    assert not (tmp_path / "merged.safetensors").exists()


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from timm.models import ConvNeXt
from m2pt.commands import main
limit = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (limit + 2**31, limit + 2**31))
sys.exit(main(["merge", *sys.argv[1:]]))
"""


def test_merging_repeats_no_number_a_trillion_times(tmp_path: Path) -> None:
    torch.save({KEY: torch.ones(1).expand(10**12)}, tmp_path / "attached.pth")
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(tmp_path / "attached.pth"),
        str(tmp_path / "merged.safetensors"),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert f"attached.pth: {KEY} is of shape (1000000000000,), but has less content" in run.stderr


@pytest.fixture
def mae(encoder: Encoder, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A pretraining checkpoint of MAE, distributed and compiled."""
    decoder = {"decoder_blocks.0.mlp.fc1.weight": torch.zeros(4, 4), "mask_token": torch.zeros(1, 1, 4)}
    return {f"module._orig_mod.{key}": value for key, value in {**state, **decoder}.items()}


def test_a_published_file_is_converted_and_accounted_for(
    tmp_path: Path, capsys, mae: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    torch.save({"model_ema": {"x": torch.zeros(1)}, "model": mae, "epoch": 3}, tmp_path / "mae.pth.tar")
    command = [
        "import",
        str(tmp_path / "mae.pth.tar"),
        "--modality",
        "image",
        "-o",
        str(tmp_path / "out.safetensors"),
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    for words in (
        "dialect   MAE (pretraining)",
        "prefix    module._orig_mod. (removed)",
        f"mapped    {len(state)} tensors",
        "left out  decoder of the pretraining (2 tensors)",
        "blocks    2 of width 16",
        "beside    model_ema: other weights in the file, not taken",
    ):
        assert words in said
    written, metadata = load_weights(tmp_path / "out.safetensors")
    assert metadata == {"dialect": "MAE (pretraining)", "modality": "image"}
    assert written.keys() == state.keys() and all(torch.equal(written[key], state[key]) for key in state)


def test_what_transformers_says_of_the_model_is_said_and_kept(tmp_path: Path, capsys) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, image_size=16
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "hf")
    for modality in ("image", "pointcloud"):
        target = tmp_path / f"{modality}.safetensors"
        file = str(tmp_path / "hf" / "model.safetensors")
        assert main(["import", file, "--modality", modality, "-o", str(target)]) == 0
        metadata = load_weights(target)[1]
        assert {"num_heads": "4", "norm_eps": "1e-12", "activation": "gelu"}.items() <= metadata.items()
        assert "its model  num_heads 4, norm_eps 1e-12, activation gelu" in capsys.readouterr().out


def test_the_entry_that_was_taken_is_said(tmp_path: Path, capsys, state: dict[str, Tensor]) -> None:
    for entry in ("state_dict_ema", "module"):
        torch.save({entry: state}, tmp_path / "a.pth")
        words = ["import", str(tmp_path / "a.pth"), "--modality", "image", "-o"]
        assert main([*words, str(tmp_path / "a.safetensors")]) == 0
        assert f"entry    {entry}\n" in capsys.readouterr().out


def test_a_tokenizer_of_another_modality_is_left_out(
    tmp_path: Path, capsys, state: dict[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "audio.pth")  # M2PT stores its auxiliaries as image models
    assert (
        main(
            [
                "import",
                str(tmp_path / "audio.pth"),
                "--modality",
                "audio",
                "-o",
                str(tmp_path / "a.safetensors"),
            ]
        )
        == 0
    )
    assert "tokenizer: it is not that of audio" in capsys.readouterr().out
    written, _ = load_weights(tmp_path / "a.safetensors")
    assert {key.split(".")[0] for key in written} == {"blocks", "norm"}


def test_a_convnext_keeps_its_stem(tmp_path: Path, capsys) -> None:
    model = ConvNeXt(num_classes=5, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    torch.save(model.state_dict(), tmp_path / "convnext.pth")
    target = tmp_path / "ours.safetensors"
    words = ["import", str(tmp_path / "convnext.pth"), "--modality", "image", "-o", str(target)]
    assert main(words) == 0
    assert load_weights(target)[0].keys() == model.state_dict().keys()
    assert "not used" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--modality", "image"], "give --output FILE.safetensors and --modality"),
        (["-o", "out.safetensors"], "give --output FILE.safetensors and --modality"),
        (["-o", "out.safetensors", "--modality", "smell"], "one of image, video"),
        (["-o", "out.pth", "--modality", "image"], "its name must end in .safetensors"),
        ([], "is a file: to convert it, give --output FILE.safetensors and --modality"),
    ],
)
def test_options_of_a_conversion(
    tmp_path: Path, capsys, monkeypatch, state: dict[str, Tensor], options: list[str], words: str
) -> None:
    torch.save(state, tmp_path / "given.pth")
    config = [] if options else ["--config", str(Path(__file__).parents[2] / "tests/tiny/config.yaml")]
    assert main(["import", str(tmp_path / "given.pth"), *options, *config]) == 2
    assert words in capsys.readouterr().err
