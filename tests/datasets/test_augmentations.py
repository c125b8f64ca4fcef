"""The settings of augmentations: built from a recipe's values, whose ranges pydantic enforces."""

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from m2pt import catalog
from m2pt.catalog import LAYOUTS
from m2pt.datasets.augmentations import (
    ClipAugmentation,
    ClipCropAugmentation,
    ImageAugmentation,
    MultiView,
    SpectrogramAugmentation,
    policy_errors,
)
from m2pt.errors import InputError

PATHS = {catalog.augmentation(layout, pretraining=kind) for layout in LAYOUTS for kind in (False, True)}
KINDS = [catalog.load(path, "test") for path in sorted(PATHS)]


@pytest.mark.parametrize("kind", [*KINDS, MultiView])
def test_defaults_are_in_range_and_unknown_keys_are_refused(kind):
    adapter = TypeAdapter(kind)
    assert adapter.validate_python(adapter.dump_python(kind())) == kind()
    with pytest.raises(ValidationError, match="unknown"):
        adapter.validate_python({"unknown": 1})


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        (ImageAugmentation, "scale", [1, 0.5], "the lower bound 1 must not exceed the upper bound 0.5"),
        (ImageAugmentation, "scale", [0.5, 2], "less than or equal to 1"),
        (ImageAugmentation, "ratio", [2, 1], "the lower bound 2 must not exceed"),
        (ImageAugmentation, "auto_augment", "a b", "one of timm's augmentation policies"),
        (ClipAugmentation, "auto_augment", "augmix-m3", "one of timm's RandAugment policies"),
        (ClipAugmentation, "samples", 0, "greater than or equal to 1"),
        (ClipCropAugmentation, "crop_scales", [], "at least 1 item"),
        (SpectrogramAugmentation, "time_mask", -1, "greater than or equal to 0"),
        (MultiView, "clips", 101, "less than or equal to 100"),
    ],
)
def test_a_value_out_of_range_is_refused_at_its_key(kind, key, value, message):
    with pytest.raises(ValidationError, match=message) as error:
        TypeAdapter(kind).validate_python({key: value})
    assert error.value.errors()[0]["loc"][0] == key


def test_reading_the_settings_imports_neither_torch_nor_pydantic():
    code = "import sys, m2pt.datasets.augmentations; print({'torch', 'pydantic'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_only_what_timm_raises_for_a_policy_is_an_error_of_the_policy():
    words = r"auto_augment = 'rnd-m9': timm does not know it \(unknown\)"
    with pytest.raises(InputError, match=words), policy_errors("rnd-m9"):
        raise AssertionError("unknown")
    with pytest.raises(ValueError, match="another fault"), policy_errors(None):
        raise ValueError("another fault")
