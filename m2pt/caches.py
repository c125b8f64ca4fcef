"""A place for what libraries keep between runs, where the home folder cannot be written."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def provide_cache() -> None:
    """Set XDG_CACHE_HOME and MPLCONFIGDIR to a temporary folder unless there is one that can be written.

    Nodes of some clusters have no home folder, and containers one that is read-only; matplotlib warns of it
    with every figure. Where nothing at all can be written, both stay as they are.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.expanduser fails where there is no home
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    with suppress(OSError):
        cache.mkdir(exist_ok=True)
    if not _is_writable(cache):
        try:
            cache = _folder_of_user()
        except OSError:
            return
        os.environ["XDG_CACHE_HOME"] = str(cache)
    if not _is_writable(home):
        os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in it; permissions alone do not tell, least of all root's."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _folder_of_user() -> Path:
    """The same for all of a user's processes on a machine, so that the next one finds what this one kept."""
    folder = Path(tempfile.gettempdir()) / f"m2pt-cache-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _is_writable(folder):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="m2pt-cache-"))
