"""Provenance of a result, stored in every result file: code, packages, machine."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("m2pt", "torch", "torchvision", "timm", "accelerate", "numpy")


def provenance(*, threads: int, device: str, manifest_digest: str) -> dict[str, Any]:
    """Return git commit ("-dirty" with uncommitted changes), package versions, machine, processes, device."""
    job = os.environ.get("SLURM_JOB_ID")
    return {
        "git_commit": git_commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
        **({"slurm_job": job} if job else {}),
        "device": device,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": threads,
        "dataset_manifest": manifest_digest,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_commit() -> str:
    """Return the commit of the running code, or "unknown" outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
