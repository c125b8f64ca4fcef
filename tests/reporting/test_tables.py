"""Tables as people and machines read them."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from config_documents import given_points
from multimodal_config import write_config
from synthetic_results import TINY, synthetic_plan

from m2pt.commands import main
from m2pt.formats.documents import read_yaml
from m2pt.plan.plan import Plan
from m2pt.reporting.cells import read_cells
from m2pt.reporting.notes import ONE_SEED, READING_ONE_SEED, provenance_note, table_notes
from m2pt.reporting.statistics import RULE
from m2pt.reporting.tables import to_csv, to_latex, to_markdown

MAE, POINT = (80.0, 82.0, 84.0), (81.0, 82.5, 86.0)


def accuracy(experiment, seed, metric):
    if experiment.auxiliaries == ("random",):
        return MAE[seed] - 3 + seed / 10  # surely worse than MAE
    return (POINT if experiment.auxiliaries == ("pointcloud",) else MAE)[seed]


@pytest.fixture
def plan(tmp_path):
    return synthetic_plan(tmp_path / "results", accuracy, tables=["tests/tiny/table.yaml"])


@pytest.fixture
def labelled(tmp_path):
    """A plan whose table has labels, two-digit published numbers and LaTeX's special characters."""
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table |= {"labels": ["QKV & more", "Trained"], "caption": "100 % of x_1."}
    table["columns"], table["rows"] = table["columns"][:1], table["rows"][1:3]
    for row in table["rows"]:
        row |= {"columns": ["tune_acc"], "published": {"tune_acc": 83.93}}
    table["rows"][1]["labels"] = {"QKV & more": "✓", "Trained": "✗"}
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(table))
    return synthetic_plan(tmp_path / "results", accuracy, tables=[str(path)])


def written(plan, write):
    table, cells = plan.table("table"), read_cells(plan, "table")
    if write is to_csv:
        return write(table, cells)
    return write(table, cells, table_notes(plan, table, cells, provenance_note(plan, cells)))


def rows(plan):
    found = csv.DictReader(written(plan, to_csv).splitlines())
    return {(row["setting"], row["method"], row["column"]): row for row in found}


def test_the_csv_is_tidy(plan):
    point = rows(plan)["pretrained", "M2PT-Point", "tune_acc"]
    name = next(name for name in plan.runs if name.startswith("imagenet-tune-from-image-pointcloud"))
    assert point == {
        "setting": "pretrained",
        "method": "M2PT-Point",
        "column": "tune_acc",
        "published": "83.9",
        "public": "",
        "mean": "83.1667",
        "standard_deviation": "2.5658",
        "seeds": "3",
        "baseline": "MAE",
        "one_seed_difference": "",
        "gain": "1.1667",
        "gain_low": "-0.7306",  # 1.16667 ± 4.30265 · 0.76376 / √3
        "gain_high": "3.0640",
        "published_gain": "0.6",
        "verdict": "inconclusive",
        "runs": name,
    }
    quoted = rows(plan)["pretrained", "MFF", "tune_acc"]
    assert {key for key, value in quoted.items() if value} == {"setting", "method", "column", "published"}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_seed_has_no_gain_in_brackets(tmp_path, seed):
    plan = synthetic_plan(tmp_path, accuracy, tables=["tests/tiny/table.yaml"], seeds=[seed])
    for write in (to_markdown, to_latex):
        text = written(plan, write)
        assert re.findall(r"\S+ \[[-+].*?\]", text) == ["83.9 [+0.6]"]  # the published one
        assert f"{POINT[seed]:.1f}" in text
        assert "differences between rows are not printed, since one seed cannot tell them from chance" in text
    point = next(line for line in written(plan, to_markdown).splitlines() if line.startswith("| M2PT-Point"))
    assert point.split(" | ")[1] == f"{POINT[seed]:.1f}<br><sub>paper 83.9 [+0.6]</sub>"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_csv_of_one_seed_names_its_difference_so(tmp_path, seed):
    found = rows(synthetic_plan(tmp_path, accuracy, tables=["tests/tiny/table.yaml"], seeds=[seed]))
    for row in found.values():
        assert [row[key] for key in ("gain", "gain_low", "gain_high", "verdict")] == [""] * 4
    point = found["pretrained", "M2PT-Point", "tune_acc"]
    assert (point["seeds"], point["published_gain"]) == ("1", "0.6")
    assert float(point["one_seed_difference"]) == POINT[seed] - MAE[seed]
    assert found["pretrained", "MAE", "tune_acc"]["one_seed_difference"] == ""


