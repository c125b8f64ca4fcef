"""The hours of a plan: the critical path and list scheduling, by hand."""

import pytest

from m2pt.ops.schedule import Job, critical_path, makespan

DIAMOND = [
    Job("a", 3.0),
    Job("b", 2.0),
    Job("c", 4.0, ("a",)),
    Job("d", 1.0, ("a", "b")),
    Job("e", 5.0),
]


def test_the_critical_path_is_the_longest_chain():
    path = critical_path(DIAMOND)
    assert path.hours == 7.0 and path.chain == ("a", "c")
    assert critical_path([]).hours == 0.0


@pytest.mark.parametrize(("slots", "hours"), [(1, 15.0), (2, 8.0), (3, 7.0), (50, 7.0)])
def test_list_scheduling_by_hand(slots, hours):
    # two slots: e 0-5 and a 0-3, then c 3-7; b 5-7; d 7-8
    assert makespan(DIAMOND, slots) == hours
