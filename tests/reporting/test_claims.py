"""Claims against cells: differences by hand, the summary that people read, and faults in the file."""

import re
from pathlib import Path

import pytest
import yaml
from config_documents import given_points
from synthetic_results import TINY, synthetic_plan

from m2pt.commands import main
from m2pt.config.cell_names import locate
from m2pt.config.claims import Claim, Claims, Comparison
from m2pt.config.strict import validate
from m2pt.errors import InputError
from m2pt.formats.documents import read_yaml
from m2pt.plan.claims import claims_digest, missing_cells, read_claims
from m2pt.plan.plan import Plan
from m2pt.reporting.claims import summarize, to_markdown
from m2pt.reporting.notes import ONE_SEED
from m2pt.reporting.statistics import CLAIM_RULE, RULE

POINT, RANDOM, MAE, FIX = (81.0, 82.5, 86.0), (70.0, 71.0, 75.5), (80.0, 82.0, 84.0), (60.0, 61.0, 61.0)
TUNED = "table:pretrained/M2PT-Point:tune_acc"


def accuracy(experiment, seed, metric):
    if experiment.mode == "fix":
        return FIX[seed]
    return {("pointcloud",): POINT, ("random",): RANDOM}.get(experiment.auxiliaries, MAE)[seed]


@pytest.fixture
def with_claims(tmp_path):
    """Return a function that writes claims and a plan's results, and gives the plan."""

    def write(*claims, **overrides):
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump({"claims": list(claims)}))
        overrides = {"tables": ["tests/tiny/table.yaml"], **overrides}
        results = overrides.pop("results", tmp_path / "results")
        return synthetic_plan(results, accuracy, claims=str(path), **overrides)

    return write


def claim(*comparisons, **others):
    return {"claim": "It helps", "source": "section 3", "comparisons": list(comparisons), **others}


def compared(plan):
    return [each for _, comparisons in summarize(plan).claims for each in comparisons]


def test_a_gain_is_the_cell_s_own(with_claims):
    (only,) = compared(with_claims(claim({"gain": TUNED})))
    assert only.differences == (1.0, 0.5, 2.0) and only.published == 0.6
    assert only.verdict == "inconclusive" and only.interval[0] < 0 < only.interval[1]


def test_two_values_are_compared_seed_by_seed(with_claims):
    random = "table:control/random auxiliary:tune_acc"
    comparisons = {"value": TUNED, "than": random}, {"value": random, "than": TUNED}
    greater, less = compared(with_claims(claim(*comparisons)))
    assert greater.differences == (11.0, 11.5, 10.5) and greater.mean == 11.0
    assert greater.published is None and greater.verdict == ""
    assert less.differences == (-11.0, -11.5, -10.5)


def test_two_gains_are_compared_seed_by_seed(with_claims):
    random = "table:control/random auxiliary:tune_acc"
    (only,) = compared(with_claims(claim({"gain": TUNED, "than": random})))
    assert only.differences == (11.0, 11.5, 10.5)  # both have the same baseline


def test_the_published_value_is_the_difference_of_the_cells(with_claims):
    quoted = {"value": TUNED, "than": "table:pretrained/MAE:tune_acc"}
    (only,) = compared(with_claims(claim(quoted)))
    assert only.published == 0.6


def test_the_summary_has_a_line_for_each_comparison(with_claims):
    plan = with_claims(
        claim(
            {"gain": TUNED}, {"value": TUNED, "than": "table:control/random auxiliary:tune_acc"}, note="odd"
        ),
        {"claim": "It costs nothing", "source": "abstract", "elsewhere": "a test shows it"},
    )
    text = to_markdown(summarize(plan), "Measured so.")
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        *("1", "It helps (section 3)<br><sub>odd</sub>", "inconclusive", f"gain of `{TUNED}`"),
        *("+0.60", "+1.17", "-0.73 to +3.06", "inconclusive"),
    ]
    assert cells[1][:3] == ["", "", ""] and cells[1][4:] == ["", "**+11.00**", "+9.76 to +12.24", ""]
    assert cells[2] == ["2", "It costs nothing (abstract)", "", "a test shows it", "", "", "", ""]
    assert "Claims: 2, of which 1 inconclusive, 1 shown elsewhere." in text
    assert "Distinct comparisons: 2, of which 1 inconclusive, 1 without a verdict." in text
    assert "Measured so." in text and RULE in text and CLAIM_RULE in text
    assert "from the encoders of pretraining seed 0: the interval does not cover" in text


