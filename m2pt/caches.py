"""A cache folder for libraries where the home folder is not writable."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def provide_cache() -> None:
    """Set XDG_CACHE_HOME and MPLCONFIGDIR to a temporary folder unless their defaults are writable.

    Nodes of some clusters have no home folder, and containers may have a read-only one; matplotlib then warns
    with every figure. If no folder is writable at all, the variables are left unchanged.
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
    """Return whether a file can be created in the folder; permission bits are not enough, as for root."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _folder_of_user() -> Path:
    """Return a temporary folder that all processes of a user on this machine share, to reuse the cache."""
    folder = Path(tempfile.gettempdir()) / f"m2pt-cache-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _is_writable(folder):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="m2pt-cache-"))
