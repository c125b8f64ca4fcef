"""Resources reach Slurm, and every end of a job is reported as what it is."""

from slurm_workflow import COUNTING, all_steps, slurm


def test_a_stage_is_one_job_array_and_resources_reach_slurm(workflow):
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "sum.txt"
        rule part:
            output: "{i}.txt"
            resources: runtime=7, mem_mb=300, slurm_partition="gpu", gpus=1, slurm_extra="--nice=5"
            threads: 2
            shell: "echo $SLURM_JOB_PARTITION $SLURM_CPUS_PER_TASK $CUDA_VISIBLE_DEVICES > {output}"
        rule sum:
            input: expand("{i}.txt", i=range(3))
            output: "sum.txt"
            resources: nodes=2, cpus_per_task=3
            shell: "cat {input} > {output}; echo $SLURM_JOB_NUM_NODES $SLURM_CPUS_PER_TASK >> {output}"
        """,
    )
    workflow.run()
    lines = (workflow.folder / "sum.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["gpu", "2"]] * 3
    assert all(line.split()[2] in ("0", "1") for line in lines[:3])
    assert lines[3] == "2 3"
    *parts, _ = workflow.job_ids()
    assert len({job_id.split("_")[0] for job_id in parts}) == 1 and len(parts) == 3
    requested = slurm("sacct", "-X", "-n", "-P", "-j", parts[0], "--format=Timelimit,ReqMem,AllocTRES")
    assert requested.startswith("00:07:00|300M|") and "gres/gpu=1" in requested


def test_each_end_is_reported_as_what_it_is(workflow):
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "fails.txt", "eats.txt", "sleeps.txt", "cancelled.txt"
        rule fails:
            output: "fails.txt"
            shell: "echo a word of farewell; exit 3"
        rule eats:
            output: "eats.txt"
            resources: mem_mb=300
            shell: "python3 -c 'import time; x = bytearray(10**9); time.sleep(60)'"
        rule sleeps:
            output: "sleeps.txt"
            resources: runtime=3
            shell: "sleep 300"
        rule cancelled:
            output: "cancelled.txt"
            shell: "sleep 300"
        """,
    )
    workflow.start("--keep-going", "--submitit-signal-delay", "20")
    ids = {rule: workflow.submitted(rule) for rule in ("fails", "eats", "sleeps", "cancelled")}
    workflow.reaches(ids["cancelled"], "RUNNING")
    slurm("scancel", ids["cancelled"])
    output = workflow.finish(code=1)
    assert f"slurm job {ids['fails']}: exit code 1" in output and "a word of farewell" in output
    assert f"slurm job {ids['eats']}: OUT_OF_MEMORY" in output
    assert f"slurm job {ids['cancelled']}: CANCELLED" in output
    assert f"slurm job {ids['sleeps']}: TIMEOUT: reached the time limit of 3 min" in output
    assert all(f"{ids[rule]}_0_log.out" in output for rule in ids)


def test_slurm_s_rejection_is_shown_and_invalid_resources_are_named(workflow):
    workflow.write(
        "Snakefile",
        """
        rule all:
            input: "a.txt", "b.txt"
        rule nowhere:
            output: "a.txt"
            resources: slurm_partition="nowhere"
            shell: "touch {output}"
        rule both:
            output: "b.txt"
            resources: gpus=1, gres="gpu:1"
            shell: "touch {output}"
        """,
    )
    output = workflow.run("--keep-going", code=1)
    assert "Slurm rejects the job" in output and "nowhere" in output.split("Slurm rejects the job")[1][:200]
    assert "rule both: resources gpus=1 and gres=gpu:1 both request GPUs" in output


def test_a_requeued_job_resumes_where_it_saved(workflow):
    workflow.write(
        "Snakefile",
        f"""
        rule count:
            output: "steps.txt"
            shell: "python3 {COUNTING} {{output}} state.txt 60 0.3"
        """,
    )
    workflow.start()
    job_id = workflow.started("count")
    workflow.counts(job_id)
    slurm("scancel", "--batch", "--signal=USR2", job_id)
    workflow.finish()
    assert (workflow.folder / "steps.txt").read_text() == all_steps(60)
    log = workflow.log(job_id)
    assert "forwarding SIGUSR1" in log and log.count("saved after step") == 1
    assert workflow.job_ids() == [job_id]
