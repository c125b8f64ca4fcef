"""The guard bites: tests in a copy of the clone that look at its results fail, by whatever way they look."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import clone_guard
import pytest

REPOSITORY = Path(__file__).parents[1]

TESTS = """
import contextlib, multiprocessing, os, shutil, sqlite3, subprocess, sys
from pathlib import Path
import pytest

CLONE = Path(__file__).parents[1]
FOUND = CLONE / "results" / "found.txt"
READ = "import sys; open(sys.argv[1] + '/results/found.txt')"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {READ!r}, sys.argv[1]])"

def swallowed():
    with contextlib.suppress(Exception):
        FOUND.read_text()

def forked():
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            FOUND.read_text()
        os._exit(0)
    os.waitpid(child, 0)

def spawned():
    process = multiprocessing.get_context("spawn").Process(target=os.listdir, args=(FOUND.parent,))
    process.start()
    process.join()

def python(code, *arguments, **options):
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.DEVNULL, **options)

LOOKS = {
    "read": lambda: FOUND.read_text(),
    "bytes": lambda: open(os.fsencode(FOUND)),
    "descriptor": lambda: os.open(FOUND, os.O_RDONLY),
    "exists": lambda: FOUND.exists(),
    "is_dir": lambda: (CLONE / "checkpoints").is_dir(),
    "lexists": lambda: os.path.lexists(FOUND),
    "access": lambda: os.access(FOUND, os.R_OK),
    "resolve": lambda: FOUND.resolve(),
    "list": lambda: os.listdir(FOUND.parent),
    "iterate": lambda: list(FOUND.parent.iterdir()),
    "walk": lambda: list(os.walk(CLONE)),
    "glob": lambda: list(CLONE.glob("*/*.txt")),
    "upwards": lambda: Path("tests/../results/found.txt").exists(),
    "write": lambda: (CLONE / ".snakemake" / "x").write_text("x"),
    "make": lambda: (CLONE / "results" / "new").mkdir(),
    "remove": lambda: FOUND.unlink(),
    "rename": lambda: FOUND.rename("x"),
    "copy": lambda: shutil.copytree(CLONE, "copy"),
    "link": lambda: Path("link").symlink_to(FOUND.parent),
    "touch": lambda: os.utime(FOUND),
    "truncate": lambda: os.truncate(FOUND, 0),
    "enter": lambda: os.chdir(FOUND.parent),
    "enter and look": lambda: (os.chdir(CLONE), os.listdir("results")),
    "enter and start": lambda: (os.chdir("tests/.."), subprocess.run(["ls", "results"])),
    "enter and call": lambda: (os.chdir(CLONE), os.system("ls results")),
    "stay": lambda: os.chdir(CLONE),
    "database": lambda: sqlite3.connect(f"file:{FOUND.parent}/mlflow.db?mode=ro", uri=True),
    "swallowed": swallowed,
    "forked": forked,
    "spawned": spawned,
    "program": lambda: subprocess.run(["cat", FOUND]),
    # the guard must see what a shell is told, so shell=True is what is tested
    "shell": lambda: subprocess.run(f"cat {FOUND}", shell=True),
    "system": lambda: os.system(f"cat {FOUND}"),
    "inside": lambda: subprocess.run(["ls"], cwd=FOUND.parent),
    "replaced": lambda: os.spawnvp(os.P_WAIT, "cat", ["cat", FOUND]),
    "whole": lambda: subprocess.run(["ls", "-R", CLONE]),
    "go there": lambda: subprocess.run(f"cd {CLONE} && cat results/found.txt", shell=True),
    "make there": lambda: subprocess.run(["make", f"--directory={CLONE}/", "table1"]),
    "beside": lambda: subprocess.run(["cat", "results/found.txt"], cwd=CLONE),
    "python": lambda: python(READ, CLONE),
    "bare": lambda: python(READ, CLONE, env={}),
    "own path": lambda: python(READ, CLONE, env={**os.environ, "PYTHONPATH": str(CLONE)}),
    "grandchild": lambda: python(GRANDCHILD, CLONE),
}

@pytest.mark.parametrize("look", LOOKS)
def test_look(look):
    LOOKS[look]()

def test_elsewhere(tmp_path):
    assert not Path("results").exists() and not Path(".snakemake").exists()
    subprocess.run(["ls", CLONE / "tests", f"{CLONE}/results.md"], check=True)
    assert Path("tests/conftest.py").read_text() == (CLONE / "tests/conftest.py").read_text()
    assert (CLONE / "results.md").read_text() == "no result" and "results.md" in os.listdir(CLONE)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/x").write_text("x")
    Path("results").mkdir()
    subprocess.run(["ls", tmp_path / "results", "results"], check=True)
    assert len(list(Path("results").parent.iterdir())) > 2
"""


def test_no_test_sees_what_the_clone_has_made(tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "tests/clone_guard", clone / "tests/clone_guard")
    shutil.copy(REPOSITORY / "tests/conftest.py", clone / "tests")
    for folder in clone_guard.FOLDERS:
        (clone / folder).mkdir()
    (clone / "results/found.txt").write_text("found")
    (clone / "results.md").write_text("no result")
    (clone / "tests/test_looks.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "tests"]
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        command, cwd=clone, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    looks = re.findall(r'^    "([a-z_ ]+)": ', TESTS, re.MULTILINE)
    failed = set(
        re.findall(r"^(?:FAILED|ERROR) tests/test_looks.py::test_look\[(.*?)\]", run.stdout, re.MULTILINE)
    )
    assert len(looks) > 30 and failed == set(looks), run.stdout
    assert "test_elsewhere" not in re.findall(r"^(?:FAILED|ERROR) .*::(\w+)", run.stdout, re.MULTILINE), (
        run.stdout
    )
    assert run.stdout.count("no test may see or change what this clone has made") >= len(looks)
    assert (clone / "results/found.txt").read_text() == "found"
    assert not list((clone / ".snakemake").iterdir()) and len(list((clone / "results").iterdir())) == 1


def test_this_very_test_is_guarded():
    with pytest.raises(clone_guard.SeesTheClone):
        (REPOSITORY / "results").exists()
    log = Path(os.environ[clone_guard.LOG])
    assert "no test may see" in log.read_text()
    log.write_text("")
    assert Path.cwd() != REPOSITORY