def test_a_comparison_that_several_claims_make_counts_once(with_claims):
    over_mae = {"value": TUNED, "than": "table:pretrained/MAE:tune_acc"}  # the same as the gain
    plan = with_claims(claim({"gain": TUNED}), claim({"gain": TUNED}, over_mae))
    text = to_markdown(summarize(plan), "")
    assert "Claims: 2, of which 2 inconclusive. Distinct comparisons: 1, of which 1 inconclusive." in text


def test_one_seed_gives_the_measured_numbers_and_no_difference(with_claims):
    random = "table:control/random auxiliary:tune_acc"
    comparisons = {"gain": TUNED}, {"value": TUNED, "than": random}, {"gain": TUNED, "than": random}
    plan = with_claims(claim(*comparisons), seeds=[1])
    text = to_markdown(summarize(plan), "")
    assert f"| gain of `{TUNED}` | +0.60 | 82.5 against 82.0 |  |  |" in text
    assert f"| `{TUNED}` over `{random}` |  | 82.5 against 71.0 |  |  |" in text
    assert "|  | 82.5 against 82.0, 71.0 against 82.0 |  |  |" in text
    assert re.findall(r"[-+]\d+\.\d+", text) == ["+0.60"]
    assert "Claims: 1, of which 1 without a verdict." in text
    assert ONE_SEED in text and RULE in text
    assert "bold" not in text and "pretraining seed" not in text  # of which there is none


