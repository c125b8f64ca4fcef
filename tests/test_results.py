"""The forms of result files; `tests/formats/test_damaged_files.py` reads damaged ones."""

from m2pt.results import spec_differences


def test_differences_of_specs_name_each_leaf():
    stored, expected = {"a": {"b": 1, "c": [1]}, "gone": 0}, {"a": {"b": 2, "c": [1]}, "new": 1}
    assert list(spec_differences(stored, expected)) == [
        "spec.a.b: stored 1, expected 2",
        "spec.new: stored None, expected 1",
        "spec.gone: stored 0, expected None",
    ]
