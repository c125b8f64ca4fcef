"""The names of files and folders: each is spelled once, and patterns match what functions return."""

import ast
from collections.abc import Iterator
from pathlib import Path

from m2pt import run_files

NAMES = {
    value
    for key, value in vars(run_files).items()
    if key.isupper() and isinstance(value, str) and "." in value.strip(".")
}
"""File names, with their suffix."""


def literals(path: Path) -> Iterator[str]:
    """Yield the strings of a module, also the constant parts of f-strings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_other_module_and_no_rule_spells_a_file_name() -> None:
    assert {"run.json", "final.pt", "made.txt", "merged.safetensors"} <= NAMES
    others = [path for path in Path("m2pt").rglob("*.py") if path.name != "run_files.py"]
    found = [f"{path}: {text}" for path in others for text in literals(path) if text.strip("./") in NAMES]
    rules = [Path("Snakefile"), *Path("workflow/rules").glob("*.smk")]
    in_rules = NAMES - {run_files.CONFIG}  # the default config has the same name
    found += [f"{path}: {name}" for path in rules for name in in_rules if name in path.read_text()]
    assert len(others) > 150 and len(rules) > 5 and not found


def test_names_with_a_number_match_their_patterns() -> None:
    assert run_files.ENCODER_EPOCH.fullmatch(run_files.encoder_after(220))
    assert not run_files.ENCODER_EPOCH.fullmatch(run_files.ENCODER)
    folder = run_files.training_folder(Path("results/runs"), "name", 12)
    assert folder == Path("results/runs/name/seed12") and run_files.SEED_FOLDER.fullmatch(folder.name)
    assert not run_files.SEED_FOLDER.fullmatch("seedling")
