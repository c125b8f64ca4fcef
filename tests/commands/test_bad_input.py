"""Bad input: each gets one clear error and exit code 2 before any training."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file

from m2pt.commands import main
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.models.exchange import to_exchange
from m2pt.models.transformer import build_encoder
from m2pt.plan.plan import Plan
from m2pt.training.checkpoint import check_disk_space

TINY = Path("tests/tiny/config.yaml")


@pytest.fixture
def refuse(capsys):
    """Run a command that must be refused and return what it says."""

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    return run


def test_a_file_that_vanishes_is_named(refuse, monkeypatch):
    def gone(*_):
        raise FileNotFoundError(2, "No such file or directory", "data/x.png")

    monkeypatch.setattr("m2pt.commands.show.run", gone)
    assert "data/x.png: No such file or directory; check the path" in refuse("show", "x")


def test_garbage_is_collected_again_once_the_libraries_are_imported(monkeypatch):
    script = (
        "import gc, m2pt.commands, m2pt.commands.pretrain as command\n"
        "command.run = lambda _: print(gc.isenabled(), gc.get_freeze_count())\n"
        "m2pt.commands.main(['pretrain', 'image'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    enabled, frozen = done.stdout.split()
    assert enabled == "True" and int(frozen) > 100_000


@pytest.mark.parametrize("command", ["import", "pretrain", "finetune", "transfer", "evaluate"])
@pytest.mark.parametrize("seed", ["-1", "2147483648", "9" * 5000, "1.0", "x", "", "\u0661"])
def test_a_seed_out_of_range_is_refused(command, seed, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "random", f"--seed={seed}", "--config", str(TINY)])
    assert ended.value.code == 2
    assert "must be an integer from 0 to 2147483647" in capsys.readouterr().err


@pytest.fixture
def config(tmp_path):
    """Return a function that writes the tiny config, changed, and gives its path."""

    def write(**changes):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(read_yaml(TINY) | {"results": str(tmp_path / "results")} | changes))
        return path

    return write


def with_encoder_file(config, file):
    encoders = read_yaml(TINY)["encoders"] | {"random": {"modality": "pointcloud", "file": str(file)}}
    return config(encoders=encoders)


def test_an_encoder_file_for_a_target_needs_more_than_blocks(refuse, config, tmp_path):
    file = tmp_path / "given.safetensors"
    encoders = read_yaml(TINY)["encoders"] | {"image": {"modality": "image", "file": str(file)}}
    path = config(encoders=encoders)
    settings = read_yaml(path)
    encoder = build_encoder("image", **settings["modalities"]["image"], backbone=settings["backbone"])
    state = to_exchange(encoder.state_dict())
    save_file({key: value for key, value in state.items() if key.startswith("blocks.")}, file)
    message = refuse("import", "image", "--config", path)
    assert f"{file}: it has no tokenizer, but targets of modality image start with it" in message
    save_file(state, file)
    assert main(["import", "image", "--config", str(path)]) == 0


def test_an_auxiliary_file_may_hold_more_than_blocks(config, tmp_path):
    file = tmp_path / "given.safetensors"
    path = with_encoder_file(config, file)
    save_file(encoder_state(path) | {"decoder_embed.weight": torch.zeros(2)}, file)
    assert main(["import", "random", "--config", str(path)]) == 0


def encoder_state(path, **backbone):
    settings = read_yaml(path)
    architecture = settings["modalities"]["pointcloud"]
    return to_exchange(
        build_encoder("pointcloud", **architecture, backbone=settings["backbone"] | backbone).state_dict()
    )


def test_a_misspelled_config_key(refuse, config):
    message = refuse("tabulate", "table", "--config", config(sedes=[0]))
    assert "config.yaml: sedes: unknown key; did you mean 'seeds'?" in message


def test_a_missing_config_file(refuse, tmp_path):
    assert "none.yaml: cannot be read" in refuse("tabulate", "table", "--config", tmp_path / "none.yaml")


def test_unknown_names_are_answered_with_the_known_ones(refuse):
    assert "no table 'table7' in tests/tiny/config.yaml; it has table" in refuse(
        "tabulate", "table7", "--config", TINY
    )
    assert "imagenet-tune-from-image-" in refuse("finetune", "imagenet", "--config", TINY)
    assert "it has video, audio, image, pointcloud" in refuse("pretrain", "images", "--config", TINY)
    assert "it has imagenet, ade20k" in refuse("data", "build", "imagnet", "--config", TINY)


def test_an_override_without_a_value(refuse):
    for wrong in ("seeds", "seeds=[1"):
        assert f"--set {wrong}: give KEY=VALUE" in refuse(
            "tabulate", "table", "--config", TINY, "--set", wrong
        )


def test_a_config_that_changed_after_the_workflow_planned_the_job(refuse):
    message = refuse("pretrain", "image", "--config", TINY, "--expect", "0123456789abcdef")
    assert "has changed since this job was planned" in message and "0123456789abcdef" in message


def test_a_dataset_whose_root_is_missing_or_of_another_layout(refuse, config, tmp_path):
    for root, words in ((tmp_path / "nowhere", "is not a folder"), (tmp_path, "train")):
        datasets = read_yaml(TINY)["datasets"]
        datasets["imagenet"] = {"layout": "imagenet", "num_classes": 10, "root": str(root)}
        path = config(datasets=datasets)
        for command in (["pretrain", "image"], ["data", "check", "imagenet"]):
            message = refuse(*command, "--config", path)
            assert str(root) in message and words in message


def test_an_encoder_file_that_is_missing_or_truncated(refuse, config, tmp_path):
    file = tmp_path / "given.safetensors"
    path = with_encoder_file(config, file)
    assert f"{file}" in refuse("import", "random", "--config", path)
    save_file(encoder_state(path), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file}" in refuse("import", "random", "--config", path)


@pytest.mark.parametrize("other", [{"dim": 24}, {"depth": 3}])
def test_an_encoder_file_of_another_width_or_depth(refuse, config, tmp_path, other):
    file = tmp_path / "given.safetensors"
    path = with_encoder_file(config, file)
    save_file(encoder_state(path, **other), file)
    message = refuse("import", "random", "--config", path)
    own = read_yaml(path)["backbone"]
    assert str(file) in message
    assert f"{own['dim']} wide" in message and f"{own['depth']} blocks" in message


class Exploit:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_an_encoder_file_that_would_execute_code(refuse, config, tmp_path):
    file, trace = tmp_path / "given.pth", tmp_path / "executed"
    torch.save({"model": Exploit(trace)}, file)
    message = refuse("import", "random", "--config", with_encoder_file(config, file))
    assert str(file) in message
    assert not trace.exists()
    pickle.loads(pickle.dumps(Exploit(trace))).close()  # our own bytes: the exploit does work where allowed
    assert trace.exists()


def test_an_encoder_file_that_fits_is_taken(config, tmp_path):
    file = tmp_path / "given.safetensors"
    path = with_encoder_file(config, file)
    state = encoder_state(path)
    save_file(state, file)
    assert main(["import", "random", "--config", str(path)]) == 0
    from m2pt.formats.weights import load_weights

    taken, metadata = load_weights(Plan.load(path).encoder_weights("random", 0))
    assert json.loads(metadata["spec"]) == Plan.load(path).encoders["random"].stored
    assert taken.keys() == {key for key in state if key.startswith("blocks.")}
    assert all(torch.equal(taken[key], state[key]) for key in taken)


def test_too_little_room_for_checkpoints_is_found_before_training(monkeypatch, tmp_path):
    usage = SimpleNamespace(free=7 * 4 * 100 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    model = torch.nn.Linear(99, 1)
    with pytest.raises(InputError, match=f"{tmp_path}: 0 MiB are free"):
        check_disk_space(tmp_path, model)
    usage.free += 1
    check_disk_space(tmp_path, model)
    with pytest.raises(InputError):
        check_disk_space(tmp_path, model, averaged=True)
    model.requires_grad_(False)
    usage.free = 3 * 4 * 100
    check_disk_space(tmp_path, model)


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (
            ["tabulate", "table", "--config", str(TINY), "--set", "results=nowhere"],
            {"torch", "timm", "pandas"},
        ),
        (["merge", "nowhere.safetensors", "merged.safetensors"], {"timm", "torchvision", "pydantic"}),
    ],
)
def test_a_light_command_imports_only_what_it_needs(arguments, unneeded):
    code = "import sys; from m2pt.commands import main; main(sys.argv[1:]); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "nowhere" in run.stderr
    assert not unneeded & set(run.stdout.split())


CONSTRAINED = """
import os, resource, signal, sys
from m2pt.commands import main
config, case, allowed, forbidden = sys.argv[1:]
arguments = ["import", "random", "--config", config, "--set"]
assert main([*arguments, f"results={allowed}"]) == 0  # imports all there is to import
if case == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
elif os.geteuid() == 0:
    os.seteuid(65534)
sys.exit(main([*arguments, f"results={forbidden}"]))
"""


@pytest.mark.parametrize(("case", "words"), [("forbidden", "Permission denied"), ("full", "free space")])
def test_results_without_write_permission_or_room(config, tmp_path, case, words):
    """In a process that gives up its rights; a limit on the size of files stands for a full disk."""
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir()
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    forbidden.chmod(0o555 if case == "forbidden" else 0o755)
    command = [sys.executable, "-c", CONSTRAINED, config(), case, tmp_path / "allowed", forbidden]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "m2pt import: error:" in run.stderr and words in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(forbidden.rglob("*.safetensors*"))


def test_a_run_is_refused_by_the_command_of_the_other_kind(refuse):
    plan = Plan.load(TINY)
    dense = next(name for name, run in plan.runs.items() if run.command == "transfer")
    finetuned = next(name for name, run in plan.runs.items() if run.command == "finetune")
    for command in ("finetune", "evaluate"):
        assert f"m2pt transfer {dense}" in refuse(command, dense, "--config", TINY)
    assert f"m2pt finetune {finetuned}" in refuse("transfer", finetuned, "--config", TINY)
