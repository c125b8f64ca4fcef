"""Rules and resources of a kind of run: what is missing is named with the file to edit."""

import shutil
from pathlib import Path

import pytest

from m2pt import catalog
from m2pt.catalog import KINDS
from m2pt.commands import main
from m2pt.ops.workflow_files import workflow_faults

PROFILE = Path("profiles/slurm/config.yaml")
RULES = Path("workflow/rules")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the project's workflow, to be changed."""
    shutil.copy("Snakefile", tmp_path)
    for name in ("workflow", "profiles"):
        shutil.copytree(name, tmp_path / name)
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_shipped_workflow_has_all_kinds(folder: Path) -> None:
    assert list(workflow_faults(KINDS, folder)) == []
    assert list(workflow_faults(KINDS, Path())) == []


def test_a_rule_that_is_missing_is_named(folder: Path) -> None:
    replace(folder / RULES / "finetune.smk", "rule evaluate:", "rule evaluation:")
    (fault,) = workflow_faults(KINDS, folder)
    assert fault == (
        "kind finetune: no rule evaluate in Snakefile or the files that it includes; write it in "
        "workflow/rules/finetune.smk and include that file in Snakefile"
    )


def test_a_file_of_rules_that_is_not_included_does_not_count(folder: Path) -> None:
    replace(folder / "Snakefile", 'include: "workflow/rules/transfer.smk"\n', "")
    (fault,) = workflow_faults(KINDS, folder)
    assert fault.startswith("kind transfer: no rule transfer in Snakefile")


INCLUDED = 'include: "workflow/rules/transfer.smk"\n'
SINGLE, DOUBLE = 3 * "'", 3 * '"'


@pytest.mark.parametrize(
    "line", [f"# {INCLUDED}", f"  # {INCLUDED}", INCLUDED.replace("transfer", "my_transfer")]
)
def test_a_line_that_includes_nothing_does_not_count(folder: Path, line: str) -> None:
    replace(folder / "Snakefile", INCLUDED, line)
    (fault,) = workflow_faults(KINDS, folder)
    assert fault.startswith("kind transfer: no rule transfer in Snakefile")


@pytest.mark.parametrize(
    "line",
    [
        "include: 'workflow/rules/transfer.smk'\n",
        'include:\n    "workflow/rules/transfer.smk"\n',
        'if True:\n    include: str(Path("workflow/rules") / "transfer.smk")  # ours\n',
    ],
)
def test_a_file_may_be_included_in_another_form(folder: Path, line: str) -> None:
    replace(folder / "Snakefile", INCLUDED, line)
    assert list(workflow_faults(KINDS, folder)) == []


@pytest.mark.parametrize(
    "quotes", [("# ", ""), (f"{SINGLE}\n", f"\n{SINGLE}"), (f"{DOUBLE}\n", f"\n{DOUBLE}")]
)
def test_a_rule_that_is_only_mentioned_does_not_count(folder: Path, quotes: tuple[str, str]) -> None:
    (folder / RULES / "transfer.smk").write_text('rule transfer: RULES.runs("transfer")'.join(quotes))
    (fault,) = workflow_faults(KINDS, folder)
    assert fault.startswith("kind transfer: no rule transfer in Snakefile")


@pytest.mark.parametrize("runs", ['RULES.runs("finetune")', '"[a-z]+"', 'RULES.runs("transfers")'])
def test_a_rule_for_other_runs_is_named(folder: Path, runs: str) -> None:
    replace(folder / RULES / "transfer.smk", 'RULES.runs("transfer")', runs)
    (fault,) = workflow_faults(KINDS, folder)
    assert fault == (
        "kind transfer: the rule transfer takes other runs than those of m2pt transfer; under its "
        'wildcard_constraints, write: run=RULES.runs("transfer")'
    )


def test_a_derived_rule_counts(folder: Path) -> None:
    replace(folder / RULES / "finetune.smk", "rule merge:", "use rule finetune as merge with:")
    assert list(workflow_faults(KINDS, folder)) == []


def test_resources_that_are_missing_are_named(folder: Path) -> None:
    replace(folder / PROFILE, "  transfer: *training\n", "")
    (fault,) = workflow_faults(KINDS, folder)
    assert fault.startswith("kind transfer: profiles/slurm/config.yaml gives the rule transfer no resources")
    assert fault.endswith("under set-resources, add: 'transfer: *training'")


@pytest.mark.parametrize("resources", ["", " {}", " 3", " []"])
def test_a_rule_without_resources_is_named(folder: Path, resources: str) -> None:
    replace(folder / PROFILE, "  transfer: *training\n", f"  transfer:{resources}\n")
    (fault,) = workflow_faults(KINDS, folder)
    assert "gives the rule transfer no resources" in fault


@pytest.mark.parametrize("entry", ["3", "x", "[transfer, 3]", "null"])
def test_resources_of_another_form_do_not_count(folder: Path, entry: str) -> None:
    (folder / PROFILE).write_text(f"set-resources: {entry}\n")
    launched = [name for name, each in catalog.commands().items() if each.launchable]
    assert len(list(workflow_faults(KINDS, folder))) == len(launched)


def test_a_command_that_is_not_launched_needs_no_resources(folder: Path) -> None:
    assert "  merge:" not in (folder / PROFILE).read_text()
    assert not catalog.commands()["merge"].launchable
    assert list(workflow_faults(["finetune"], folder)) == []


@pytest.mark.parametrize("entry", ["{transfer: {gpus: 1}}", "['transfer:gpus=1']"])
def test_resources_in_a_profile_of_the_user_count(folder: Path, entry: str) -> None:
    replace(folder / PROFILE, "  transfer: *training\n", "")
    (folder / "profiles/mine").mkdir()
    (folder / "profiles/mine/config.yaml").write_text(f"set-resources: {entry}\n")
    assert list(workflow_faults(KINDS, folder)) == []


def test_without_the_slurm_profile_no_resources_are_needed(folder: Path) -> None:
    (folder / PROFILE).unlink()
    assert list(workflow_faults(KINDS, folder)) == []


def test_nothing_is_checked_where_there_is_no_workflow(folder: Path) -> None:
    shutil.rmtree(folder / "workflow")
    assert len(list(workflow_faults(KINDS, folder))) == len(catalog.commands())
    (folder / "Snakefile").unlink()
    assert list(workflow_faults(KINDS, folder)) == []


def test_the_check_of_a_config_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(folder / PROFILE, "  finetune: *training\n", "")
    (folder / "tests").symlink_to(Path("tests").absolute())
    monkeypatch.chdir(folder)
    backbone = "backbone={dim: 18, depth: 4, num_heads: 3}"
    assert main(["check", "--config", "tests/tiny/config.yaml", "--set", backbone]) == 2
    said = capsys.readouterr().err
    assert "kind finetune: profiles/slurm/config.yaml gives the rule finetune no resources" in said
    assert "must be a multiple of 4" in said  # and what is wrong with the models
