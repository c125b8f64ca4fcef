"""A place for what libraries keep between runs, where the home folder cannot be written."""

import os
import tempfile
from pathlib import Path


def provide_cache() -> None:
    """Set XDG_CACHE_HOME and MPLCONFIGDIR to a temporary folder unless there is one that can be written.

    Nodes of some clusters have no home folder, and containers one that is read-only; matplotlib warns of it
    with every figure.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.expanduser fails where there is no home
    cache = os.environ.get("XDG_CACHE_HOME")
    home_is_writable = _is_writable(home)
    if not (_is_writable(Path(cache)) if cache else home_is_writable):
        os.environ["XDG_CACHE_HOME"] = _folder_of_user()
    if not home_is_writable:
        os.environ.setdefault("MPLCONFIGDIR", str(Path(os.environ["XDG_CACHE_HOME"]) / "matplotlib"))


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in it; permissions alone do not tell, least of all root's."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _folder_of_user() -> str:
    """The same for all of a user's processes on a machine, so that the next one finds what this one kept."""
    folder = Path(tempfile.gettempdir()) / f"m2pt-cache-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _is_writable(folder):
            return str(folder)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="m2pt-cache-")
