"""What jobs survive: requeueing, preemption, the time limit, a failed node, the death of Snakemake."""

import json
import os
import signal

from slurm_workflow import ALL_GPU_NODES, COUNTING, Workflow, all_steps, slurm

WAIT_FOR_GO = "until test -e go; do sleep 0.2; done"


@ALL_GPU_NODES
def test_requeued_preempted_and_timed_out_jobs_finish(workflow):
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
    ids = {rule: workflow.started(rule) for rule in ("requeued", "preempted", "limited")}
    for job_id in ids.values():
        workflow.counts(job_id)
    slurm("scontrol", "requeue", ids["requeued"])
    slurm(
        "sbatch", "--partition=prio", "--nodelist=gpu2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    workflow.finish()
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
    job_id = workflow.started("count")
    for attempt in (1, 2):
        workflow.counts(job_id, attempt)
        slurm("scancel", "--batch", "--signal=USR2", job_id)
    assert f"slurm job {job_id}: restarted 1 times; no more restarts are allowed" in workflow.finish(code=1)


@ALL_GPU_NODES
def test_a_failed_node_s_job_runs_elsewhere(workflow):
    workflow.write(
        "Snakefile",
        f"""
        rule wait:
            output: "done.txt"
            resources: slurm_partition="gpu"
            shell: "{WAIT_FOR_GO}; echo $SLURMD_NODENAME > {{output}}"
        """,
    )
    workflow.start()
    job_id = workflow.started("wait")
    node = slurm("squeue", "--noheader", f"--jobs={job_id}", "--format=%N").strip()
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    workflow.write("go", "")
    try:
        workflow.finish()
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert (workflow.folder / "done.txt").read_text().strip() not in ("", node)
    assert workflow.job_ids() == [job_id]


def test_a_new_snakemake_adopts_the_jobs_of_a_killed_one(workflow):
    workflow.write(
        "Snakefile",
        f"""
        rule all:
            input: "short.txt", "long.txt", "fails.txt"
        rule short:
            output: "short.txt"
            shell: "echo x >> {{output}}"
        rule long:
            output: "long.txt"
            shell: "{WAIT_FOR_GO}; echo x >> {{output}}"
        rule fails:
            output: "fails.txt"
            shell: "test -e fixed; echo x >> {{output}}"
        """,
    )
    workflow.start()
    ids = {rule: workflow.submitted(rule) for rule in ("short", "long", "fails")}
    workflow.reaches(ids["long"], "RUNNING")
    workflow.kill()
    workflow.reaches(ids["short"], "COMPLETED")
    workflow.reaches(ids["fails"], "FAILED")
    workflow.write("fixed", "")
    workflow.start()
    workflow.submitted("long")
    workflow.write("go", "")
    output = workflow.finish()
    assert f"long: slurm job {ids['long']}," in output and output.count("not submitted again") == 1
    again = set(workflow.job_ids()) - set(ids.values())
    assert len(again) == 1 and f"fails: slurm job {again.pop()}," in output
    assert all((workflow.folder / f"{rule}.txt").read_text() == "x\n" for rule in ids)
    assert "jobs of an earlier run" not in workflow.run() and "jobs of an earlier run" in output


def test_a_submission_whose_ids_were_not_recorded_is_found_by_its_name(workflow):
    workflow.write(
        "Snakefile",
        f"""
        rule all:
            input: expand("{{i}}.txt", i=range(3))
        rule part:
            output: "{{i}}.txt"
            shell: "{WAIT_FOR_GO}; echo x >> {{output}}"
        """,
    )
    workflow.start()
    workflow.started("part")
    workflow.kill()
    ledger = workflow.folder / ".snakemake/submitit/ledger.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(line for line in lines if "submitted" not in json.loads(line)) + "\n{cut sho")
    workflow.start()
    workflow.submitted("part")
    workflow.write("go", "")
    assert workflow.finish().count("already on the cluster") == 3
    assert len(workflow.job_ids()) == 3


def test_a_job_whose_input_has_changed_is_not_adopted(workflow):
    workflow.write(
        "Snakefile",
        f"""
        rule copy:
            input: "in.txt"
            output: "out.txt"
            shell: "cat {{input}} > {{output}}; {WAIT_FOR_GO}"
        """,
    )
    workflow.write("in.txt", "old")
    workflow.start()
    job_id = workflow.started("copy")
    workflow.kill()
    workflow.write("in.txt", "new")
    workflow.start()
    assert workflow.submitted("copy") != job_id
    workflow.write("go", "")
    assert "already on the cluster" not in workflow.finish()
    assert (workflow.folder / "out.txt").read_text() == "new"
    assert workflow.states()[job_id] == "CANCELLED"


def test_ctrl_c_cancels_the_jobs_of_its_own_snakemake_only(workflow, tmp_path_factory):
    other = Workflow(tmp_path_factory.mktemp("other"))
    for each in (workflow, other):
        each.write(
            "Snakefile",
            f"""
            rule wait:
                output: "done.txt"
                shell: "{WAIT_FOR_GO}; touch {{output}}"
            """,
        )
        each.start()
    ids = [each.started("wait") for each in (workflow, other)]
    os.kill(workflow.processes[-1].pid, signal.SIGINT)
    workflow.finish(code=1)
    workflow.reaches(ids[0], "CANCELLED")
    other.write("go", "")
    other.finish()


def test_without_accounting_squeue_is_enough(workflow, monkeypatch):
    workflow.write(
        "Snakefile",
        """
        rule wait:
            output: "done.txt"
            shell: "sleep 300"
        """,
    )
    tools = workflow.folder / "bin"
    tools.mkdir()
    workflow.write("bin/sacct", "#!/bin/sh\necho Slurm accounting storage is disabled >&2; exit 1\n")
    (tools / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    workflow.start()
    job_id = workflow.started("wait")
    slurm("scancel", job_id)
    assert f"slurm job {job_id}: CANCELLED" in workflow.finish(code=1)
