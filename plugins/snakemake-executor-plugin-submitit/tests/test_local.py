"""Whole workflows without Slurm: jobs as processes of this machine."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import snakemake.common.tests

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.local import Local
from snakemake_executor_plugin_submitit.processes import handles_signal

COUNTING = Path(__file__).parent / "helpers/counting.py"


class TestReference(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    """Snakemake's own tests of executor plugins."""

    __test__ = True

    def get_executor(self):
        return "submitit"

    def get_executor_settings(self):
        return ExecutorSettings(cluster="local")


def start(folder: Path, *arguments: str, cluster: str = "local") -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--executor",
        "submitit",
        "--submitit-cluster",
        cluster,
        "--jobs",
        "4",
    ]
    command += ["--seconds-between-status-checks", "1", "--rerun-incomplete", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str, code: int = 0, cluster: str = "local") -> str:
    process = start(folder, *arguments, cluster=cluster)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def snakefile(folder: Path, text: str) -> None:
    (folder / "Snakefile").write_text(textwrap.dedent(text))


def counting_rule(folder: Path, *, steps: int, seconds: float) -> None:
    snakefile(
        folder,
        f"""
        rule count:
            output: "steps.txt"
            shell: "python3 {COUNTING} {{output}} {folder}/state.txt {steps} {seconds}"
        """,
    )


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path.name} was not made")


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def counting_process(folder: Path) -> psutil.Process:
    for _ in range(300):
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            ours = {str(COUNTING), str(folder / "state.txt")} <= set(words)
            if ours and handles_signal(process.pid, signal.SIGUSR1):
                return process
        time.sleep(0.1)
    raise AssertionError("the program did not start")


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_failure_is_shown_with_the_end_of_the_log_and_the_rest_continues(tmp_path, cluster):
    snakefile(
        tmp_path,
        """
        rule all:
            input: "good.txt", "bad.txt"
        rule good:
            output: "good.txt"
            shell: "touch {output}"
        rule bad:
            output: "bad.txt"
            shell: "echo a word of farewell; exit 3"
        """,
    )
    output = run(tmp_path, "--keep-going", code=1, cluster=cluster)
    assert (tmp_path / "good.txt").exists()
    assert "exit code 1" in output and "a word of farewell" in output and "_0_log.out" in output


def test_a_program_that_saved_is_restarted(tmp_path):
    counting_rule(tmp_path, steps=30, seconds=0.2)
    process = start(tmp_path)
    counting_process(tmp_path).send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert (tmp_path / "steps.txt").read_text() == "".join(f"{step}\n" for step in range(30))
    (log,) = (tmp_path / ".snakemake/submitit/jobs").glob("*.out")
    assert log.read_text().count("saved after step") == 1


def test_restarts_without_a_warning_are_bounded(tmp_path):
    snakefile(
        tmp_path,
        """
        rule crashes:
            output: "done.txt"
            shell: "echo x >> starts; touch $REQUEUE_MARKER; exit 75"
        """,
    )
    assert "requested 4 restarts in a row without a warning" in run(tmp_path, code=1)
    assert (tmp_path / "starts").read_text() == 4 * "x\n"


def test_a_new_snakemake_adopts_the_job_of_a_killed_one(tmp_path):
    snakefile(
        tmp_path,
        """
        rule wait:
            output: "done.txt"
            shell: "touch started; until test -e go; do sleep 0.2; done; echo x >> {output}"
        """,
    )
    process = start(tmp_path)
    wait_for(tmp_path / "started")
    process.kill()
    process.wait()
    subprocess.run(["snakemake", "--unlock", "--quiet"], cwd=tmp_path, check=True, capture_output=True)
    process = start(tmp_path)
    first = ""
    while ": local job " not in first and (line := process.stdout.readline()):
        first += line
    (tmp_path / "go").touch()
    rest, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "not submitted again" in first, first + rest
    assert (tmp_path / "done.txt").read_text() == "x\n"
    assert len(list((tmp_path / ".snakemake/submitit/jobs").glob("*_submitted.pkl"))) == 1


