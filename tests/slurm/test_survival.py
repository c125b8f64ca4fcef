"""What jobs and controllers survive: requeue, preemption, time limit, failed node, the controller's death."""

import json
import os
import signal
import subprocess
import time

from conftest import wait_until
from tests_slurm import COUNTING, all_steps


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def started(workflow, rule: str) -> str:
    """The id of a rule's job."""
    wait_until(lambda: f"{rule} is job " in workflow.said(), f"submission of {rule}")
    return workflow.said().split(f"{rule} is job ")[1].split()[0]


def running(workflow, job_id: str) -> None:
    wait_until(lambda: workflow.states()[job_id] == "RUNNING", f"job {job_id} running")


def test_requeued_preempted_and_out_of_time_jobs_come_to_the_same_end(workflow):
    count = f"python3 {COUNTING} {{output}} {{output}}.state"
    workflow.write(
        "Snakefile",
        f"""
        rule all:
            input: "requeued.txt", "preempted.txt", "limited.txt"
        rule requeued:
            output: "requeued.txt"
            shell: "{count} 40 0.5"
        rule preempted:
            output: "preempted.txt"
            resources: slurm_partition="gpu", slurm_extra="--nodelist=gpu2"
            shell: "{count} 40 0.5"
        rule limited:
            output: "limited.txt"
            resources: runtime=1
            shell: "{count} 80 1"
        """,
    )
    workflow.start("--submitit-signal-delay", "20")
    ids = {rule: started(workflow, rule) for rule in ("requeued", "preempted", "limited")}
    for job_id in ids.values():
        running(workflow, job_id)
    time.sleep(6)  # Snakemake and Python start, and some steps are done
    slurm("scontrol", "requeue", ids["requeued"])
    slurm(
        "sbatch", "--partition=prio", "--nodelist=gpu2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    workflow.finish(timeout_s=300)
    for rule, steps in (("requeued", 40), ("preempted", 40), ("limited", 80)):
        assert (workflow.folder / f"{rule}.txt").read_text() == all_steps(steps)
        assert "saved after step" in workflow.log(ids[rule]), rule
        assert slurm("sacct", "-D", "-X", "-n", "-P", "-j", ids[rule], "--format=JobID").count(ids[rule]) > 1
    assert len(workflow.job_ids()) == 3


def test_restarts_are_bounded(workflow):
    workflow.write(
        "Snakefile",
        f"""
        rule count:
            output: "steps.txt"
            shell: "python3 {COUNTING} {{output}} state.txt 200 0.5"
        """,
    )
    workflow.start("--submitit-max-restarts", "1")
    job_id = started(workflow, "count")
    for _ in range(2):
        running(workflow, job_id)
        time.sleep(5)
        slurm("scancel", "--batch", "--signal=USR2", job_id)
        wait_until(lambda: workflow.states()[job_id] != "RUNNING", "the end of this attempt")
    assert f"slurm job {job_id}: restarted 1 times, and no more are allowed" in workflow.finish(code=1)


def test_a_failed_node_s_job_runs_elsewhere(workflow):
    workflow.write(
        "Snakefile",
        """
        rule wait:
            output: "done.txt"
            resources: slurm_partition="gpu"
            shell: "sleep 8; echo $SLURMD_NODENAME > {output}"
        """,
    )
    workflow.start()
    job_id = started(workflow, "wait")
    running(workflow, job_id)
    node = slurm("squeue", "--noheader", f"--jobs={job_id}", "--format=%N").strip()
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        workflow.finish()
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert (workflow.folder / "done.txt").read_text().strip() not in ("", node)
    assert workflow.job_ids() == [job_id]


def test_a_new_controller_takes_up_the_jobs_of_a_dead_one(workflow):
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "short.txt", "long.txt", "fails.txt"
        rule short:
            output: "short.txt"
            shell: "sleep 4; echo x >> {output}"
        rule long:
            output: "long.txt"
            shell: "sleep 20; echo x >> {output}"
        rule fails:
            output: "fails.txt"
            shell: "test -e mended; echo x >> {output}"
        """,
    )
    workflow.start()
    ids = {rule: started(workflow, rule) for rule in ("short", "long", "fails")}
    running(workflow, ids["long"])
    workflow.kill()
    wait_until(lambda: workflow.states()[ids["short"]] == "COMPLETED", "the end of the short job")
    assert workflow.states()[ids["long"]] == "RUNNING"
    workflow.write("mended", "")
    said = workflow.run()
    assert f"long is job {ids['long']} of slurm" in said and said.count("it is not submitted again") == 1
    again = set(workflow.job_ids()) - set(ids.values())
    assert len(again) == 1 and f"fails is job {again.pop()} of slurm" in said
    assert all((workflow.folder / f"{rule}.txt").read_text() == "x\n" for rule in ids)


def test_a_submission_whose_ids_never_came_back_is_found_by_its_name(workflow):
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: expand("{i}.txt", i=range(3))
        rule part:
            output: "{i}.txt"
            shell: "sleep 15; echo x >> {output}"
        """,
    )
    workflow.start()
    started(workflow, "part")
    workflow.one_job("RUNNING")
    workflow.kill()
    ledger = workflow.folder / ".snakemake/submitit/ledger.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(line for line in lines if "submitted" not in json.loads(line)) + "\n{cut sho")
    assert workflow.run().count("is on the cluster already") == 3
    assert len(workflow.job_ids()) == 3


def test_a_job_whose_input_has_changed_is_not_taken_up(workflow):
    workflow.write(
        "Snakefile",
        """
        rule copy:
            input: "in.txt"
            output: "out.txt"
            shell: "cat {input} > {output}; sleep 10"
        """,
    )
    workflow.write("in.txt", "old")
    workflow.start()
    job_id = started(workflow, "copy")
    running(workflow, job_id)
    workflow.kill()
    workflow.write("in.txt", "new")
    assert "is on the cluster already" not in workflow.run()
    assert (workflow.folder / "out.txt").read_text() == "new"
    assert workflow.states()[job_id] == "CANCELLED"


def test_ctrl_c_cancels_its_own_jobs_and_no_other(workflow, tmp_path_factory):
    other = type(workflow)(tmp_path_factory.mktemp("other"))
    for each in (workflow, other):
        each.write(
            "Snakefile",
            """
            rule wait:
                output: "done.txt"
                shell: "sleep 12; touch {output}"
            """,
        )
        each.start()
    ids = [started(each, "wait") for each in (workflow, other)]
    running(workflow, ids[0])
    os.kill(workflow.processes[-1].pid, signal.SIGINT)
    workflow.finish(code=1)
    wait_until(lambda: workflow.states()[ids[0]] == "CANCELLED", "the cancellation")
    other.finish()


def test_without_accounting_squeue_is_enough(workflow, monkeypatch):
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "good.txt"
        rule good:
            output: "good.txt"
            shell: "touch {output}"
        rule bad:
            output: "bad.txt"
            shell: "kill -9 $PPID; sleep 60"
        """,
    )
    tools = workflow.folder / "bin"
    tools.mkdir()
    workflow.write("bin/sacct", "#!/bin/sh\necho Slurm accounting storage is disabled >&2; exit 1\n")
    (tools / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    workflow.run()
    assert "exit code" in workflow.run("bad.txt", code=1)