def test_two_seeds_have_a_gain_and_its_interval(tmp_path):
    plan = synthetic_plan(tmp_path, accuracy, tables=["tests/tiny/table.yaml"], seeds=[0, 1])
    point = rows(plan)["pretrained", "M2PT-Point", "tune_acc"]
    assert (point["one_seed_difference"], point["gain"]) == ("", "0.7500")
    assert (point["gain_low"], point["gain_high"]) == ("-2.4266", "3.9266")  # 0.75 ± 12.7062 · 0.35355 / √2
    assert "81.8 ± 1.1 [+0.8: -2.4 to +3.9]<br>inconclusive" in written(plan, to_markdown)
    assert ONE_SEED not in written(plan, to_markdown)


def test_a_table_of_quoted_rows_is_not_said_to_be_of_one_seed(plan):
    assert ONE_SEED not in table_notes(plan, plan.table("table"), [], "")


def test_markdown_is_laid_out_as_in_the_paper(plan):
    lines = [line for line in written(plan, to_markdown).splitlines() if line.startswith("|")]
    columns = ["ImageNet tune acc (%)", "ImageNet fix acc (%)", "COCO AP box (%)", "ADE20K mIoU (%)"]
    assert lines[0] == f"| {' | '.join(['Method', *columns])} |"
    assert len({line.count("|") for line in lines}) == 1
    point = next(line for line in lines if line.startswith("| M2PT-Point"))
    expected = "83.2 ± 2.6 [+1.2: -0.7 to +3.1]<br>inconclusive<br><sub>paper 83.9 [+0.6]</sub>"
    assert point.split(" | ")[1] == expected


def test_only_what_is_significant_is_bold(plan):
    markdown, latex = written(plan, to_markdown), written(plan, to_latex)
    assert re.findall(r"[^ ]*\*\*[-+][^ ]*", markdown) == ["[**-2.9**:"]
    assert re.findall(r"\\textbf\{[-+][^}]*\}", latex) == [r"\textbf{-2.9}"]


def test_latex_is_laid_out_as_in_the_paper(plan):
    latex = written(plan, to_latex)
    assert r"\multicolumn{2}{c}{ImageNet} & \multicolumn{1}{c}{COCO}" in latex
    cell = r"\shortstack[r]{83.2 $\pm$ 2.6 [+1.2: -0.7 to +3.1]\\inconclusive\\paper 83.9 [+0.6]}"
    assert cell in latex
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")].splitlines()
    assert all(line.count("&") == 4 for line in body if line.startswith(("M", "random", "two")))


def test_labels_stand_before_the_measured_columns(labelled):
    markdown = written(labelled, to_markdown).splitlines()
    assert "| Method | QKV & more | Trained | ImageNet tune acc (%) |" in markdown
    assert any(line.startswith("| M2PT-Point | ✓ | ✗ | 83.17 ± 2.57 [") for line in markdown)
    latex = written(labelled, to_latex)
    assert r"\begin{tabular}{lccr}" in latex and r"M2PT-Point & \checkmark & $\times$ & " in latex
    header = written(labelled, to_csv).splitlines()[0]
    assert header.startswith("setting,method,QKV & more,Trained,column,published,public,")


def test_latex_s_special_characters_are_escaped(labelled):
    latex = written(labelled, to_latex)
    assert r"100 \% of x\_1." in latex and r"Method & QKV \& more & Trained" in latex
    assert not [line for line in latex.splitlines()[1:] if re.search(r"(?<!\\)[%_#]", line)]
    assert latex.isascii()


def test_one_training_is_counted_in_the_singular(tmp_path):
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table |= {"columns": table["columns"][:1], "rows": table["rows"][1:2]}
    table["rows"][0]["published"] = {}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    plan = synthetic_plan(tmp_path / "results", accuracy, tables=[str(tmp_path / "table.yaml")], seeds=[0])
    assert "; 1 training took " in written(plan, to_markdown)


