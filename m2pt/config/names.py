"""Types of names and texts in a config, including names in the catalog."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from m2pt import catalog

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=100)]
"""Name of a dataset, an encoder, a column: a key of a config, and part of the names of runs."""

SubsetName = Annotated[str, Field(max_length=100, pattern=r"^\w[\w-]*$")]
"""Part of a dataset, such as `Chair-1`: a folder of the dataset, and part of the names of its runs."""

Text = Annotated[str, Field(max_length=10_000)]
"""Free text: a caption, a note."""

ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
"""Pattern of a string without control characters and line breaks."""

Line = Annotated[str, Field(max_length=200, pattern=ONE_LINE)]
"""One line of text: a title."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Label = Annotated[Line, AfterValidator(_not_blank)]
"""The name of a method, a metric, a device."""


def _known(kind: str, entries: Mapping[str, Any]) -> AfterValidator:
    """Return a validator that accepts the names of entries of the catalog."""

    def check(name: str) -> str:
        if name not in entries:
            raise ValueError(catalog.unknown(kind, name, entries))
        return name

    return AfterValidator(check)


LayoutName = Annotated[Name, _known("dataset layout", catalog.LAYOUTS)]
TaskName = Annotated[Name, _known("task", catalog.TASKS)]
MethodName = Annotated[Name, _known("method", catalog.METHODS)]
