"""The log of a job: what the job is, its metrics, its files."""

from pathlib import Path

from torch import nn

from m2pt import job_log
from m2pt.pathway import attach


def test_a_header_has_a_title_and_aligned_rows():
    assert job_log.header("evaluate run, seed 0", {"device": "cpu", "batch": 8}) == (
        "evaluate run, seed 0\n  device  cpu\n  batch   8"
    )


def test_a_log_ends_with_metrics_and_files(capsys):
    job_log.end(Path("a"), Path("b"), metrics={"top1": 51.234, "top5": 90.0}, note="3 tensors")
    assert capsys.readouterr().out == "top1 51.23, top5 90.00\nwrote a, b: 3 tensors\n"
    job_log.end(Path("a"))
    assert capsys.readouterr().out == "wrote a\n"


def test_parameters_are_counted_by_what_they_are():
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    assert job_log.parameter_counts(model) == "9: 9 trainable"
    attach([model], [nn.Sequential(nn.Linear(3, 3, bias=False))], layers=["0"])
    dict(model.named_parameters())["0.weight"].requires_grad_(False)
    assert job_log.parameter_counts(model) == "19: 10 trainable, 10 in pathways"
