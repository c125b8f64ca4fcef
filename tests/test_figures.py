"""Figures: their numbers by hand, their files by other readers, and what is refused."""

import csv
import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.stats import ttest_rel

from m2pt.commands import main
from m2pt.errors import InputError
from m2pt.reporting.figures.files import to_csv, write_figure
from m2pt.reporting.figures.rendering import render
from m2pt.reporting.figures.scales import draw as draw_scales
from m2pt.reporting.figures.shown import Shown
from m2pt.reporting.figures.style import signed, style
from m2pt.schema.base import read_yaml, validate
from m2pt.schema.figures import Figure, check_cells
from m2pt.schema.plan import Plan
from m2pt.schema.rules import Rules
from m2pt.schema.tables import Table

TINY = Path("tests/tiny/config.yaml")

IMAGE = {"task": "classification", "dataset": "imagenet", "mode": "tune"}
AUDIO = {"task": "multilabel_classification", "dataset": "audioset", "mode": "tune"}
PARTS = {"task": "point_segmentation", "dataset": "partnet", "mode": "tune"}
TABLE = {
    "title": "Pairs",
    "caption": "Two targets.",
    "columns": [
        {"name": "top1", "group": "ImageNet", "title": "top-1 (%)", "metric": "top1", **IMAGE},
        {"name": "map", "group": "AudioSet", "title": "mAP (%)", "metric": "map", **AUDIO},
        {"name": "miou", "group": "PartNet", "title": "mIoU (%)", "metric": "miou", **PARTS},
    ],
    "rows": [
        {"method": "MAE", "run": {"target_init": "image"}, "columns": ["top1"], "published": {"top1": 83.3}},
        {
            "method": "M2PT-Audio",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["audio"]}},
            "columns": ["top1"],
            "baseline": "MAE",
            "published": {"top1": 83.7},
        },
        {
            "method": "M2PT-Point",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["pointcloud"]}},
            "columns": ["top1"],
            "baseline": "MAE",
            "published": {"top1": 83.9},
        },
        {
            "method": "early",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["pointcloud_early"]}},
            "columns": ["top1"],
            "baseline": "MAE",
        },
        {
            "method": "random",
            "run": {"target_init": "image", "pathway": {"auxiliaries": ["random"]}},
            "columns": ["top1"],
            "baseline": "MAE",
        },
        {
            "method": "AudioMAE",
            "run": {"target_init": "audio"},
            "columns": ["map"],
            "published": {"map": 35.3},
        },
        {
            "method": "M2PT-Image",
            "run": {"target_init": "audio", "pathway": {"auxiliaries": ["image"]}},
            "columns": ["map"],
            "baseline": "AudioMAE",
            "published": {"map": 35.6},
        },
        {"method": "Point-MAE", "run": {"target_init": "pointcloud"}, "columns": ["miou"]},
    ],
}
for row in TABLE["rows"]:
    row["setting"] = "pretrained"

GRID = {
    "auxiliaries": {"image": "Image", "audio": "Audio"},
    "targets": [
        {"title": "Image", "cells": {"audio": "pairs:M2PT-Audio:top1"}, "published": {"audio": 0.5}},
        {"title": "Audio", "cells": {"image": "pairs:M2PT-Image:map"}},
    ],
}
FIGURES = {
    "gains": {"kind": "gain_matrix", **GRID},
    "scales": {
        "kind": "scales",
        **{**GRID, "targets": [{k: v for k, v in t.items() if k != "published"} for t in GRID["targets"]]},
    },
    "quality": {
        "kind": "auxiliary_quality",
        "points": [
            {"cell": "pairs:M2PT-Point:top1", "published_epochs": 300},
            {"cell": "pairs:early:top1"},
            {"cell": "pairs:random:top1"},
        ],
    },
    "curves": {
        "kind": "training_curves",
        "curves": {"MAE": "pairs:MAE:top1", "with audio": "pairs:M2PT-Audio:top1"},
    },
    "bars": {"kind": "gain_bars", "bars": {"audio": "pairs:M2PT-Audio:top1", "early": "pairs:early:top1"}},
}

# By the auxiliary (None for a baseline): what each seed measures. Audio's gains are 1, 1.2 and 0.8.
TOP1 = {
    None: (80.0, 82.0, 84.0),
    "audio": (81.0, 83.2, 84.8),
    "pointcloud": (80.5, 81.0, 85.0),
    "pointcloud_early": (79.0, 83.0, 83.5),
    "random": (80.0, 81.0, 85.5),
}
MAP = {None: (50.0, 51.0, 52.0), "image": (50.5, 50.0, 53.0)}
LOSSES = {0: (2.0, 1.0), 1: (2.2, 1.2), 2: (2.4, 0.8)}
SCALES = {
    "blocks.0.attn.qkv.pathways.{}.scale": 0.1,
    "blocks.3.mlp.fc2.pathways.{}.scale": -0.3,
}


