"""`import m2pt`: the library's names without its imports; and which parts of the package import which."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import m2pt
from m2pt import pathway

PACKAGE = Path("m2pt")
LIBRARY = {"errors", "ranges", "run_files", "job_log", "locks", "atomic", "formats"}
"""What every part but `pathway` and `agm` may import."""
SETTINGS = {
    "m2pt.modalities.settings",
    "m2pt.models.settings",
    "m2pt.models.multimodal_settings",
    "m2pt.training.settings",
}
"""Settings and defaults that a config holds too. Every part may import them; they import the library only."""
IMPORTS = {
    "errors": set(),
    "ranges": set(),
    "run_files": set(),
    "job_log": set(),
    "locks": set(),
    "atomic": set(),
    "formats": {"atomic", "errors"},
    "caches": set(),
    "provenance": set(),
    "pathway": set(),
    "agm": set(),
    "catalog": LIBRARY,
    "datasets": LIBRARY | {"catalog"},
    "modalities": LIBRARY,
    "models": LIBRARY | {"catalog", "modalities"},
    "checkpoints": LIBRARY | {"pathway", "modalities", "models"},
    "tasks": LIBRARY | {"agm", "datasets", "models"},
    "training": LIBRARY | {"datasets", "pathway"},
    "config": LIBRARY | {"catalog"},
    "results": LIBRARY | {"config"},
    "plan": LIBRARY | {"catalog", "config", "results"},
    "command_line": LIBRARY | {"plan"},
    "inputs": LIBRARY | {"datasets", "results", "config", "plan"},
    "build": LIBRARY | {"pathway", "catalog", "datasets", "models", "tasks", "config", "plan", "inputs"},
    "multimodal": LIBRARY | {"agm", "catalog", "datasets", "models", "plan", "inputs"},
    "selection": LIBRARY | {"agm", "tasks", "training"},
    "session": LIBRARY | {"provenance", "training", "config", "results", "plan", "inputs"},
    "evaluation": LIBRARY | {"pathway", "catalog", "tasks", "training", "plan", "session"},
    "reporting": LIBRARY | {"catalog", "config", "results", "plan"},
    "tracking": LIBRARY | {"config", "results"},
    "ops": LIBRARY
    | {"pathway", "agm", "catalog", "checkpoints", "datasets", "modalities", "models", "training", "config"}
    | {"results", "plan"}
    | {"command_line", "inputs", "build", "session", "reporting", "tracking"},
    "commands": LIBRARY
    | {
        "caches",
        "provenance",
        "pathway",
        "catalog",
        "checkpoints",
        "datasets",
        "models",
        "training",
        "config",
    }
    | {"results"}
    | {
        "plan",
        "command_line",
        "inputs",
        "build",
        "multimodal",
        "selection",
        "session",
        "evaluation",
        "reporting",
        "tracking",
    }
    | {"ops", "tasks"},
}
"""What each module or package of m2pt may import; see "Imports point one way" in docs/architecture.md."""


def test_importing_the_package_imports_no_torch_until_a_name_is_used() -> None:
    script = """
import sys, m2pt
assert m2pt.__version__ and set(m2pt.__all__) <= set(dir(m2pt))
print([name for name in sys.modules if name == "torch" or name.startswith("m2pt.")])
from m2pt import attach
print("torch" in sys.modules, attach.__module__)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "True m2pt.pathway.attaching"]


def test_the_names_are_those_of_the_pathway() -> None:
    assert m2pt.__all__ == pathway.__all__
    assert all(getattr(m2pt, name) is getattr(pathway, name) for name in m2pt.__all__)
    with pytest.raises(AttributeError, match="module 'm2pt' has no attribute 'atach'"):
        _ = m2pt.atach  # type: ignore[attr-defined]


def modules_imported_by(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: relative import"
            for alias in node.names:
                file = Path(*node.module.split("."), alias.name)
                is_module = file.with_suffix(".py").exists() or file.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def part(module: str) -> str:
    """Return the module or package directly below m2pt, "" for m2pt itself."""
    return (module + ".").split(".")[1]


def test_a_part_imports_only_parts_listed_before_it() -> None:
    order = list(IMPORTS)
    assert all(order.index(name) < order.index(part) for part, names in IMPORTS.items() for name in names)
    assert set(order) == {
        path.stem for path in PACKAGE.glob("[!_]*") if path.is_dir() or path.suffix == ".py"
    }


def test_imports_point_one_way() -> None:
    wrong, used = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        importer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if importer in ("__init__", "__main__"):
            continue
        is_settings = ".".join(path.with_suffix("").parts) in SETTINGS
        allowed = (LIBRARY if is_settings else IMPORTS[importer]) | {importer}
        for module in modules_imported_by(path):
            if module.split(".")[0] == "m2pt":
                used.add((importer, part(module)))
                if part(module) not in allowed and (is_settings or module not in SETTINGS):
                    wrong.append(f"{path} imports {module}")
    assert not wrong
    unused = {(name, each) for name, names in IMPORTS.items() for each in names - LIBRARY} - used
    assert not unused, "remove these from IMPORTS"


def test_the_pathway_agm_and_the_catalog_can_be_used_alone() -> None:
    """`pathway` and `agm` need torch alone; the catalog, read by `m2pt --help`, nothing heavy."""
    for name, others in {"pathway": {"torch", "m2pt"}, "agm": {"torch", "m2pt"}, "catalog": {"m2pt"}}.items():
        paths = (PACKAGE / name).rglob("*.py")
        found = {module.split(".")[0] for path in paths for module in modules_imported_by(path)}
        assert found - sys.stdlib_module_names <= others