def test_the_command_writes_the_summary(with_claims, capsys):
    plan = with_claims(claim({"gain": TUNED}))
    assert main(["summarize", *plan.arguments, "--expect", claims_digest(plan)]) == 0
    text = (plan.results / "summary.md").read_text()
    assert text in capsys.readouterr().out and f"Measured with {TINY}" in text
    assert (plan.results / "summary.made.txt").read_text().strip() in text
    assert main(["summarize", *plan.arguments, "--expect", "0"]) == 2


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        ({"gain": "table9:MAE:tune_acc"}, "no table 'table9'; the config's tables are table"),
        ({"gain": "table:MFF:tune_ac"}, "table has no column 'tune_ac'; its columns are tune_acc, fix_acc"),
        (
            {"gain": "table:M2PT:tune_acc"},
            "table has no method 'M2PT'; it has pretrained/MFF, pretrained/MAE",
        ),
        ({"gain": "table:MAE:tune_acc"}, "its row has no baseline"),
        ({"gain": "table:M2PT-Point:fix_acc"}, "row MAE does not run fix_acc; add it there"),
        ({"value": TUNED, "than": "table:MFF:tune_acc"}, "row MFF does not run tune_acc"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(with_claims, comparison, words):
    with pytest.raises(InputError) as error:
        read_claims(with_claims(claim({"gain": TUNED}, comparison)))
    assert "claims.yaml: " in str(error.value) and words in str(error.value)


@pytest.mark.parametrize(
    ("model", "value", "words"),
    [
        (Comparison, {"gain": TUNED, "value": TUNED, "than": TUNED}, "give either gain"),
        (Comparison, {"than": TUNED}, "give either gain"),
        (Comparison, {"value": TUNED}, "value needs than"),
        (Claim, {"claim": "It helps", "source": "abstract"}, "give either comparisons"),
        (Claim, claim({"gain": TUNED}, elsewhere="here"), "give either comparisons"),
        (Claims, {"claims": []}, "claims = []"),
    ],
)
def test_a_malformed_claim_is_refused(model, value, words):
    with pytest.raises(InputError) as error:
        validate(model, value, "claims.yaml")
    assert words in str(error.value)


def test_a_config_without_claims_says_how_to_name_them():
    with pytest.raises(InputError, match=r"config\.yaml: no claims file; set claims: "):
        read_claims(Plan.load(TINY, {"claims": None}))


def test_the_digest_follows_the_claims_the_tables_and_the_seeds(with_claims, tmp_path):
    plan = with_claims(claim({"gain": TUNED}))
    other = Plan.load(TINY, plan.overrides | {"seeds": [0]})
    before, fewer = claims_digest(plan), claims_digest(other)
    path = tmp_path / "claims.yaml"
    path.write_text(path.read_text().replace("It helps", "It does help"))
    assert len({before, fewer, claims_digest(plan)}) == 3


def test_a_setting_is_needed_only_where_a_method_stands_in_several():
    tables = {
        "table1": Plan.load(
            TINY, {"tables": ["config/tables/table1.yaml"], "figures": [], "claims": None}
        ).table("table1")
    }
    assert locate(tables, "table1:M2PT-Video:imagenet_tune_acc").row.setting == "pretrained"
    assert (
        locate(tables, "table1:scratch/M2PT-Point:coco_ap_box").name
        == "table1:scratch/M2PT-Point:coco_ap_box"
    )
    with pytest.raises(InputError, match="give table1:pretrained/M2PT-Point:coco_ap_box or table1:scratch/"):
        locate(tables, "table1:M2PT-Point:coco_ap_box")
    with pytest.raises(InputError, match="a cell is TABLE:METHOD:COLUMN"):
        locate(tables, "table1")


def test_the_shipped_claims_say_what_the_shipped_tables_say(tmp_path):
    plan = synthetic_plan(tmp_path, accuracy, config=Path("config/config.yaml"), seeds=[0])
    claims = read_claims(plan)
    tables = {name.partition(":")[0] for name in claims.cells}
    assert tables == {"table1", "table2a", "table2b", "table3", "table4", "table5", "agm_accuracy"}
    sources = " ".join(each.source for each in claims.claims)
    assert all(word in sources for word in ("abstract", "3.2", "3.3", "3.4.1", "3.4.2"))
    for each, comparisons in summarize(plan).claims:
        said = {float(number) for number in re.findall(r"\d+\.\d+", each.claim)}
        assert said <= {comparison.published for comparison in comparisons}, each.claim
        for comparison in comparisons:
            names = ", ".join(comparison.comparison.cells)
            assert comparison.published is None or comparison.published > 0, names
            without = ("control/", "agm_accuracy:")  # of AGM one number is known, of no comparison
            assert comparison.published is not None or any(word in names for word in without), names


DATASETS = {"avmnist", "cremad", "urfunny"}


def test_a_claim_of_agm_leaves_out_no_dataset_and_no_modality_without_a_note():
    """A dataset or a modality that was left out in silence would look like one that was picked."""
    plan = Plan.load(Path("config/config.yaml"))
    claims = [each for each in read_claims(plan).claims if each.source.startswith("AGM")]
    assert len(claims) == 5
    for each in claims:
        cells = [locate(plan.tables, name) for comparison in each.comparisons for name in comparison.cells]
        assert {place.column.dataset for place in cells} == DATASETS or each.note, each.claim
    alone = {
        (place.column.dataset, place.row.method.removesuffix(" alone"))
        for comparison in claims[0].comparisons
        for place in [locate(plan.tables, str(comparison.value))]
    }
    modalities = {name: plan.config.datasets[name].modalities for name in DATASETS}
    assert alone == {(name, modality) for name, each in modalities.items() for modality in each}


EARLY = "targets:VideoMAE:video_top1"


def test_a_claim_that_needs_an_empty_cell_is_undecided_and_says_so(with_claims):
    tables = ["tests/tiny/table.yaml", "tests/tiny/targets.yaml"]
    claims = [
        claim({"value": TUNED, "than": EARLY}),
        claim({"gain": TUNED}, {"value": EARLY, "than": TUNED}),
        claim({"gain": TUNED}),
    ]
    plan = with_claims(*claims, tables=tables, encoders=given_points())
    found = compared(plan)
    assert [each.verdict for each in found] == ["undecided", "inconclusive", "undecided", "inconclusive"]
    assert (found[0].differences, found[0].mean, found[0].interval) == ((), None, None)
    assert main(["summarize", *plan.arguments]) == 0
    text = (plan.results / "summary.md").read_text()
    assert "Claims: 3, of which 2 undecided, 1 inconclusive." in text
    assert "Distinct comparisons: 3, of which 2 undecided, 1 inconclusive." in text
    assert f"| undecided | `{TUNED}` over `{EARLY}` |  | a cell is left empty |  | undecided |" in text
    note = "targets:pretrained/VideoMAE:video_top1: left empty, since encoder pointcloud is a file, of which"
    assert f"\n- {note}" in text and f" {note}" in (plan.results / "summary.made.txt").read_text()


def test_a_gain_over_an_empty_baseline_is_undecided(with_claims, tmp_path):
    table = read_yaml(Path("tests/tiny/table.yaml"))
    table["rows"][1]["run"] = {"target_init": "pointcloud_early"}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    for seeds in ([0], [0, 1, 2]):
        plan = with_claims(
            claim({"gain": TUNED}, {"gain": TUNED, "than": "table:random auxiliary:tune_acc"}),
            tables=[str(tmp_path / "table.yaml")],
            encoders=given_points(),
            seeds=seeds,
            results=str(tmp_path / f"results{len(seeds)}"),
        )
        assert [each.verdict for each in compared(plan)] == ["undecided", "undecided"]
        assert "table:pretrained/MAE:tune_acc: left empty, since" in missing_cells(plan, ["summary"])[0]
