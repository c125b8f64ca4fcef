"""The files of a figure: taken by other readers, the same bytes each time, whole or not at all."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from config_documents import given_points
from figure_results import FIGURES, drawn
from matplotlib.patches import Rectangle
from PIL import Image
from synthetic_results import TINY

from m2pt.commands import main
from m2pt.plan.plan import Plan
from m2pt.reporting.figures.cells import FigureCells
from m2pt.reporting.figures.render import render, write_figure
from m2pt.reporting.figures.style import style


def written(plan, name):
    """The paths of a figure's files, by suffix."""
    figure = plan.figure(name)
    cells = FigureCells(plan, figure)
    with style():
        picture, records = render(cells)
        stem = plan.results / name
        write_figure(stem, picture, records, figure, cells.provenance_note())
    return {suffix: stem.with_name(f"{name}.{suffix}") for suffix in ("pdf", "svg", "png", "csv", "made.txt")}


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
        write_figure(plan.results / "bars", picture, records, plan.figure("bars"), "")
    assert not list(plan.results.glob("*bars*"))


@pytest.mark.parametrize("name", ["quality", "bars", "values"])
def test_a_figure_without_some_of_its_cells_says_so(plan, overrides, name):
    """Their results are not there either; `pointcloud` has gains, but a file no epochs."""
    encoders = given_points()
    given = Plan.load(TINY, {**overrides, "encoders": encoders})
    for run in set(given.runs) & set(plan.runs):
        if "pointcloud" in given.runs[run].experiment.encoders:
            for seed in given.config.seeds:
                path = given.run_directory(run, seed) / "evaluation.json"
                stored = json.loads(path.read_text()) | {"spec": given.stored_spec(given.runs[run], seed)}
                path.write_text(json.dumps(stored))
    assert main(["plot", name, *given.arguments]) == 0
    made = (given.results / f"{name}.made.txt").read_text()
    assert f"pairs:early:top1: not drawn in {name}, since encoder pointcloud is a file, of which" in made
    assert ("pairs:M2PT-Point:top1: not drawn" in made) == (name == "quality")
    drawn_rows = (given.results / f"{name}.csv").read_text().splitlines()[1:]
    assert len(drawn_rows) == {"quality": 1, "bars": 1, "values": 4}[name]


class Broken(Rectangle):
    """Is drawn by PDF and SVG; PNG, which is written later, fails."""

    def __init__(self):
        super().__init__((0, 0), 1, 1)

    def draw(self, renderer):
        if type(renderer).__name__ == "RendererAgg":
            raise OSError("disk is full")


def test_the_command_writes_the_files_and_stops_at_another_config(plan, overrides, capsys):
    arguments = ["plot", "gains", "--config", str(TINY)]
    arguments += [
        word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    assert main([*arguments, "--expect", plan.figure_digest("gains")]) == 0
    assert (plan.results / "gains.pdf").exists()
    assert main([*arguments, "--expect", "another"]) == 2
    assert "run snakemake again" in capsys.readouterr().err