@pytest.mark.parametrize("ask", [os.kill, os.killpg], ids=["signal to Snakemake", "Ctrl-C in a terminal"])
def test_ctrl_c_lets_programs_save(tmp_path, ask):
    """Each step, and with it the saving, takes longer than submitit waits before it kills."""
    counting_rule(tmp_path, steps=40, seconds=3)
    process = start(tmp_path)
    program = counting_process(tmp_path)
    ask(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    assert not program.is_running()  # a new start would meet it
    assert (tmp_path / "state.txt").exists(), output


def test_cancelling_reaches_a_program_that_outlived_its_job(tmp_path):
    local = Local(tmp_path / "submitit/jobs", max_restarts=1)
    marker = tmp_path / "submitit/markers/rule-1.0"
    marker.parent.mkdir(parents=True)
    there = {**os.environ, "SUBMITIT_LOCAL_JOB_ID": "7"}
    count = [
        sys.executable,
        str(COUNTING),
        str(tmp_path / "steps.txt"),
        str(tmp_path / "state.txt"),
        "900",
        "1",
    ]
    orphan = subprocess.Popen(count, env={**there, "REQUEUE_MARKER": str(marker)})
    foreign = subprocess.Popen(
        ["sleep", "60"], env={**there, "REQUEUE_MARKER": "/elsewhere/markers/rule-1.0"}
    )
    try:
        counting_process(tmp_path)
        local.cancel(["8"])
        assert orphan.poll() is None
        local.cancel(["7"])
        assert orphan.wait() == 75 and foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_a_second_snakemake_in_the_same_folder_is_refused(tmp_path):
    snakefile(
        tmp_path,
        """
        rule first:
            output: "first.txt"
            shell: "touch begun; until test -e go; do sleep 0.2; done; touch {output}"
        rule second:
            output: "second.txt"
            shell: "touch {output}"
        """,
    )
    process = start(tmp_path, "first.txt")
    wait_for(tmp_path / "begun")
    output = run(tmp_path, "second.txt", code=1)
    assert (
        f"another Snakemake (process {process.pid} on " in output and not (tmp_path / "second.txt").exists()
    )
    (tmp_path / "go").touch()
    process.communicate(timeout=600)
    assert process.returncode == 0
    run(tmp_path, "second.txt")


def test_a_job_that_makes_the_same_files_by_another_command_is_cancelled(tmp_path):
    rule = 'rule make:\n    output: "made.txt"\n    shell: "touch begun; sleep {} && echo {} >> {{output}}"\n'
    (tmp_path / "Snakefile").write_text(rule.format(300, "old"))
    process = start(tmp_path)
    wait_for(tmp_path / "begun")
    process.kill()
    process.wait()
    subprocess.run(["snakemake", "--unlock", "--quiet"], cwd=tmp_path, check=True, capture_output=True)
    (old,) = [p for p in psutil.process_iter() if "sleep 300 && echo old" in " ".join(_words(p))][:1]
    (tmp_path / "Snakefile").write_text(rule.format(0, "new"))
    output = run(tmp_path)
    assert "it makes the same files differently" in output
    assert not old.is_running() and (tmp_path / "made.txt").read_text() == "new\n"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--submitit-cluster", "cloud", "submitit-cluster must be one of slurm, local, debug, got 'cloud'"),
        ("--submitit-warning-signal", "USR1", "must be the name of a signal, such as SIGUSR1, got 'USR1'"),
        ("--submitit-array-size", "0", "submitit-array-size must be >= 1, got 0"),
    ],
)
def test_invalid_settings_are_refused_before_anything_runs(tmp_path, option, value, words):
    snakefile(tmp_path, 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"')
    assert words in run(tmp_path, option, value, code=1)
    assert not (tmp_path / "a.txt").exists()
