"""Resources of a Snakemake job become a request to the cluster."""

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.resources import Request, parse_resources


def test_resources_become_a_request():
    resources = {
        "slurm_partition": "gpu",
        "slurm_account": "lab",
        "qos": "long",
        "constraint": "a100",
        "nodes": 2,
        "gpus": "a100:4",
        "mem_mb": 9000,
        "runtime": 30,
        "slurm_extra": "--exclusive --mail-type=END",
        "tmpdir": "/tmp",
    }
    parameters = parse_resources("train", resources, threads=3).slurm_parameters()
    assert {name: parameters[name] for name in ("time", "nodes", "ntasks_per_node", "cpus_per_task")} == {
        "time": 30,
        "nodes": 2,
        "ntasks_per_node": 1,
        "cpus_per_task": 3,
    }
    assert parameters["additional_parameters"] == {
        "partition": "gpu",
        "account": "lab",
        "qos": "long",
        "constraint": "a100",
        "gpus-per-node": "a100:4",
        "mem": "9000M",
        "exclusive": True,
        "mail-type": "END",
    }
    assert parse_resources("train", {}, threads=1) == Request(1, "", 1, None, 60)


def test_memory_per_cpu_and_gres_replace_memory_and_gpus():
    per_cpu = parse_resources("train", {"mem_mb_per_cpu": 100, "mem_mb": 5}, threads=1)
    assert per_cpu.slurm_parameters()["additional_parameters"] == {"mem-per-cpu": "100M"}
    gres = parse_resources("train", {"gpus": 0, "gres": "shard:2"}, threads=1)
    assert gres.slurm_parameters()["additional_parameters"] == {"gres": "shard:2"}


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"nodes": 0}, "rule train: resource nodes must be an integer >= 1, got 0"),
        ({"runtime": "two hours"}, "set-resources: {train: {runtime: 1}}"),
        ({"gpus": 1, "gres": "gpu:1"}, "both request GPUs"),
        ({"partition": "gpu"}, r"unknown resource partition; did you mean slurm_partition\?"),
        ({"gpus": "four"}, "must be a number or type:number"),
        ({"slurm_extra": "-p gpu"}, "must have the form --option=value or --option, got '-p'"),
        ({"slurm_extra": "--signal=B:TERM@9"}, "the executor sets --signal itself"),
        ({"slurm_extra": "--time=4:00:00"}, "set the resource runtime instead of --time"),
    ],
)
def test_bad_resources_are_named(resources, words):
    with pytest.raises(WorkflowError, match=words.replace("{", r"\{")):
        parse_resources("train", resources, threads=1)
