"""What `snakemake --config` gives in place of values of the config file."""

from collections.abc import Mapping
from typing import Any

from m2pt.errors import InputError
from m2pt.formats.documents import parse_yaml


def overrides(config: Mapping[str, Any], in_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, typed, that differ from those of the file.

    Args:
        config: all that Snakemake has read, from the file and from `--config`.
        in_file: the content of the file.
    """
    typed = {key: _typed(value, in_file.get(key)) for key, value in config.items()}
    return {key: value for key, value in typed.items() if in_file.get(key) != value}


def _typed(value: Any, in_file: Any) -> Any:
    """Return a value of --config with numbers, booleans and nulls for the strings that spell them.

    Snakemake reads a list or mapping there as one of strings, and merges a mapping into that of the file.

    Args:
        value: what Snakemake made of it.
        in_file: the value in the same place of the config file, which is typed already.
    """
    if isinstance(value, Mapping):
        beside = in_file if isinstance(in_file, Mapping) else {}
        return {key: _typed(each, beside.get(key)) for key, each in value.items()}
    if isinstance(value, list) and value != in_file:
        return [_typed(each, None) for each in value]
    if isinstance(value, str) and value != in_file:
        try:
            scalar = parse_yaml(value, "--config")
        except InputError:
            return value
        return value if isinstance(scalar, dict | list) else scalar
    return value
