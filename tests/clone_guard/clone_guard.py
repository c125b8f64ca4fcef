"""Keeps tests away from what this clone has made: its results/, checkpoints/ and .snakemake/.

A test that finds results there passes or fails by what was run in the clone before, and one that writes there
spoils them. Three things together make this impossible:

- tests run in an empty folder with links to the clone's files (`mirror`), so that a relative path such as
  `results` leads nowhere near the clone's;
- an audit hook, and wrappers of the calls that Python does not audit, refuse every access by another path;
- every Python process that a test starts has them too: `sitecustomize.py` beside this file installs them.

No program may be started in the clone, nor be given the clone itself or a path below these folders.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDERS = ("results", "checkpoints", ".snakemake")
CLONE, LOG = "M2PT_TESTS_CLONE", "M2PT_TESTS_CLONE_SEEN"
"""Environment variables: the clone, and the file in which each refusal is noted, whoever catches it."""

_AUDITED = ("open", "os.", "shutil.", "sqlite3.connect", "subprocess.", "glob.", "pathlib.")
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn")
_NOT_AUDITED = ("stat", "lstat", "access", "readlink", "statvfs")

_guarded: set[str] = set()


class SeesTheClone(AssertionError):
    """A test looks at, or changes, what the clone has made."""


def install(clone: str) -> None:
    """Refuse to this process, and to those that it forks, whatever lies in the clone's own folders."""
    if clone in _guarded:
        return
    _guarded.add(clone)
    clones = {clone, os.path.realpath(clone)}
    roots, folders = ("|".join(map(re.escape, names)) for names in (clones, FOLDERS))
    own = re.compile(rf"(?<![\w.-])(?:{roots})/(?:{folders})(?![\w.-])")
    whole = re.compile(rf"(?<![\w.-])(?:{roots})/?(?![\w./-])")

    def refuse(what: str) -> None:
        if _is_looking_for_modules():
            return
        message = f"{what}: no test may see or change what this clone has made; use tmp_path"
        with Path(os.environ[LOG]).open("a", encoding="utf-8") as file:
            file.write(f"{message}\n")
        raise SeesTheClone(message)

    looking = threading.local()

    def look(value: Any) -> None:
        if clone not in _guarded or getattr(looking, "now", False):  # to resolve a path is to look, too
            return
        looking.now = True
        try:
            seen = [text for text in _texts(value) if own.search(text) or own.match(_absolute(text))]
        finally:
            looking.now = False
        for text in seen:
            refuse(text)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if clone not in _guarded or not event.startswith(_AUDITED):
            return
        for argument in arguments:
            look(argument)
        if event not in _STARTS:
            return
        words = [word for word in _texts(arguments[:2]) if whole.search(word)]
        folder = arguments[2] if event == "subprocess.Popen" else None
        if words or os.path.realpath(folder or ".") in clones:
            refuse(f"a program that works in {clone}: {words or arguments[:2]}")

    sys.addaudithook(hook)
    for name in _NOT_AUDITED:
        _wrap(name, look)


def release() -> None:
    """Refuse nothing more in this process."""
    _guarded.clear()


def pass_on(clone: str, log: str) -> None:
    """Install the same in every Python process that this one starts, whatever environment it is given."""
    start = subprocess.Popen.__init__

    def started(self: Any, *arguments: Any, env: Mapping[str, str] | None = None, **options: Any) -> None:
        start(self, *arguments, env=_environment(os.environ if env is None else env, clone, log), **options)

    subprocess.Popen.__init__ = started  # type: ignore[method-assign]
    os.environ.update(_environment(os.environ, clone, log))


def mirror(clone: Path, folder: Path) -> Path:
    """Make a folder with links to the clone's files and folders, except those that the clone has made."""
    folder.mkdir()
    for path in clone.iterdir():
        if path.name not in (*FOLDERS, ".git"):
            (folder / path.name).symlink_to(path)
    return folder


def _environment(given: Mapping[str, str], clone: str, log: str) -> dict[str, str]:
    here = str(Path(__file__).parent)
    paths = [each for each in given.get("PYTHONPATH", "").split(os.pathsep) if each not in ("", here)]
    return {**given, "PYTHONPATH": os.pathsep.join([here, *paths]), CLONE: clone, LOG: log}


def _wrap(name: str, look: Any) -> None:
    """Replace a function of `os` by one that looks at the path first; it can as much as the other."""
    function = getattr(os, name)

    def wrapped(path: Any, *arguments: Any, **options: Any) -> Any:
        look(path)
        return function(path, *arguments, **options)

    setattr(os, name, wrapped)
    for able in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
        if function in able:
            able.add(wrapped)


def _is_looking_for_modules() -> bool:
    """Whether Python lists what can be imported, for which it looks into every folder beside the packages."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_globals.get("__name__") == "pkgutil":
            return True
    return False


def _texts(value: Any) -> Iterator[str]:
    """The paths or words in an argument; a number is an open file."""
    if isinstance(value, str | bytes | os.PathLike):
        yield os.fsdecode(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _absolute(path: str) -> str:
    try:
        return os.path.realpath(path) if ".." in path else os.path.abspath(path)  # noqa: PTH100
    except (OSError, ValueError):  # no current folder any more; no path at all
        return path
