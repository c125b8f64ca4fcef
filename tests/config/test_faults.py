"""Faults that are collected and told as one error."""

import pytest

from m2pt.config.faults import Faults
from m2pt.errors import MOST_FAULTS, InputError, joined


def test_errors_are_noted_and_raised_as_one_in_their_order():
    faults = Faults()
    faults.raise_all()
    with faults.noted():
        pass
    faults.raise_all()
    with faults.noted():
        raise InputError("a.yaml: x.")
    with faults.noted():
        raise joined([InputError("b.yaml: y."), InputError("a.yaml: x."), InputError("b.yaml: z.")])
    with pytest.raises(InputError) as error:
        faults.raise_all()
    assert str(error.value) == "a.yaml: x.\nb.yaml: y.\nb.yaml: z."
    with pytest.raises(ZeroDivisionError), faults.noted():
        _ = 1 / 0


def test_an_entry_or_its_whole_section_is_spoiled():
    faults = Faults()
    with faults.noted(("encoders", "image")):
        raise InputError("x")
    faults.add(InputError("y"), ("datasets", ""))
    assert faults.affect([("encoders", "audio"), ("encoders", "image")])
    assert faults.affect([("datasets", "any")])
    assert not faults.affect([("encoders", "audio"), ("finetune", "image")]) and not faults.affect([])


def test_a_cause_is_told_once_and_by_its_first_error():
    runs = [InputError(f"run {number}: no recipe", cause="no recipe") for number in range(9)]
    assert str(joined(runs)) == "run 0: no recipe"
    assert str(joined([*runs, InputError("other"), *runs])) == "run 0: no recipe\nother"


def test_the_number_of_errors_is_bounded_and_the_others_are_counted():
    errors = [InputError(f"fault {number}") for number in range(MOST_FAULTS + 5)]
    lines = str(joined(errors)).splitlines()
    assert lines == [*(f"fault {number}" for number in range(MOST_FAULTS)), "and 5 more errors."]
    some = joined(errors[:2], untold=7)
    assert str(some) == "fault 0\nfault 1\nand 7 more errors."
    assert str(joined([some, *errors])).splitlines()[-1] == "and 12 more errors."
