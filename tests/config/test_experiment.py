"""Names of experiments, and the settings of their pathways."""

import pytest

from m2pt.config.experiment import Experiment, PathwaySpec
from m2pt.config.strict import validate
from m2pt.errors import InputError


def test_a_run_s_name_depends_on_its_factors_only():
    def name(**changes):
        factors = {"task": "classification", "dataset": "imagenet", "mode": "tune", "target_init": "image"}
        return Experiment(**{**factors, **changes}).name

    plain = name()
    assert plain.startswith("imagenet-tune-from-image-")
    pathways = [PathwaySpec(auxiliaries=("audio",), scale_init=scale) for scale in (0.0, 0.01)]
    others = [name(mode="fix"), name(target_init="scratch"), *(name(pathway=pathway) for pathway in pathways)]
    assert len({plain, *others}) == 5
    assert name(pathway=PathwaySpec(auxiliaries=["audio"], scale_init="0")) == others[2]


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_another_order_is_of_all_blocks(order):
    for depth in ("all", "first_third"):
        pathway = {"auxiliaries": ["video"], "order": order, "depth": depth}
        if depth == "all":
            assert validate(PathwaySpec, pathway, "here").order == order
        else:
            with pytest.raises(InputError, match="give depth: all or order: normal"):
                validate(PathwaySpec, pathway, "here")
