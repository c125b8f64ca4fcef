"""YAML and JSON: rejected content and its line, bounded memory for any file."""

import os
import subprocess
import sys

import pytest

from m2pt.errors import InputError
from m2pt.formats.documents import (
    LARGEST_CONFIG,
    LARGEST_RECORD,
    parse_json,
    parse_yaml,
    read_json,
    read_listing,
    read_yaml,
)

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(text, read=parse_yaml):
    with pytest.raises(InputError) as error:
        read(text, "here")
    message = str(error.value)
    assert message.startswith("here") and len(message) < 500 and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "here, line 1: not valid YAML"),
        ("a: 1\n\tb: 2", "line 2"),
        ("a: 1\nb: 2\na: 3", "line 3: not valid YAML: duplicate key 'a'"),
        ("a: {b: 1, b: 1}", "duplicate key 'b'"),
        ("x: &x {a: 1}\ny: {<<: *x, <<: *x}", "line 2: not valid YAML: duplicate key '<<'"),
        ("1: a", "the key '1' is not a string; put it in quotes"),
        ("null: a", "the key 'null' is not a string"),
        ("yes: a", "the key 'yes' is not a string"),
        ("[a]: b", "the key '[...]' is not a string"),
        ("{a: b}: c", "is not a string"),
        ("x: {<<: {1: 2}}", "the key '1' is not a string"),
        ("x: {<<: 1}", "expected a mapping"),
        ("a: 2026-01-01", "'2026-01-01' is read as a value of kind 'timestamp'; put it in quotes"),
        ("a: 2026-13-45", "put it in quotes"),
        ("a: =", "put it in quotes"),
        ("a: !!binary aGVsbG8=", "'binary'"),
        ("a: !!set {b, c}", "values of kind 'set' are not supported; remove the tag"),
        ("a: !!omap [b: 1]", "'omap'"),
        ("a: !!python/object/apply:os.system ['touch RAN']", "'python/object/apply:os.system'"),
        ("a: !!python/name:os.system", "'python/name:os.system'"),
        ("a: !own 1", "'!own'"),
        ("!own a: 1", "'!own'"),
        ("a: !!int x", "'x' cannot be read as a value of kind"),
        ("a: !!int ''", "'' cannot be read as a value of kind"),
        ("a: !!bool maybe", "'maybe' cannot be read as a value of kind"),
        ("a: !!float " + "x" * 100_000, "cannot be read as a value of kind"),
        ("a: !!str {b: 1}", "expected a scalar node"),
        ("a: " + "1" * 5000, "111..."),
        ("a: 010", "'010' would be read as an octal or base-60 number"),
        ("a: [0_7]", "'0_7' would be read as an octal"),
        ("a: 1:30", "'1:30' would be read as an octal or base-60 number"),
        ("a: -1:30.5", "'-1:30.5' would be read as an octal"),
        ("a: 0x" + "f" * 5000, "is out of range"),
        ("a: 9223372036854775808", "the number '9223372036854775808' is out of range"),
        ('a: "\\0"', "a null byte"),
        ('a: ["\\ud800"]', "half of a surrogate pair"),
        ('a: "\\U00110000"', "not valid YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "not valid YAML"),
        ("a: *b" + "b" * 100_000, "undefined alias"),
        ("a: &a [*a]", "aliases expanded"),
        ("a: &a {<<: *a}", "aliases expanded"),
        ("a: " + "[" * 100_000, "nested deeper than 50 levels"),
        ("{a: " * 1000, "nested deeper than 50 levels"),
        (
            "- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 60)),
            "nested deeper than 50 levels",
        ),
        (BOMB, "more than 100,000 values with its aliases expanded"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_invalid_yaml_is_rejected(text, words):
    assert words in refused(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-3", {"a": "1e-3"}),
        ("a: .inf", {"a": float("inf")}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}}),
        (
            "x: &x {a: 1}\ny: [[&y {<<: *x, a: 2}]]\nz: {<<: *y}",
            {"x": {"a": 1}, "y": [[{"a": 2}]], "z": {"a": 2}},
        ),
        ("a: 9223372036854775807", {"a": 2**63 - 1}),
        ('a: "2026-01-01"', {"a": "2026-01-01"}),
        ("a: [0, 00.5, 0x10, 1_000, '010', '1:30']", {"a": [0, 0.5, 16, 1000, "010", "1:30"]}),
        ("a: é💥", {"a": "é💥"}),
        ("", None),
    ],
)
def test_valid_yaml_is_read(text, value):
    assert parse_yaml(text, "here") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ('{\n"a": 1,\n}', "here, line 3: not valid JSON"),
        ("{} {}", "Extra data"),
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('[{"b": {"a": 1, "a": 1}}]', "duplicate key 'a'"),
        ("{" + ",".join(f'"k{i}": 1' for i in range(200_000)) + ', "k199999": 2}', "duplicate key 'k199999'"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e400]", "the number '1e400' is out of range"),
        ("[" + "1" * 5000 + "]", "is out of range"),
        ("[9223372036854775808]", "is out of range"),
        ("[" + "1" * 5000 + ".0]", "is out of range"),
        ("[" * 1_000_000, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested deeper than 50 levels"),
        ('["\\u0000"]', "a null byte"),
        ('{"\\u0000": 1}', "a null byte"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"a": ["\\ud800"]}', "half of a surrogate pair"),
        ("{1: 2}", "property name"),
        ('"\x01"', "control character"),
        (b"\xff\xfe", "here, line 1: not UTF-8 text"),
    ],
)
def test_invalid_json_is_rejected(text, words):
    assert words in refused(text, parse_json)


