"""`m2pt plan`: the trainings behind tables, and their steps, costs, storage and schedule."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from m2pt.commands import main
from m2pt.commands.rehearsed import operations, rehearse
from m2pt.errors import InputError
from m2pt.models.bodies import build_body
from m2pt.planning import costs, flops
from m2pt.planning.costs import StepCost, cost_key
from m2pt.planning.counted import Counter
from m2pt.planning.items import PUBLISHED, parse_items, training_items
from m2pt.planning.jobs import trainings
from m2pt.planning.measure import step_seconds
from m2pt.planning.schedule import Job, critical_path, makespan
from m2pt.planning.storage import footprint
from m2pt.reporting.lineage import steps as commands
from m2pt.schema.plan import Plan
from m2pt.training.settings import TrainingSettings

TINY, PAPER = Path("tests/tiny/config.yaml"), Path("config/paper.yaml")
META = torch.device("meta")
BATCH, TOKENS, DIM, DEPTH, HIDDEN, CLASSES = 16, 17, 16, 4, 32, 10
"""Of the tiny config's image classifiers: 16 patches of 8 x 8 pixels and a class token."""
LINEAR = {"qkv": 3 * DIM * DIM, "proj": DIM * DIM, "fc1": DIM * HIDDEN, "fc2": HIDDEN * DIM}


@pytest.fixture(scope="module")
def tiny():
    plan = Plan.load(TINY)
    return {training.id: training for training in trainings(plan, plan.runs.values())}


@pytest.fixture
def document(tmp_path, capsys):
    """The plan of the tiny config as JSON, with a results folder of its own."""

    def run(*arguments, config=TINY):
        results = tmp_path / "results"
        words = ["plan", *arguments, "--config", str(config), "--set", f"results={results}", "--json"]
        assert main(words) == 0
        return json.loads(capsys.readouterr().out)

    return run


def find(tiny, beginning):
    return next(training for id, training in tiny.items() if id.startswith(beginning))


# ---- the schedule, by hand ----------------------------------------------------------------------------

DIAMOND = [
    Job("a", 3.0),
    Job("b", 2.0),
    Job("c", 4.0, ("a",)),
    Job("d", 1.0, ("a", "b")),
    Job("e", 5.0),
]


def test_the_critical_path_is_the_longest_chain():
    path = critical_path(DIAMOND)
    assert path.hours == 7.0 and path.chain == ("a", "c")
    assert critical_path([]).hours == 0.0


@pytest.mark.parametrize(("slots", "hours"), [(1, 15.0), (2, 8.0), (3, 7.0), (50, 7.0)])
def test_list_scheduling_by_hand(slots, hours):
    # two slots: e 0-5 and a 0-3, then c 3-7; b 5-7; d 7-8
    assert makespan(DIAMOND, slots) == hours


# ---- which trainings ----------------------------------------------------------------------------------


def test_the_trainings_are_those_of_the_commands_behind_the_runs(tiny):
    plan = Plan.load(TINY)
    every = [step for run in plan.runs.values() for step in commands(plan, run, 0)]
    folders = {step.training for step in every if step.training}
    assert {training.directory for training in tiny.values()} == folders


def test_a_training_comes_after_those_whose_weights_it_reads():
    plan = Plan.load(TINY, {"seeds": [0, 1, 2], "pretrain_seeds": [0, 1]})
    every = trainings(plan, plan.runs.values())
    known: dict[str, object] = {}
    for training in every:
        assert all(need in known for need in training.needs)
        known[training.id] = training
        if training.run is not None:
            read = plan.input_weights(training.name, training.seed).values()
            folders = {known[need].directory for need in training.needs}
            not_trained = {"random", "image_convnext"}
            expected = {path.parent for path in read if path.parent.parent.name not in not_trained}
            early = plan.encoder_directory("pointcloud_early", plan.pretrain_seed(training.seed))
            if early in expected:
                expected = expected - {early} | {early.parent.parent / "pointcloud" / early.name}
            assert folders == expected
    assert {t.seed for t in every if t.run is None} == {0, 1} and {t.seed for t in every if t.run} == {
        0,
        1,
        2,
    }