def test_below_the_table_stands_how_it_was_made_compared_and_judged(plan):
    notes = written(plan, to_markdown).partition("\n- ")[2]
    assert notes.startswith(f"Measured with {TINY} but figures = [], claims = null, tables = [")
    assert ", seeds 0, 1, 2, commit 0123456789ab-dirty, on cpu; " in notes
    assert "; 21 trainings took 12.6 minutes in total " in notes  # 7 cells, 3 seeds, 36 seconds each
    assert RULE in notes
    assert "Baselines get the same recipe and the same tuning budget" in notes
    assert "Baseline MAE (pretrained setting): M2PT-Point, random auxiliary, two auxiliaries." in notes
    assert "(scale_lr), was set once and not tuned." in notes
    assert "MFF: quoted by the paper." in notes
    assert "MAE: “public” is from a repository." in notes


def test_a_public_number_stands_beside_the_paper_s(plan):
    assert "<sub>paper 83.3</sub><br><sub>public 83.6</sub> |" in written(plan, to_markdown)
    assert r"paper 83.3\\public 83.6}" in written(plan, to_latex)
    public = {key: row["public"] for key, row in rows(plan).items() if row["public"]}
    assert public == {("pretrained", "MAE", "tune_acc"): "83.6"}


def test_a_caption_names_what_of_its_config_was_replaced(plan):
    again = Plan.load(TINY, {**plan.overrides, "device": "auto"})
    assert 'device = "auto", seeds 0, 1, 2, ' in provenance_note(again, read_cells(again, "table"))
    only_seeds = Plan.load(TINY, {"seeds": [0, 1], "results": str(plan.results)})
    assert provenance_note(only_seeds, []) == f"Nothing is measured with {TINY}."


def test_below_the_table_stands_what_the_intervals_leave_out(tmp_path):
    def notes(folder, **overrides):
        tables = ["tests/tiny/table.yaml"]
        return written(synthetic_plan(tmp_path / folder, accuracy, tables=tables, **overrides), to_markdown)

    text = notes("one", pretrain_seeds=[7])
    assert "All seeds start from the encoders of pretraining seed 7: the interval does not cover" in text
    text = notes("two", pretrain_seeds=[7, 8])
    assert "of these pretraining seeds: seed 0 from 7, seed 1 from 8, seed 2 from 7. Those that share" in text
    text = notes("three", pretrain_seeds=[7, 8, 9])
    assert "seed 2 from 9.\n" in text
    text = notes("single", seeds=[1])
    assert "pretraining seed" not in text and RULE in text and ONE_SEED in text
    assert READING_ONE_SEED in text and "± standard deviation" not in text


def test_the_notes_of_columns_and_of_methods_that_stand_twice_are_printed():
    plan = Plan.load(Path("config/config.yaml"))
    notes = table_notes(plan, plan.table("table1"), [], "")
    ours = "recipe ours: the paper names none."
    assert f"MS COCO AP box (%), MS COCO AP mask (%), ADE20K mIoU (%): {ours}" in notes
    scratch = "ViT, M2PT-Point (from-scratch setting): recipe ours where ImageNet is trained from scratch: "
    assert any(note.startswith(scratch) for note in notes)
    assert f"PartNet mIoU (%): {ours}" in table_notes(plan, plan.table("table2a"), [], "")


def test_a_baseline_with_another_recipe_is_named(tmp_path, plan):
    assert "Exceptions" not in written(plan, to_markdown)
    recipe = read_yaml(Path("tests/tiny/recipes/imagenet_tune.yaml"))
    recipe["training"]["lr"] = 0.5
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    finetune = read_yaml(TINY)["finetune"]
    finetune["imagenet"]["scratch_tune"] = str(tmp_path / "other.yaml")
    other = synthetic_plan(tmp_path / "other", accuracy, tables=["tests/tiny/table.yaml"], finetune=finetune)
    assert "a recipe of their own: random auxiliary (controls (ours))." in written(other, to_markdown)


def test_the_command_writes_all_files(plan, capsys):
    assert main(["tabulate", "table", *plan.arguments]) == 0
    assert "\n**Tiny table.**" in capsys.readouterr().out
    made_by = (plan.results / "table.made.txt").read_text()
    assert made_by.startswith("Measured with") and made_by.strip() in (plan.results / "table.md").read_text()
    assert (plan.results / "table.csv").exists() and (plan.results / "table.tex").exists()


