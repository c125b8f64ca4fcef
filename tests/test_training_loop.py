import json
import math
import multiprocessing
import os
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional

from m2pt.datasets.seeded import SeededDataset
from m2pt.errors import InputError
from m2pt.training import checkpoint
from m2pt.training.launch import launch
from m2pt.training.loop import fit
from m2pt.training.metrics import DivergedError
from m2pt.training.sampling import TrainingBatches
from m2pt.training.settings import TrainingSettings

ITEMS = 20


class Points(SeededDataset):
    def __len__(self):
        return ITEMS

    def load(self, index):
        return torch.randn(5), index % 3


class Broken(Points):
    def load(self, index):
        if index == 7:
            raise OSError("item 7 cannot be read")
        return super().load(index)


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3))


def loss(model, batch):
    points, labels = batch
    return functional.cross_entropy(model(points), labels), {}


def settings(**changes):
    return TrainingSettings(
        **({"epochs": 3, "batch_size": 4, "accumulation": 2, "lr": 0.01, "log_every": 1} | changes)
    )


def train(directory, *, identity="feed", loss=loss, dataset=None, start=None, **options):
    changes = {
        name: options.pop(name) for name in list(options) if name in TrainingSettings.__dataclass_fields__
    }
    return fit(
        start or model(),
        loss,
        dataset or Points(3),
        settings=settings(**changes),
        directory=directory,
        identity=identity,
        seed=3,
        **options,
    )


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_it_is_the_plain_loop_that_one_would_write(tmp_path):
    # written out: AdamW in its definition, one batch of 8, warmup and cosine, clipping by the norm
    trained = train(tmp_path, warmup_steps=2, weight_decay=0.1, betas=(0.8, 0.9), clip_grad=0.5)
    plain, data = model(), Points(3)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in plain.named_parameters()}
    recorded = []
    for step, keys in enumerate(TrainingBatches(ITEMS, batch_size=8, seed=3, stop=6)):
        lr = 0.01 * (step / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 4)) / 2)
        points, labels = zip(*(data[key] for key in keys), strict=True)
        value = functional.cross_entropy(plain(torch.stack(points)), torch.tensor(labels))
        recorded.append({"step": step + 1, "epoch": step // 2 + 1, "loss": value.item(), "lr": lr})
        gradients = torch.autograd.grad(value, list(plain.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        with torch.no_grad():
            for (name, p), g in zip(plain.named_parameters(), gradients, strict=True):
                g = g * min(1.0, 0.5 / norm.item())
                first, second = moments[name]
                first.mul_(0.8).add_(g, alpha=0.2)
                second.mul_(0.9).addcmul_(g, g, value=0.1)
                update = first / (1 - 0.8 ** (step + 1)) / ((second / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
                p -= lr * (update + (0.1 * p if p.ndim > 1 else 0))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(trained.get_parameter(name), parameter, rtol=1e-4, atol=1e-6)
    for ours, expected in zip(lines(tmp_path), recorded, strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)


def test_accumulation_changes_nothing_but_rounding(tmp_path):
    split = train(tmp_path / "split", batch_size=2, accumulation=4)
    whole = train(tmp_path / "whole", batch_size=8, accumulation=1)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(split.get_parameter(name), parameter, rtol=1e-4, atol=1e-6)


def test_a_finished_training_is_not_repeated(tmp_path):
    trained = train(tmp_path)
    marker = json.loads((tmp_path / "finished.json").read_text())
    assert marker.pop("seconds") >= 0
    assert marker == {"identity": "feed", "step": 6}

    def unwanted(model, batch):
        raise AssertionError("trained again")

    again = train(tmp_path, loss=unwanted)
    for name, parameter in trained.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)


def test_a_changed_recipe_starts_over_and_says_so(tmp_path, capsys):
    train(tmp_path)
    changed = train(tmp_path, identity="f00d", lr=0.02)
    assert "feed before, f00d now" in capsys.readouterr().err
    assert "feed before, f00d now" in (tmp_path / "train.log").read_text()
    alone = train(tmp_path / "alone", identity="f00d", lr=0.02)
    for name, parameter in alone.named_parameters():
        assert torch.equal(changed.get_parameter(name), parameter)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()


def test_a_diverging_loss_stops_with_step_lr_and_checkpoint(tmp_path):
    calls = []

    def exploding(model, batch):
        calls.append(0)
        value, _ = loss(model, batch)
        return value * (math.inf if len(calls) == 2 * 5 else 1), {}

    with pytest.raises(DivergedError, match=r"inf at step 5, .*0\.0025.*resume\.pt \(step 4\)"):
        train(tmp_path, loss=exploding, log_every=50, checkpoint_every=2)
    marker = json.loads((tmp_path / "failed.json").read_text())
    assert "at step 5" in marker["reason"]
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 4
    train(tmp_path, checkpoint_every=2)
    assert not (tmp_path / "failed.json").exists()


def test_a_loss_that_is_nan_from_the_start_has_no_checkpoint_to_name(tmp_path):
    with pytest.raises(DivergedError, match=r"nan at step 1, .*checkpoint: none yet"):
        train(tmp_path, loss=lambda model, batch: (loss(model, batch)[0] * math.nan, {}))
    assert not (tmp_path / "resume.pt").exists()


def test_weights_that_a_gradient_spoils_are_never_saved_as_good(tmp_path):
    def finite_but_steep(model, batch):
        weight = next(model.parameters())
        return loss(model, batch)[0] + (0 * weight).abs().sqrt().sum(), {}

    with pytest.raises(DivergedError, match=r"a weight is not finite at step 1, .*checkpoint: none yet"):
        train(tmp_path, loss=finite_but_steep, checkpoint_every=1)
    assert not (tmp_path / "resume.pt").exists()


def test_snapshots_and_descriptions_come_after_their_epochs(tmp_path):
    kept = {}
    train(
        tmp_path,
        snapshots={epoch: lambda m, e=epoch: kept.update({e: m[0].weight.clone()}) for epoch in (1, 3)},
        describe=lambda m: {"mean": m[0].weight.mean().item()},
    )
    described = {line["epoch"]: line["mean"] for line in lines(tmp_path) if "mean" in line}
    assert described.keys() == {1, 2, 3}
    assert {epoch: weight.mean().item() for epoch, weight in kept.items()} == {
        e: described[e] for e in (1, 3)
    }
    with pytest.raises(InputError, match="after epoch 4"):
        train(tmp_path, snapshots={4: lambda m: None})


def test_a_frozen_part_stays_as_it_is(tmp_path):
    start = model()
    start[0].requires_grad_(False)
    trained = train(tmp_path, start=start, weight_decay=0.5)
    fresh = model()
    assert torch.equal(trained[0].weight, fresh[0].weight)
    assert not torch.equal(trained[2].weight, fresh[2].weight)


def halted(directory):
    """A training of 6 steps that broke off after the checkpoint of step 4."""
    calls = []

    def breaking(model, batch):
        calls.append(0)
        if len(calls) > 2 * 4:
            raise KeyboardInterrupt
        return loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        train(directory, loss=breaking, checkpoint_every=2)
    return directory


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x40
    path.write_bytes(content)


def replaced_by_a_folder(path):
    path.unlink()
    (path / "within").mkdir(parents=True)


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_link(path):
    path.unlink()
    path.symlink_to("nowhere")


DAMAGE = {
    "a bit of a tensor": ("resume.pt", flip, {"resume.pt"}),
    "a bit of the header": ("resume.pt", partial(flip, at=0), {"resume.pt"}),
    "a bit of the checksum": ("resume.pt", partial(flip, at=0.9999), {"resume.pt"}),
    "the end": ("resume.pt", partial(os.truncate, length=700), {"resume.pt"}),
    "all but the name": ("resume.pt", partial(os.truncate, length=0), {"resume.pt"}),
    "an older version": ("resume.pt", partial(torch.save, {"identity": "feed"}), {"resume.pt"}),
    "a folder": ("resume.pt", replaced_by_a_folder, {"resume.pt"}),
    "a bit of the metrics": ("metrics.jsonl", flip, {"resume.pt", "metrics.jsonl"}),
    "the end of the metrics": (
        "metrics.jsonl",
        partial(os.truncate, length=9),
        {"resume.pt", "metrics.jsonl"},
    ),
    "other metrics": (
        "metrics.jsonl",
        lambda path: path.write_bytes(b"{}" * 999),
        {"resume.pt", "metrics.jsonl"},
    ),
    "no metrics": ("metrics.jsonl", Path.unlink, {"resume.pt"}),
    "a folder as metrics": ("metrics.jsonl", replaced_by_a_folder, {"resume.pt", "metrics.jsonl"}),
    "a pipe as metrics": ("metrics.jsonl", replaced_by_a_pipe, {"resume.pt", "metrics.jsonl"}),
    "a link to nowhere as metrics": ("metrics.jsonl", replaced_by_a_link, {"resume.pt", "metrics.jsonl"}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_state_is_set_aside_and_training_starts_over(tmp_path, capsys, kind):
    name, damage, aside = DAMAGE[kind]
    directory = halted(tmp_path / "run")
    damage(directory / name)
    trained = train(directory, checkpoint_every=2)
    said = capsys.readouterr().err
    assert f"{directory / name} " in said and "starts from step 0" in said and "resuming" not in said
    assert f"set aside in {directory / 'damaged'}" in (directory / "train.log").read_text()
    assert {path.name for path in (directory / "damaged").iterdir()} == aside
    alone = train(tmp_path / "alone")
    for key, parameter in alone.named_parameters():
        assert torch.equal(trained.get_parameter(key), parameter)
    assert (directory / "metrics.jsonl").read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_a_pipe_in_place_of_a_file_that_is_written_to_is_set_aside(tmp_path, capsys, name):
    os.mkfifo(tmp_path / name)
    train(tmp_path)
    assert f"{tmp_path / name} is not a regular file; set aside in" in capsys.readouterr().err
    assert (tmp_path / name).is_file() and (tmp_path / "damaged" / name).is_fifo()


def test_lines_after_the_checkpoint_are_no_damage(tmp_path, capsys):
    directory = halted(tmp_path)
    with (directory / "metrics.jsonl").open("a") as file:
        file.write("half a li")
    train(directory, checkpoint_every=2)
    assert "resuming after step 4 of 6" in capsys.readouterr().err
    assert [line["step"] for line in lines(directory)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["final.pt", "metrics.jsonl"])
def test_a_damaged_finished_training_is_trained_again(tmp_path, capsys, name):
    trained = train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    flip(tmp_path / name)
    again = train(tmp_path)
    assert f"{tmp_path / name} " in capsys.readouterr().err
    for key, parameter in trained.named_parameters():
        assert torch.equal(again.get_parameter(key), parameter)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def without(key):
    return lambda state: state.pop(key)


def with_moments(shape):
    def change(state):
        state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(shape)

    return change


ODD = {
    **{
        f"no {key}": without(key)
        for key in (
            "step",
            "effective_batch",
            "model",
            "optimizer",
            "scaler",
            "window",
            "metrics_length",
            "seconds",
        )
    },
    "a step that is text": lambda state: state.update(step="4"),
    "a step beyond the end": lambda state: state.update(step=7),
    "a step before the start": lambda state: state.update(step=-1),
    "half a step": lambda state: state.update(step=3.5),
    "a model that is a list": lambda state: state.update(model=[1]),
    "an unknown tensor": lambda state: state["model"].update(other=torch.zeros(1)),
    "a missing tensor": lambda state: state["model"].pop("0.weight"),
    "a tensor that is a number": lambda state: state["model"].update({"0.weight": 1.0}),
    "a tensor of another shape": lambda state: state["model"].update({"0.weight": torch.zeros(3, 3)}),
    "a tensor of integers": lambda state: state["model"].update({"0.weight": torch.zeros(8, 5).int()}),
    "an optimizer of text": lambda state: state.update(optimizer="adamw"),
    "an optimizer of others": lambda state: state["optimizer"].update(param_groups=[]),
    "moments of another shape": with_moments((2, 2)),
    "a window without rows": lambda state: state.update(window={"names": ["loss"]}),
    "a window of wrong rows": lambda state: state.update(window={"names": ["loss"], "rows": [[1.0, 2.0]]}),
    "a window of text": lambda state: state.update(window={"names": ["loss"], "rows": [["one"]]}),
    "seconds that are text": lambda state: state.update(seconds="long"),
    "metrics of no length": lambda state: state.update(metrics_length="9"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_whole_state_that_is_odd_is_refused_by_name(tmp_path, kind):
    path = halted(tmp_path) / "resume.pt"
    state = checkpoint.load(path)
    ODD[kind](state)
    checkpoint.save(path, state)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"resume\.pt .*delete it to train from the start"):
        train(tmp_path, checkpoint_every=2)
    assert path.read_bytes() == before


def test_what_cannot_begin_is_marked_as_failed_until_it_can(tmp_path):
    train(tmp_path)
    with pytest.raises(InputError, match="after epoch 9"):
        train(tmp_path, snapshots={9: lambda m: None})
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert failed["step"] == 0 and failed["reason"].startswith("InputError: a snapshot after epoch 9")
    train(tmp_path)
    assert not (tmp_path / "failed.json").exists()


def test_an_unreadable_item_fails_by_name_and_leaves_no_worker(tmp_path):
    with pytest.raises(OSError, match="item 7 cannot be read"):
        train(tmp_path, dataset=Broken(3), num_workers=1)
    assert "item 7" in json.loads((tmp_path / "failed.json").read_text())["reason"]
    assert not multiprocessing.active_children()


def test_a_log_of_plain_lines(tmp_path, capsys):
    train(tmp_path, num_workers=0, log_every=2)
    log = (tmp_path / "train.log").read_text()
    assert log.count("samples/s") == 3
    assert "1 process on cpu, precision no: batch size" in log
    assert "step 6/6, epoch 3: loss" in log
    assert "training finished after 6 steps" in log
    assert "training finished after 6 steps" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_with_loss_lr_speed_and_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(tmp_path, log_every=2)
    shown = capsys.readouterr().err
    bar = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert "6/6" in bar
    last = lines(tmp_path)[-1]
    assert f"loss={last['loss']:.4g}, lr={last['lr']:.2e}, samples/s=" in bar
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d", bar)  # elapsed and left
    assert "training finished after 6 steps" in shown


def test_a_repeated_step_takes_the_same_gradient_again_and_only_the_last_one_clipped(tmp_path):
    plain = {"steps": 1, "epochs": None, "accumulation": 1, "optimizer": "sgd", "lr": 0.1}
    plain |= {"optimizer_args": {"momentum": 0.0, "nesterov": False}, "precision": "no"}
    begin = nn.utils.parameters_to_vector(model().parameters())

    def moved(name, **changes):
        trained = train(tmp_path / name, **plain, **changes)
        return (nn.utils.parameters_to_vector(trained.parameters()) - begin).detach()

    once, twice = moved("once"), moved("twice", repeat_step=2)
    assert torch.allclose(twice, 2 * once, atol=1e-6)
    clipped = moved("clipped", repeat_step=2, clip_grad=1e-3)
    assert torch.allclose(clipped, once + once / once.norm() * 0.1 * 1e-3, atol=1e-6)


@pytest.fixture
def fresh_accelerate():
    """Accelerate fixes the precision once per process, as a command does."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerate")
def test_bf16_autocasts_the_forward_pass_and_keeps_float32_weights(tmp_path):
    seen = set()
    start = model()
    start[2].register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
    trained = train(tmp_path, start=start, precision="bf16", device="cpu")
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert trained(torch.zeros(1, 5)).dtype == torch.float32
    assert lines(tmp_path)[-1]["loss"] < 2


@pytest.mark.parametrize(
    ("precision", "device", "named"),
    [("fp16", "cpu", "fp16, which needs a GPU"), ("auto", "gpu", "choose auto, cpu or cuda")],
)
def test_a_device_or_precision_that_is_not_there_is_named(precision, device, named):
    with pytest.raises(InputError, match=named):
        launch(precision, device)
