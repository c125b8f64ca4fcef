"""Hypothesis strategies that damage a file: its bytes, or the values in it."""

import copy
import json

import yaml
from hypothesis import strategies as st

NASTY = [
    *(None, True, False, 0, -1, 1, 10**22, -(10**22), 2**31, 2**63, 1e300, -1e300, 0.5, -0.5),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        " ",
        "x" * 5000,
        "a\0b",
        "a\nb",
        "\ud800",
        "é💥",
        "1e-3",
        "nan",
    ),
    *([], {}, [[[[]]]], {"a": {"b": [1]}}, [None], ["x"] * 300, {f"k{i}": i for i in range(300)}),
    *("/", "..", ".", "~", "/dev/zero", "/etc", "-rf", "$(touch RAN)", "../" * 50, "scratch", "image"),
    *(
        "2026-13-45",
        "!!python/name:os.system",
        "{}",
        "[",
        "%",
        "*a",
        "&a",
        "<<",
        "=",
        "0x" + "f" * 40,
        "1" * 5000,
    ),
]


def places(value, path=()):
    """Every (path, value) of a document below its root."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        yield (*path, key), child
        yield from places(child, (*path, key))


@st.composite
def structures(draw, document):
    """The document with one or two values replaced, removed, renamed or moved."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        every = [path for path, _ in places(document)]
        if not every:
            return draw(st.sampled_from(NASTY))
        path = draw(st.sampled_from(every))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        key = path[-1]
        kind = draw(st.sampled_from(["replace"] * 6 + ["remove", "rename", "wrap", "exchange", "repeat"]))
        if kind == "replace":
            parent[key] = copy.deepcopy(draw(st.sampled_from(NASTY)))
        elif kind == "remove":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["x", "", "a.b", "x" * 3000, "\0", "1", "\n"]))] = parent.pop(key)
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"x": parent[key]}, [parent[key]] * 3]))
        elif kind == "exchange":
            parent[key] = copy.deepcopy(draw(st.sampled_from([child for _, child in places(document)])))
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
    return document


@st.composite
def bytes_of(draw, content):
    """The bytes with some flipped, cut, put in, repeated or exchanged for any."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        end = min(len(content), at + draw(st.sampled_from([1, 2, 5, 40])))
        kind = draw(st.sampled_from(["flip", "cut", "end", "put in", "repeat", "any"]))
        if kind == "flip" and content:
            flipped = content[at] ^ (1 << draw(st.integers(0, 7)))
            content = content[:at] + bytes([flipped]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[end:]
        elif kind == "end":
            content = content[:at]
        elif kind == "put in":
            odd = [
                b"\0",
                b"\xff",
                b"\xef\xbb\xbf",
                b"[" * 300,
                b"{",
                b"*a",
                b"&a ",
                b"<<: ",
                b"!!int ",
                b"9" * 5000,
            ]
            odd += [
                b"NaN",
                b"-",
                b'"',
                b"\n",
                b"\r",
                b"\t",
                b": ",
                b"? ",
                b"\xed\xa0\x80",
                b"\\ud800",
                b"\\u0000",
            ]
            content = content[:at] + draw(st.sampled_from(odd)) + content[at:]
        elif kind == "repeat":
            content = content[:end] + content[at:]
        else:
            content = draw(st.binary(max_size=60))
    return content


def damaged_json(document):
    """Strategy of the bytes of a JSON file, damaged somehow."""
    text = json.dumps(document, indent=2).encode()
    made = structures(document).map(lambda value: json.dumps(value).encode())
    return st.one_of(made, made, bytes_of(text))


def damaged_yaml(text):
    """Strategy of the bytes of a YAML file, damaged somehow."""
    document = yaml.safe_load(text)
    made = structures(document).map(lambda value: _dump(value).encode("utf-8", "surrogatepass"))
    return st.one_of(made, made, bytes_of(text.encode()))


def _dump(value):
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


PROVENANCE = {
    **{
        "git_commit": "0" * 40,
        "packages": {"torch": "2.6"},
        "python": "3.11",
        "host": "elsewhere",
        "pid": 12,
    },
    **{"slurm_job": "7", "device": "cpu", "processes": 1, "threads": 1, "dataset_manifest": "a" * 64},
    "started": "2026-01-25T12:00:00+00:00",
}
LOG = "".join(
    json.dumps({"step": step, "epoch": 1, "loss": 1 / step, "lr": 0.1}) + "\n" for step in range(1, 6)
)