@pytest.mark.parametrize("table", ["table4", "table5"])
def test_a_table_alone_has_its_verdicts(tmp_path, table):
    plan = synthetic_plan(
        tmp_path, accuracy, config=Path("config/config.yaml"), tables=[f"config/tables/{table}.yaml"]
    )
    ablations = [cell for cell in read_cells(plan, table) if cell.row.setting == "ablation"]
    assert len(ablations) > 3 and all(cell.verdict for cell in ablations)


def test_the_recipe_of_compared_methods_is_printed_below_their_table(tmp_path):
    path = Path("config/recipes/mini/urfunny_late.yaml")
    table = read_yaml(Path("config/tables/agm_accuracy.yaml"))
    table["columns"] = [each for each in table["columns"] if each["name"] == "urfunny_late"]
    table["rows"] = [
        row | {"columns": ["urfunny_late"]} for row in table["rows"] if row["method"] in ("Joint", "AGM")
    ]
    stronger = {"target_init": "scratch", "balancing": {"method": "agm", "alpha": 9.0}}
    table["rows"].append(table["rows"][1] | {"method": "AGM 9", "run": stronger})
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    config, tables = Path("config/config.yaml"), [str(tmp_path / "table.yaml")]
    plan = synthetic_plan(
        tmp_path / "results", lambda *_: 50.0, config=config, tables=tables, figures=[], claims=None
    )
    markdown = written(plan, to_markdown)
    (note,) = (line for line in markdown.splitlines() if line.startswith("- Recipe of UR-FUNNY, late: "))
    shared, methods = note.removeprefix("- Recipe of UR-FUNNY, late: ").removesuffix(".").split("; methods ")
    printed, recipe = yaml.safe_load(shared), read_yaml(path)
    for key in ("epochs", "batch_size", "optimizer", "lr", "weight_decay"):
        assert printed["training"][key] == recipe["training"][key]
    assert printed["head_clip"] == recipe["head_clip"]
    assert printed["model"]["encoders"]["text"]["dim"] == recipe["model"]["encoders"]["text"]["dim"]
    assert yaml.safe_load(methods)["agm"].items() >= recipe["methods"]["agm"].items()  # not alpha 9
    assert "Below are the recipes: what the methods share" in markdown and "scale_lr" not in markdown
    assert r"\{" in written(plan, to_latex)


def test_rows_of_one_column_with_different_recipes_have_a_note_each(tmp_path):
    config = write_config(
        tmp_path / "config", {"joint": {"method": "joint"}, "agm": {"method": "agm"}}, official=True
    )
    plan = synthetic_plan(tmp_path / "results", lambda *_: 50.0, config=config)
    notes = written(plan, to_markdown).splitlines()
    joint, agm = (line for line in notes if line.startswith("- Recipe of g: "))
    assert "fusion: {kind: sum}" in joint and "head_clip" not in joint and "methods {joint: {}}" in joint
    assert "fusion: {kind: concat}" in agm and "head_clip: 1.0" in agm and "agm: {alpha: 1.5" in agm


def test_cells_that_cannot_be_made_of_a_file_are_empty_and_said_to_be(tmp_path, capsys):
    plan = synthetic_plan(tmp_path / "results", accuracy, encoders=given_points())
    assert main(["tabulate", "targets", *plan.arguments]) == 0
    why = "encoder pointcloud is a file, of which no epoch 1 is kept; pretrain it, or give pointcloud_early"
    note = f"targets:pretrained/VideoMAE:video_top1: left empty, since {why} a file of its own."
    texts = {kind: (plan.results / f"targets.{kind}").read_text() for kind in ("csv", "md", "made.txt")}
    assert f"\n- {note}\n" in texts["md"] and texts["made.txt"].endswith(f" {note}\n")
    assert r"left empty, since encoder pointcloud is a file, of which" in (
        plan.results / "targets.tex"
    ).read_text().replace("\n", " ")
    (row,) = (
        row
        for row in csv.DictReader(texts["csv"].splitlines())
        if row["column"] == "video_top1" and row["method"] == "VideoMAE"
    )
    assert (row["mean"], row["seeds"], row["verdict"], row["runs"]) == ("", "", "", "")
    assert main(["tabulate", "table", *plan.arguments]) == 0
    assert "left empty" not in (plan.results / "table.md").read_text()
