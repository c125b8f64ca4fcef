"""The executor plugin without Slurm: as processes of this machine."""

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
from snakemake_executor_plugin_submitit.processes import wants

REPOSITORY = Path(__file__).parents[1]
COUNTING = REPOSITORY / "tests/slurm/counting.py"


class TestReference(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    """The tests that Snakemake offers to executor plugins."""

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
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str, code: int = 0, cluster: str = "local") -> str:
    process = start(folder, *arguments, cluster=cluster)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    return said


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


def exists(path: Path) -> None:
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
            if ours and wants(process.pid, signal.SIGUSR1):
                return process
        time.sleep(0.1)
    raise AssertionError("the program did not start")


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_failure_is_shown_with_the_end_of_the_log_and_the_rest_goes_on(tmp_path, cluster):
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
    said = run(tmp_path, "--keep-going", code=1, cluster=cluster)
    assert (tmp_path / "good.txt").exists()
    assert "exit code 1" in said and "a word of farewell" in said and "_0_log.out" in said


def test_a_program_that_saved_and_says_so_is_started_again(tmp_path):
    counting_rule(tmp_path, steps=30, seconds=0.2)
    process = start(tmp_path)
    counting_process(tmp_path).send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (tmp_path / "steps.txt").read_text() == "".join(f"{step}\n" for step in range(30))
    (log,) = (tmp_path / ".snakemake/submitit/jobs").glob("*.out")
    assert log.read_text().count("saved after step") == 1


def test_a_program_that_nobody_warned_is_not_started_again_for_ever(tmp_path):
    snakefile(
        tmp_path,
        """
        rule crashes:
            output: "done.txt"
            shell: "echo x >> starts; touch $REQUEUE_MARKER; exit 75"
        """,
    )
    assert "stopped 4 times with the job unwarned" in run(tmp_path, code=1)
    assert (tmp_path / "starts").read_text() == 4 * "x\n"


def test_a_new_controller_takes_up_a_process_of_a_dead_one(tmp_path):
    snakefile(
        tmp_path,
        """
        rule wait:
            output: "done.txt"
            shell: "touch started; until test -e go; do sleep 0.2; done; echo x >> {output}"
        """,
    )
    process = start(tmp_path)
    exists(tmp_path / "started")
    process.kill()
    process.wait()
    subprocess.run(["snakemake", "--unlock", "--quiet"], cwd=tmp_path, check=True, capture_output=True)
    process = start(tmp_path)
    first = ""
    while " is job " not in first and (line := process.stdout.readline()):
        first += line
    (tmp_path / "go").touch()
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "it is not submitted again" in first, first + rest
    assert (tmp_path / "done.txt").read_text() == "x\n"
    assert len(list((tmp_path / ".snakemake/submitit/jobs").glob("*_submitted.pkl"))) == 1


@pytest.mark.parametrize("ask", [os.kill, os.killpg], ids=["signal to Snakemake", "Ctrl-C in a terminal"])
def test_ctrl_c_ends_the_processes_which_save(tmp_path, ask):
    """Each step, and with it the saving, takes longer than submitit waits before it kills."""
    counting_rule(tmp_path, steps=40, seconds=3)
    process = start(tmp_path)
    program = counting_process(tmp_path)
    ask(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert not program.is_running()  # a new start would meet it
    assert (tmp_path / "state.txt").exists(), said


def test_a_program_that_outlived_its_job_is_asked_to_save_when_that_is_cancelled(tmp_path):
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


def test_a_folder_s_jobs_are_those_of_one_snakemake(tmp_path):
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
    exists(tmp_path / "begun")
    said = run(tmp_path, "second.txt", code=1)
    assert f"another Snakemake (process {process.pid} on " in said and not (tmp_path / "second.txt").exists()
    (tmp_path / "go").touch()
    process.communicate(timeout=120)
    assert process.returncode == 0
    run(tmp_path, "second.txt")


def test_a_job_of_a_dead_controller_that_makes_the_same_in_another_way_makes_room(tmp_path):
    rule = 'rule make:\n    output: "made.txt"\n    shell: "touch begun; sleep {} && echo {} >> {{output}}"\n'
    (tmp_path / "Snakefile").write_text(rule.format(300, "old"))
    process = start(tmp_path)
    exists(tmp_path / "begun")
    process.kill()
    process.wait()
    subprocess.run(["snakemake", "--unlock", "--quiet"], cwd=tmp_path, check=True, capture_output=True)
    (old,) = [p for p in psutil.process_iter() if "sleep 300 && echo old" in " ".join(_words(p))][:1]
    (tmp_path / "Snakefile").write_text(rule.format(0, "new"))
    said = run(tmp_path)
    assert "makes its files otherwise; it is cancelled" in said
    assert not old.is_running() and (tmp_path / "made.txt").read_text() == "new\n"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--submitit-cluster", "cloud", "submitit-cluster is 'cloud': choose slurm, local, debug"),
        ("--submitit-warning-signal", "USR1", "give a signal's name, such as SIGUSR1"),
        ("--submitit-array-size", "0", "submitit-array-size is 0: too small"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(tmp_path, option, value, words):
    snakefile(tmp_path, 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"')
    assert words in run(tmp_path, option, value, code=1)
    assert not (tmp_path / "a.txt").exists()