def scales(auxiliary, seed):
    return {name.format(auxiliary): value + 0.01 * seed for name, value in SCALES.items()}


@pytest.fixture
def asked(tmp_path):
    """Overrides of the tiny config: one table, a figure of each kind, three seeds."""
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(TABLE))
    for name, plot in FIGURES.items():
        figure = {"title": name.title(), "caption": "Caption.", "plot": plot}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(figure, sort_keys=False))
    return {
        "results": str(tmp_path / "results"),
        "seeds": [0, 1, 2],
        "tables": [str(tmp_path / "pairs.yaml")],
        "figures": [str(tmp_path / f"{name}.yaml") for name in FIGURES],
    }


@pytest.fixture
def plan(asked):
    """A plan whose results are all there."""
    plan = Plan.load(TINY, asked)
    for name, run in plan.runs.items():
        auxiliary = next(iter(run.experiment.auxiliaries), None)
        for seed in plan.config.seeds:
            folder = plan.run_directory(name, seed)
            folder.mkdir(parents=True)
            values = {"top1": TOP1, "map": MAP}
            metrics = {metric: by[auxiliary][seed] for metric, by in values.items() if auxiliary in by}
            provenance = {"git_commit": "0" * 40, "device": "cpu"}
            result = {
                "metrics": {"miou": 40.0, **metrics},
                "scales": scales(auxiliary, seed) if auxiliary else {},
                "seed": seed,
                "spec": plan.seeded_spec(run, seed),
                "provenance": provenance,
                "training": {"provenance": provenance, "seconds": 3600.0},
            }
            (folder / "evaluation.json").write_text(json.dumps(result))
            lines = [
                {"step": 10 * (i + 1), "epoch": i, "loss": loss, "lr": 1e-3}
                for i, loss in enumerate(LOSSES[seed])
            ]
            lines.insert(1, {"step": 10, "epoch": 0, "blocks.0.attn.qkv.pathways.audio.scale": 0.1})
            (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return plan


def one_seed(asked):
    return Plan.load(TINY, {**asked, "seeds": [1]})


def drawn(plan, name):
    with style():
        return render(Shown(plan, plan.figure(name)))


def written(plan, name):
    """The paths of a figure's files, by suffix."""
    figure = plan.figure(name)
    shown = Shown(plan, figure)
    with style():
        picture, records = render(shown)
        stem = plan.results / name
        write_figure(stem, picture, records, title=figure.title, caption=figure.caption, made=shown.made())
    return {suffix: stem.with_name(f"{name}.{suffix}") for suffix in ("pdf", "svg", "png", "csv", "made.txt")}


def rows(plan, name):
    _, records = drawn(plan, name)
    return list(csv.DictReader(to_csv(records).splitlines()))


def texts(picture):
    inside = [text.get_text() for axes in picture.axes for text in axes.texts]
    return inside, [text.get_text() for text in picture.texts]


def run_of(plan, *auxiliaries, target="image"):
    return next(
        name
        for name, run in plan.runs.items()
        if run.experiment.target_init == target and run.experiment.auxiliaries == auxiliaries
    )


def test_the_gain_matrix_has_every_pair_with_its_paired_interval(plan):
    image, audio = sorted(rows(plan, "gains"), key=lambda row: row["target"], reverse=True)
    assert (image["auxiliary"], image["target"], image["seeds"]) == ("Audio", "Image", "3")
    assert float(image["gain"]) == pytest.approx(1.0)
    truth = ttest_rel(TOP1["audio"], TOP1[None]).confidence_interval(0.95)
    assert float(image["interval_low"]) == pytest.approx(truth.low, rel=1e-5)
    assert float(image["interval_high"]) == pytest.approx(truth.high, rel=1e-5)
    assert (image["significant"], image["published_gain"]) == ("True", "0.5")  # its YAML's, not 83.7 - 83.3
    assert (audio["auxiliary"], audio["significant"], audio["published_gain"]) == ("Image", "False", "0.3")
    assert float(audio["gain"]) == pytest.approx((0.5 - 1 + 1) / 3, rel=1e-5)


def test_only_what_excludes_zero_is_marked_and_the_diagonal_is_empty(plan):
    picture, _ = drawn(plan, "gains")
    inside, below = texts(picture)
    assert "+1.0*" in inside and "+0.2" in inside and not any("0.2*" in text for text in inside)
    assert below == ["3 seeds; in brackets the 95 % interval; * and bold: it excludes 0"]
    for axes in picture.axes[:2]:
        squares = {square.get_xy() for square in axes.patches if isinstance(square, Rectangle)}
        assert squares == {(-0.48, 0.52), (0.52, -0.48)}


def test_below_a_target_stands_the_metric_of_its_gains(plan):
    picture, _ = drawn(plan, "gains")
    for axes in picture.axes[:2]:
        labels = [" ".join(label.get_text().split()) for label in axes.get_xticklabels()]
        assert labels == ["Image ImageNet top-1", "Audio AudioSet mAP"]


def test_what_rounds_to_zero_has_no_sign():
    assert [signed(value) for value in (0.04, -0.04, 0.0)] == ["0.0", "0.0", "0.0"]
    assert [signed(value) for value in (0.06, -0.06)] == ["+0.1", "\N{MINUS SIGN}0.1"]
    assert signed(-0.04, 2) == "\N{MINUS SIGN}0.04"


def test_a_caption_explains_the_marks_of_its_kind_of_plot_and_no_others(plan, asked):
    rules = Rules([str(TINY)], read_yaml(TINY) | asked)
    captions = {name: rules.figure_caption(SimpleNamespace(figure=name), None) for name in FIGURES}
    assert all(caption.startswith("Caption. With several seeds ") for caption in captions.values())
    marked = {name for name, caption in captions.items() if "asterisk" in caption}
    assert marked == {"gains", "bars"}
    assert {name for name, caption in captions.items() if "interval" in caption} == {*marked, "quality"}
    assert "band" in captions["curves"] and "square" in captions["scales"]


def test_one_seed_has_no_interval_and_no_mark(plan, asked):
    one = one_seed(asked)
    for name in ("gains", "bars", "quality"):
        picture, _ = drawn(one, name)
        inside, below = texts(picture)
        assert not any("*" in text or "[" in text for text in inside)
        assert below == ["one seed: nothing is known of its spread"]
        for row in rows(one, name):
            assert (row["seeds"], row["interval_low"], row["significant"]) == ("1", "", "")


def test_the_scales_of_every_seed_are_listed_and_their_mean_is_drawn(plan):
    table = rows(plan, "scales")
    assert len(table) == 2 * 3 * len(SCALES)
    row = next(row for row in table if (row["target"], row["seed"], row["block"]) == ("Image", "2", "4"))
    assert (row["auxiliary"], row["layer"], row["run"]) == ("Audio", "mlp.fc2", run_of(plan, "audio"))
    assert float(row["scale"]) == pytest.approx(-0.28)

    picture, _ = drawn(plan, "scales")
    panels = {axes.get_title(): axes.images[0] for axes in picture.axes if axes.images and axes.get_title()}
    assert set(panels) == {"Audio → Image", "Image → Audio"}
    nan = float("nan")
    expected = [[0.11, nan, nan, nan], [nan, nan, nan, -0.29]]
    for panel in panels.values():
        np.testing.assert_allclose(np.ma.filled(panel.get_array(), nan), expected)
        assert panel.get_clim() == pytest.approx((-0.29, 0.29))


def test_each_target_s_scales_have_colours_of_their_own(plan):
    """Else a target whose scales grow ten times as large makes all others white."""
    figure = plan.figure("scales")
    _, records = drawn(plan, "scales")
    grown = [each._replace(scale=10 * each.scale) if each.target == "Audio" else each for each in records]
    with style():
        picture = draw_scales(figure.plot, grown)
    limits = {axes.get_title(): axes.images[0].get_clim()[1] for axes in picture.axes if axes.get_title()}
    assert limits == {"Audio → Image": pytest.approx(0.29), "Image → Audio": pytest.approx(2.9)}
    bars = [axes.get_xlim()[1] for axes in picture.axes if axes.get_xlabel() == "cross-modal scale λ"]
    assert bars == pytest.approx([0.29, 2.9])


def test_a_result_without_scales_is_refused(plan):
    path = plan.run_directory(run_of(plan, "audio"), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    del result["scales"]
    path.write_text(json.dumps(result))
    with pytest.raises(
        InputError, match=r"evaluation\.json: stores no scales; make it again with: snakemake"
    ):
        drawn(plan, "scales")


def test_quality_is_the_share_of_the_pretraining(plan):
    random, early, full = rows(plan, "quality")
    assert [row["epochs"] for row in (random, early, full)] == ["0", "1", "2"]
    assert [float(row["share"]) for row in (random, early, full)] == [0, 50, 100]
    assert (full["published_epochs"], full["published_share"], full["published_gain"]) == (
        "300",
        "100",
        "0.6",
    )
    assert float(early["gain"]) == pytest.approx((-1 + 1 - 0.5) / 3, rel=1e-5)


def test_an_auxiliary_from_a_file_has_no_known_epochs(asked):
    encoders = read_yaml(TINY)["encoders"] | {"random": {"modality": "pointcloud", "file": "points.pth"}}
    plan = Plan.load(TINY, {**asked, "encoders": encoders})
    from m2pt.reporting.figures.auxiliary_quality import pretraining_epochs

    with pytest.raises(
        InputError, match=r"encoders\.random: after how many epochs it was taken is not known"
    ):
        pretraining_epochs(plan, "random")


def test_curves_are_means_over_seeds_and_say_what_was_reached(plan):
    table = rows(plan, "curves")
    assert [(row["curve"], row["step"], row["epoch"]) for row in table] == [
        (curve, step, epoch) for curve in ("MAE", "with audio") for step, epoch in (("10", "0"), ("20", "1"))
    ]
    first = [losses[0] for losses in LOSSES.values()]
    assert float(table[0]["loss"]) == pytest.approx(statistics.fmean(first))
    assert float(table[0]["loss_deviation"]) == pytest.approx(statistics.stdev(first))
    assert (table[0]["modality"], table[2]["modality"]) == ("", "audio")
    assert float(table[2]["reached"]) == pytest.approx(83.0)
    picture, _ = drawn(plan, "curves")
    labels = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert labels == ["MAE: 82.0 ± 2.0", "with audio: 83.0 ± 1.9"]


def test_curves_that_cannot_be_read_or_averaged_are_refused(plan):
    folder = plan.run_directory(run_of(plan, "audio"), 1)
    path = folder / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="its seeds were logged at different steps"):
        drawn(plan, "curves")
    path.write_text('{"step": 1\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read"):
        drawn(plan, "curves")
    path.unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read .*train again"):
        drawn(plan, "curves")


def test_a_cell_of_several_runs_has_no_curve(plan, tmp_path):
    figure = read_yaml(tmp_path / "curves.yaml")
    figure["plot"]["curves"] = {"Point-MAE": "pairs:Point-MAE:miou"}
    shown = Shown(plan, validate(Figure, figure, "here"))
    with pytest.raises(InputError, match="pairs:Point-MAE:miou: averages 2 runs"):
        render(shown)


def test_bars_show_gains_in_their_order(plan):
    audio, early = rows(plan, "bars")
    assert (audio["bar"], audio["significant"], audio["published_gain"]) == ("audio", "True", "0.4")
    assert (early["bar"], early["significant"], early["published_gain"]) == ("early", "False", "")
    picture, _ = drawn(plan, "bars")
    heights = [bar.get_height() for bar in picture.axes[0].patches]
    assert heights == pytest.approx([1.0, -0.5 / 3])
    assert picture.axes[0].get_legend() is None, "its dash would pass for a published gain"
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["published"]


@pytest.mark.parametrize("name", FIGURES)
def test_other_readers_take_the_files(plan, name):
    files = written(plan, name)
    pdf = files["pdf"].read_bytes()
    assert pdf.startswith(b"%PDF-") and b"/FontFile2" in pdf  # with its font
    assert ElementTree.parse(files["svg"]).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    with Image.open(files["png"]) as image:
        pixels = np.asarray(image.convert("L"))
        assert image.info["Title"] == name.title()
        assert image.info["Description"].startswith("Caption. Measured with tests/tiny/config.yaml")
    assert pixels.min() < 50, "nothing is drawn"
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 255, "something is cut off"
    assert "0000000" in files["made.txt"].read_text()
    assert len(files["csv"].read_text().splitlines()) > 2


def test_equal_results_give_equal_bytes(plan):
    first, second = ({k: path.read_bytes() for k, path in written(plan, "gains").items()} for _ in range(2))
    assert first == second


def test_a_figure_is_written_whole_or_not_at_all(plan):
    picture, records = drawn(plan, "bars")
    picture.add_artist(Broken())
    with pytest.raises(OSError, match="disk"):
        write_figure(plan.results / "bars", picture, records, title="", caption="", made="")
    assert not list(plan.results.glob("*bars*"))


class Broken(Rectangle):
    """Is drawn by PDF and SVG; PNG, which is written later, fails."""

    def __init__(self):
        super().__init__((0, 0), 1, 1)

    def draw(self, renderer):
        if type(renderer).__name__ == "RendererAgg":
            raise OSError("disk is full")


def test_a_stale_result_is_refused(plan):
    path = plan.run_directory(run_of(plan, "audio"), 0) / "evaluation.json"
    result = json.loads(path.read_text())
    result["spec"]["threads"] = 7
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"stale.*spec\.threads: stored 7"):
        drawn(plan, "bars")


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ({"kind": "gain_bars", "bars": {"a": "pears:MAE:top1"}}, "no table 'pears'"),
        ({"kind": "gain_bars", "bars": {"a": "pairs:MEA:top1"}}, "pairs has no method 'MEA'"),
        ({"kind": "gain_bars", "bars": {"a": "pairs:MAE:top5"}}, "pairs has no column 'top5'"),
        ({"kind": "training_curves", "curves": {"a": "pairs:MAE:map"}}, "row MAE does not run map"),
        ({"kind": "gain_bars", "bars": {"a": "pairs:MAE:top1"}}, "row MAE has no gain in top1"),
        (
            {
                "kind": "auxiliary_quality",
                "points": [{"cell": "pairs:early:top1"}, {"cell": "pairs:MAE:top1"}],
            },
            "row MAE attaches none or several",
        ),
    ],
)
def test_a_cell_that_the_plot_cannot_show_is_named(plot, words):
    figure = validate(Figure, {"title": "", "caption": "", "plot": plot}, "here.yaml")
    with pytest.raises(InputError) as error:
        check_cells(figure, {"pairs": validate(Table, TABLE, "pairs")}, "here.yaml")
    assert str(error.value).startswith("here.yaml: ") and words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "pie"}, "plot"),
        ({"auxiliary": {}}, "unknown key; did you mean 'auxiliaries'?"),
        ({"auxiliaries": {"image": "Image"}}, "no auxiliary 'audio'; the auxiliaries are image"),
        ({"auxiliaries": {"image": "Image", "audio": "Image"}}, "a title stands twice"),
        (
            {"targets": [{"title": "Image", "cells": {"audio": "a:b:c"}, "published": {"video": 1}}]},
            "'video' has no cell",
        ),
    ],
)
def test_a_faulty_figure_is_refused(change, words):
    figure = {"title": "", "caption": "", "plot": {**FIGURES["gains"], **change}}
    with pytest.raises(InputError) as error:
        validate(Figure, figure, "here.yaml")
    assert words in str(error.value)