def test_a_figure_asks_for_the_runs_of_its_cells_alone(document):
    ids = {each["id"] for each in document("curves")["trainings"]}
    assert {id.rpartition("-")[0] or id for id in ids} == {
        "pretrain image seed0",
        "pretrain pointcloud seed0",
        "finetune imagenet-tune-from-image",
        "finetune imagenet-tune-from-image-pointcloud",
    }


# ---- steps --------------------------------------------------------------------------------------------


def test_steps_are_epochs_of_whole_batches(document):
    recipe = Plan.load(TINY).encoder("image").spec["recipe"]["training"]
    pretraining = document("curves")["trainings"][0]
    batch = recipe["batch_size"] * recipe["accumulation"]
    assert pretraining["id"] == "pretrain image seed0" and pretraining["items"] == 60
    assert pretraining["steps"] == recipe["epochs"] * (60 // batch) > 0
    given = document("curves", "--items", "imagenet=1000")["trainings"][0]
    assert (given["steps"], given["items_from"]) == (recipe["epochs"] * (1000 // batch), "--items")


def test_the_published_sizes_are_those_of_their_datasets_only():
    plan = Plan.load(PAPER)
    spec = plan.encoder("image").spec
    assert training_items(plan, spec, {}).count == 1_281_167
    other = {**spec, "dataset": {**spec["dataset"], "num_classes": 100}}
    assert training_items(plan, other, {}) is None
    assert training_items(plan, plan.encoder("text").spec, {}) is None
    fine = {name: size.items for name, size in PUBLISHED.items() if name.startswith("partnet/")}
    # PartNet has 18,112 training shapes in 24 categories, seven of which have no finest level
    assert sum(fine.values()) + sum((92, 131, 170, 111, 306, 138, 45)) == 18_112
    assert set(fine) == {f"partnet/{subset}" for subset in plan.config.datasets["partnet"].subsets}


def test_a_dataset_on_disk_is_counted(tmp_path, imagenet):
    datasets = {**json.loads(Plan.load(TINY).config.model_dump_json())["datasets"]}
    datasets["imagenet"] = {"layout": "imagenet", "num_classes": 10, "root": str(imagenet)}
    plan = Plan.load(TINY, {"results": str(tmp_path), "datasets": datasets})
    spec = plan.encoder("image").spec
    assert training_items(plan, spec, {}).count == len(list(imagenet.glob("train/*/*.JPEG"))) == 60
    plan.manifest("imagenet").parent.mkdir()
    plan.manifest("imagenet").write_text(json.dumps({"items": {"train": 59}}))
    assert training_items(plan, spec, {}).count == 59


def test_what_nobody_knows_is_left_out_and_said(tmp_path, capsys):
    config = Plan.load(TINY).config.model_dump(mode="json")
    root = tmp_path / "absent"
    datasets = {
        **config["datasets"],
        "imagenet": {"layout": "imagenet", "num_classes": 10, "root": str(root)},
    }
    overrides = ["--set", f"datasets={json.dumps(datasets)}", "--set", f"results={tmp_path}"]
    assert main(["plan", "curves", "--config", str(TINY), *overrides]) == 0
    said = capsys.readouterr().out
    assert "NOT IN THE SUM: 3 trainings of unknown length" in said and "give --items imagenet=N" in said


def test_a_split_smaller_than_a_batch_is_named():
    with pytest.raises(InputError, match="--items text"):
        parse_items(["text=many"])
    assert main(["plan", "curves", "--config", str(TINY), "--items", "imagenet=3"]) == 2
    assert main(["plan", "curves", "--config", str(TINY), "--items", "imagnet=300"]) == 2


# ---- what a step costs --------------------------------------------------------------------------------


def forward_of_blocks():
    """Operations of all blocks for one image: the linear layers, and attention's two products."""
    return DEPTH * (2 * TOKENS * sum(LINEAR.values()) + 2 * 2 * TOKENS * TOKENS * DIM)


PATCHES = 2 * 16 * (8 * 8 * 3) * DIM
HEAD = 2 * DIM * CLASSES


@pytest.mark.parametrize("name", ["imagenet-tune-from-image-07", "imagenet-tune-from-image-pointcloud"])
def test_a_transformers_operations_are_the_closed_form(tiny, name):
    # backward costs twice the forward pass, but no gradient goes to the pixels; a pathway is elementwise
    counted = operations(rehearse(find(tiny, f"finetune {name}"), META))
    assert counted == BATCH * (2 * PATCHES + 3 * forward_of_blocks() + 3 * HEAD)


def test_a_frozen_transformer_with_pathways_needs_its_weights_gradients(tiny):
    counted = operations(rehearse(find(tiny, "finetune imagenet-fix-from-image-pointcloud"), META))
    first = 2 * TOKENS * LINEAR["qkv"]  # nothing below the first layer is trained
    assert counted == BATCH * (PATCHES + 3 * forward_of_blocks() - first + 3 * HEAD)


def test_a_detector_is_counted_as_it_runs(tiny):
    rehearsal = rehearse(find(tiny, "transfer coco"), torch.device("cpu"))
    model, regions = rehearsal.model, {}
    for name, head in (("boxes", model.roi_heads.box_head), ("masks", model.roi_heads.mask_head)):
        head.register_forward_hook(lambda _, inputs, __, name=name: regions.update({name: len(inputs[0])}))
    with FlopCounterMode(display=False) as counter:
        rehearsal.loss(model, rehearsal.batch)[0].backward()
    ran = dict(regions)
    assert ran["boxes"] > ran["masks"] > 0
    images = rehearsal.batch[0]
    assert flops.count_detector_with(model, images, **ran) == counter.get_total_flops()


def test_two_numbers_of_classes_tell_the_operations_of_any(tiny):
    training = find(tiny, "finetune partnet-chair-1")

    def counted(classes):
        spec = {**training.spec, "dataset": {**training.spec["dataset"], "num_classes": classes}}
        other = type(training)(**{**vars(training), "spec": spec})
        return spec, lambda: operations(rehearse(other, META))

    counter = Counter()
    for classes in (5, 9):
        counter.operations(*counted(classes))
    spec, count = counted(51)
    assert counter.operations(spec, lambda: pytest.fail("counted a third time")) == count()


def test_counted_seconds_are_operations_over_throughput(tiny):
    training = find(tiny, "pretrain image")
    spec = {**training.spec, "recipe": json.loads(json.dumps(training.spec["recipe"]))}
    spec["recipe"]["training"]["accumulation"] = 4
    half, full = Counter(50.0, 5.0), Counter(100.0, 10.0)
    assert full.cost(spec, lambda: 25 * 10**12) == StepCost(1.0, "100 TFLOP/s", "counted")
    assert half.cost(spec, lambda: 25 * 10**12).seconds == 2.0
    spec["recipe"]["training"]["precision"] = "no"
    assert Counter(50.0, 5.0).cost(spec, lambda: 25 * 10**12) == StepCost(20.0, "5 TFLOP/s", "counted")


def test_the_same_work_has_one_cost(tiny):
    def key(beginning, **changes):
        spec = json.loads(json.dumps(find(tiny, beginning).spec))
        spec["recipe"]["training"] |= changes
        return cost_key(spec)

    plain, attached = "finetune imagenet-tune-from-image-07", "finetune imagenet-tune-from-image-pointcloud"
    assert key(plain) == key(plain, epochs=7, lr=3.0, log_every=9)
    assert key(attached) == key("finetune imagenet-tune-from-scratch-random")
    different = [key(plain), key(attached), key(plain, batch_size=8), key(plain, optimizer="lars")]
    assert len(set(different)) == 4


def finished(plan, training, *, seconds, step, device):
    training.directory.mkdir(parents=True)
    described = {"spec": training.spec, "seed": 0, "provenance": {"device": device}}
    (training.directory / "run.json").write_text(json.dumps(described))
    (training.directory / "finished.json").write_text(json.dumps({"seconds": seconds, "step": step}))


def test_hours_are_steps_times_the_seconds_of_finished_trainings(tmp_path, document):
    results = tmp_path / "results"
    plan = Plan.load(TINY, {"results": str(results)})
    every = {each.id: each for each in trainings(plan, plan.runs.values())}
    image = find(every, "pretrain image")
    finished(plan, image, seconds=90.0, step=45, device="NVIDIA X")
    random = find(every, "finetune imagenet-tune-from-scratch-random")
    finished(plan, random, seconds=10.0, step=40, device="cpu")

    made = {each["id"]: each for each in document("curves")["trainings"]}
    pretraining = made["pretrain image seed0"]
    assert pretraining["seconds_per_step"] == 2.0 and pretraining["device"] == "NVIDIA X"
    assert pretraining["gpu_hours"] == pytest.approx(pretraining["steps"] * 2.0 / 3600)
    assert pretraining["step_cost_from"] == "results" and pretraining["done"]
    same_work = next(each for id, each in made.items() if "tune-from-image-pointcloud" in id)
    assert same_work["seconds_per_step"] == 0.25 and not same_work["done"]
    assert made["pretrain pointcloud seed0"]["step_cost_from"] == "counted"

    assert set(made) - {each["id"] for each in document("curves", "--remaining")["trainings"]} == {image.id}
    assert {each["step_cost_from"] for each in document("curves", "--counted")["trainings"]} == {"counted"}


def test_a_gpu_is_preferred_and_a_device_can_be_chosen():
    cpu, gpu = StepCost(9.0, "cpu", "results"), StepCost(1.0, "NVIDIA X", "measured")
    assert costs.best([cpu, gpu]) == gpu and costs.best([cpu, gpu], "cpu") == cpu
    assert costs.best([gpu, StepCost(2.0, "NVIDIA X", "results")]).basis == "results"
    assert costs.best([cpu], "NVIDIA X") is None and costs.best([]) is None


def test_measuring_once_is_enough(tmp_path, document, capsys):
    first = document("curves", "--measure")
    assert {each["step_cost_from"] for each in first["trainings"]} == {"measured"}
    assert all(0 < each["seconds_per_step"] < 60 for each in first["trainings"])
    kept = (tmp_path / "results" / "step_costs.json").read_text()
    assert document("curves", "--measure") == first == document("curves")
    assert (tmp_path / "results" / "step_costs.json").read_text() == kept

    (tmp_path / "results" / "step_costs.json").write_text(kept[:-20])
    assert main(["plan", "--config", str(TINY), "--set", f"results={tmp_path / 'results'}"]) == 2
    assert "step_costs.json" in capsys.readouterr().err


def test_one_process_measures_recipes_of_several_precisions():
    seen = []

    def loss(model, batch):
        output = model(batch)
        seen.append(output.dtype)
        return output.float().mean(), {}

    for precision, dtype in (("no", torch.float32), ("bf16", torch.bfloat16), ("no", torch.float32)):
        seen.clear()
        settings = TrainingSettings(epochs=1, batch_size=2, lr=0.1, precision=precision)
        assert step_seconds(torch.nn.Linear(3, 2), loss, torch.ones(2, 3), settings, "cpu") > 0
        assert set(seen) == {dtype}


@pytest.mark.parametrize("kind", ["coco", "ade20k", "shapenetpart", "partnet", "audioset", "kinetics"])
def test_every_kind_of_training_runs_on_synthetic_inputs(tiny, kind):
    training = next(each for each in tiny.values() if each.spec["dataset"]["layout"] == kind)
    rehearsal = rehearse(training, torch.device("cpu"))
    loss, _ = rehearsal.loss(rehearsal.model, rehearsal.batch)
    loss.backward()
    assert torch.isfinite(loss)


# ---- storage ------------------------------------------------------------------------------------------


def test_storage_is_four_bytes_a_number(tiny):
    norms, head = 2 * DIM, DIM * CLASSES + CLASSES
    biases = 3 * DIM + DIM + HIDDEN + DIM
    blocks = DEPTH * (sum(LINEAR.values()) + biases + 2 * norms)
    embeddings = 8 * 8 * 3 * DIM + DIM + DIM + TOKENS * DIM  # patches, class token, positions
    plain = blocks + embeddings + norms + head
    pathways = DEPTH * (sum(LINEAR.values()) + len(LINEAR))
    rehearsal = rehearse(find(tiny, "finetune imagenet-tune-from-image-pointcloud"), META)
    left = footprint(rehearsal.model, rehearsal.saved, "adamw")
    assert left.kept == {"merged": 4 * plain, "attached": 4 * (plain + pathways)}
    frozen = sum(p.numel() for p in rehearsal.model.parameters() if not p.requires_grad)
    assert left.resume == 4 * (plain + pathways + 2 * (plain + pathways - frozen))
    assert footprint(rehearsal.model, rehearsal.saved, "sgd").resume < left.resume


def test_kept_epochs_and_imported_encoders_take_room(document, tiny):
    made = document("targets")
    pointcloud = next(each for each in made["trainings"] if each["id"] == "pretrain pointcloud seed0")
    encoder = build_body(find(tiny, "pretrain pointcloud").spec["architecture"]).state_dict()
    size = sum(
        4 if tensor.is_floating_point() else 8 for tensor in encoder.values() for _ in tensor.flatten()
    )
    kept = len(find(tiny, "pretrain pointcloud").spec["recipe"]["keep_epochs"])
    assert kept > 0 and pointcloud["bytes"] == {"encoder": (1 + kept) * size}
    assert made["bytes"]["encoders, imported"] > size  # pointcloud_early, and image_convnext


# ---- the command --------------------------------------------------------------------------------------


def test_several_gpus_for_each_training(document):
    one, two = document("curves", "--gpus", "2"), document("curves", "--gpus", "2", "--gpus-per-job", "2")
    assert two["gpu_hours"] == one["gpu_hours"]
    assert two["critical_path"]["hours"] == pytest.approx(one["critical_path"]["hours"] / 2)
    assert two["hours"] == pytest.approx(one["gpu_hours"] / 2) and one["hours"] >= one["gpu_hours"] / 2


def test_the_text_says_what_it_assumes(tmp_path, capsys):
    assert main(["plan", "curves", "--config", str(TINY), "--set", f"results={tmp_path}", "--gpus", "4"]) == 0
    said = capsys.readouterr().out
    for words in (
        "trainings behind curves (1 seed)",
        "counted, at 125 TFLOP/s",
        "a step is one effective batch",
        "left out: evaluating, merging",
        "imagenet: 60 training items (the miniature to be built)",
        "4 trainings at a time",
        "list scheduling",
        "the critical path:\n    pretrain",
    ):
        assert words in said, said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel"], "no table or figure 'tabel'; it has table, targets, curves, summary"),
        (["--gpus", "2", "--gpus-per-job", "3"], "at most all of them"),
        (["--tflops", "0"], "above 0"),
        (["--counted", "--measure"], "--counted uses no times"),
        (["--items", "imagenet"], "--items imagenet: give DATASET=N"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words, capsys):
    assert main(["plan", *arguments, "--config", str(TINY)]) == 2
    assert words in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `m2pt plan | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "m2pt", "plan", "table", "--config", str(TINY)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["plan", "clean"])
def test_help_needs_no_torch(command):
    program = (
        "import sys\nfrom m2pt.commands import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--config" in done.stdout
