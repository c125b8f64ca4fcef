"""The classifier of a run and its method, for every method of the catalog."""

import pytest
import torch
from multimodal_config import METHODS, write_config

from m2pt.multimodal import build_classifier, build_method, sample_shapes
from m2pt.plan.plan import Plan


@pytest.mark.parametrize("method", METHODS)
def test_each_method_of_the_catalog_is_built(tmp_path, method):
    (run,) = Plan.load(write_config(tmp_path, {method: {"method": method}})).runs.values()
    assert sample_shapes(run.spec) == {"audio": (1, 16, 16), "image": (1, 28, 28)}
    built = build_method(run, build_classifier(run.spec), 0)
    inputs = {name: torch.randn(4, *shape) for name, shape in sample_shapes(run.spec).items()}
    built.loss(inputs, torch.tensor([0, 1, 2, 3])).backward()
    assert built.modalities == ("audio", "image")
    assert all(parameter.grad is not None for parameter in built.model.parameters())


def test_the_noise_of_ogm_ge_depends_on_the_seed_of_the_run(tmp_path):
    from m2pt import build

    (run,) = Plan.load(write_config(tmp_path, {"x": {"method": "ogm_ge"}})).runs.values()
    seeds = [build.run_model(run, lambda _: None, seed=seed).seed for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
