"""Processes that tests start import this working copy of the plugin, whether or not it is installed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGIN = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PLUGIN, os.environ.get("PYTHONPATH")]))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a script that starts pytest with `&` makes it ignore SIGINT, which child processes must not inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

HOUR_S = 3600


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets what `scontrol` prints about this job, which started an hour ago.

    `end` and `preempt` are in seconds from now. A script replaces the command altogether.
    """
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # the last task of an array has the id of the array here
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")

    def answer(
        script: str = "", *, state: str = "RUNNING", end: float = HOUR_S, preempt: float | None = None
    ):
        def when(seconds: float | None) -> str:
            return "None" if seconds is None else f"{time.time() + seconds:.0f}"

        line = f"JobId=9 ArrayJobId=7 ArrayTaskId=2 JobName=train UserId=me(1) JobState={state} Requeue=1"
        line += f" TimeLimit=01:00:00 StartTime={when(-HOUR_S)} EndTime={when(end)} Deadline=N/A"
        line += (
            f" PreemptEligibleTime={when(-HOUR_S)} PreemptTime={when(preempt)} SuspendTime=None Comment=a b"
        )
        expected = 'test "$SLURM_TIME_FORMAT $*" = "%s --oneliner show job 7_2" || exit 1'
        lines = ["#!/bin/sh", script or f"{expected}; echo '{line}'"]
        (tools / "scontrol").write_text("\n".join(lines))
        (tools / "scontrol").chmod(0o755)

    return answer