def test_a_byte_order_mark_and_surrogate_pairs_are_accepted():
    assert parse_json(b'\xef\xbb\xbf["\\ud83d\\udca5"]', "here") == ["💥"]


@pytest.fixture
def odd(tmp_path):
    """Paths that are not readable files, each with words of the error."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**12)
    return {
        tmp_path: "is a folder",
        tmp_path / "pipe": "is a pipe or device",
        tmp_path / "loop": "cannot be read",
        tmp_path / "nowhere": "cannot be read",
        tmp_path / "none": "cannot be read",
        tmp_path / "sparse": "larger than",
        tmp_path / "pipe" / "x": "cannot be read",
        tmp_path / "\0": "not a path",
        tmp_path / ("x" * 300): "cannot be read",
        type(tmp_path)("/dev/zero"): "is a pipe or device",
    }


@pytest.mark.parametrize("read", [read_yaml, read_json, read_listing])
def test_paths_of_other_kinds_than_files_are_rejected(odd, read):
    for path, words in odd.items():
        with pytest.raises(InputError, match=words) as error:
            read(path)
        assert path.name.replace("\0", "\\x00") in str(error.value)


HUGE = f"""
import resource, sys
from pathlib import Path
from m2pt.errors import InputError
from m2pt.formats.documents import read_json, read_yaml
resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, 600 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))  # ends what would never end
for read, text in [
    (read_yaml, "a: [" + "1," * {LARGEST_CONFIG // 2 - 10} + "]"),
    (read_yaml, "a: [" + "{{}}," * {LARGEST_CONFIG // 3 - 10} + "]"),
    (read_yaml, {BOMB!r}),
    (read_json, "[" + "[]," * {LARGEST_RECORD // 3 - 10} + "[]]"),
    (read_json, "[" + "1," * {LARGEST_RECORD // 2 - 10} + "1]"),
]:
    path = Path(sys.argv[1]) / "huge"
    path.write_text(text)
    try:
        read(path)
    except InputError:
        pass
"""


def test_the_largest_files_take_bounded_memory(tmp_path):
    """600 MB at most, including the interpreter."""
    done = subprocess.run([sys.executable, "-c", HUGE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(InputError, match="duplicate key 'a'"):
        read_yaml(path)


def test_a_missing_file_and_a_file_that_is_no_mapping_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(InputError, match=r"list\.yaml: contains a list"):
        read_yaml(path)