def test_the_command_writes_the_files_and_stops_at_another_config(plan, asked, capsys):
    arguments = ["plot", "gains", "--config", str(TINY)]
    arguments += [word for key, value in asked.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    assert main([*arguments, "--expect", plan.figure_digest("gains")]) == 0
    assert (plan.results / "gains.pdf").exists()
    assert main([*arguments, "--expect", "another"]) == 2
    assert "start snakemake again" in capsys.readouterr().err


def test_the_shipped_figure_3_has_the_published_gains():
    tables = {
        path.stem: validate(Table, read_yaml(path), str(path))
        for path in Path("config/tables").glob("*.yaml")
    }
    paths = sorted(Path("config/figures").glob("*.yaml"))
    figures = {
        path.stem: check_cells(validate(Figure, read_yaml(path), str(path)), tables, str(path))
        for path in paths
    }
    plot = figures["figure3"].plot
    found = {}
    for auxiliary, target in plot.pairs():
        table, method, column = target.cells[auxiliary].split(":")
        row = next(row for row in tables[table].rows if f"{row.setting}/{row.method}" == method)
        gain = row.published[column] - tables[table].baseline(row).published[column]
        found[auxiliary, target.title] = target.published.get(auxiliary, round(gain, 2))
    assert found == {
        ("image", "Video"): 0.7, ("image", "Point cloud"): 1.8, ("image", "Audio"): 0.3,
        ("video", "Image"): 0.3, ("video", "Point cloud"): 2.7, ("video", "Audio"): 0.2,
        ("pointcloud", "Image"): 0.6, ("pointcloud", "Video"): 0.8, ("pointcloud", "Audio"): 0.3,
        ("audio", "Image"): 0.4, ("audio", "Video"): 0.8, ("audio", "Point cloud"): 0.7,
    }  # fmt: skip
