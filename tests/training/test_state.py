import pytest
import torch
from point_trainings import train, train_until_killed

from m2pt.errors import InputError
from m2pt.training import checkpoint


def without(key):
    return lambda state: state.pop(key)


def with_moments(shape):
    def change(state):
        state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(shape)

    return change


MISFITS = {
    **{
        f"no {key}": without(key)
        for key in (
            "step",
            "effective_batch",
            "model",
            "optimizer",
            "scaler",
            "window",
            "metrics_length",
            "seconds",
        )
    },
    "a step that is text": lambda state: state.update(step="4"),
    "a step beyond the end": lambda state: state.update(step=7),
    "a step before the start": lambda state: state.update(step=-1),
    "half a step": lambda state: state.update(step=3.5),
    "a model that is a list": lambda state: state.update(model=[1]),
    "an unknown tensor": lambda state: state["model"].update(other=torch.zeros(1)),
    "a missing tensor": lambda state: state["model"].pop("0.weight"),
    "a tensor that is a number": lambda state: state["model"].update({"0.weight": 1.0}),
    "a tensor of another shape": lambda state: state["model"].update({"0.weight": torch.zeros(3, 3)}),
    "a tensor of integers": lambda state: state["model"].update({"0.weight": torch.zeros(8, 5).int()}),
    "an optimizer of text": lambda state: state.update(optimizer="adamw"),
    "an optimizer of others": lambda state: state["optimizer"].update(param_groups=[]),
    "moments of another shape": with_moments((2, 2)),
    "a window without rows": lambda state: state.update(window={"names": ["loss"]}),
    "a window of wrong rows": lambda state: state.update(window={"names": ["loss"], "rows": [[1.0, 2.0]]}),
    "a window of text": lambda state: state.update(window={"names": ["loss"], "rows": [["one"]]}),
    "seconds that are text": lambda state: state.update(seconds="long"),
    "metrics of no length": lambda state: state.update(metrics_length="9"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_intact_state_that_does_not_fit_is_refused_by_name(tmp_path, kind):
    path = train_until_killed(tmp_path) / "resume.pt"
    state = checkpoint.load(path)
    MISFITS[kind](state)
    checkpoint.save(path, state)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"resume\.pt .*delete it to train from the start"):
        train(tmp_path, checkpoint_every=2)
    assert path.read_bytes() == before
