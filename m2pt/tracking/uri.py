"""Mask the secrets of a tracking URI, in the URI itself and in texts that repeat it.

`python -m m2pt.tracking.uri` prints MLFLOW_TRACKING_URI without its secrets.
"""

import os
import re
from collections.abc import Iterable, Iterator
from typing import TextIO
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

MASK = "***"

_MIN_SECRET_LENGTH = 4
"""Minimum length of a query value to be masked elsewhere; `page=2` must not mask the 2 of an address."""

_SCHEME = re.compile(r"\A\s*(?:[a-z][a-z0-9+.-]*://|https?:/*|/*)", re.IGNORECASE)
_SERVER_SCHEMES = ("http", "https", "")
_DATABASE_CREDENTIALS = re.compile(r"([^:/]+:[^@]*)@")
"""User name and password as SQLAlchemy parses them: `/`, `?` and `#` in a password need not be quoted."""
_HOST_AND_PORT = re.compile(r"(?:[^:]*|\[[^]]*\])(:\d*)?")
_PATH_VALUE = re.compile(r"(?<==)[^/;]+")


def mask_uri(uri: str) -> str:
    """Return `uri` without user name and password, and with its query values and fragment masked."""
    start, _, rest = _parts(uri)
    place, query, fragment = _split(rest)
    if _is_server(start):
        place = _PATH_VALUE.sub(MASK, place)
    if query:
        keys = [f"{pair.partition('=')[0]}={MASK}" if "=" in pair else MASK for pair in _pairs(query)]
        place += f"?{'&'.join(keys)}"
    return f"{start}{place}{f'#{MASK}' if fragment else ''}"


def mask_secrets(text: str, uri: str) -> str:
    """Return `text` with every secret of `uri` masked, also where a library has cut or quoted the URI."""
    text = text.replace(uri, mask_uri(uri))
    for secret in sorted(set(_secrets(uri)), key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", MASK, text)
    return text


def host(uri: str) -> str:
    """Return the name of the server in `uri`, "local" if it names none."""
    try:
        return urlsplit(mask_uri(uri)).hostname or "local"
    except ValueError:  # such as brackets around something other than an IPv6 address
        return "local"


class MaskingStream:
    """A stream that masks the secrets of a URI in everything written to it, also by libraries."""

    def __init__(self, stream: TextIO, uri: str) -> None:
        self._stream, self._uri = stream, uri

    def write(self, text: str) -> int:
        """Write `text` without secrets."""
        self._stream.write(mask_secrets(text, self._uri))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write every line without secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _parts(uri: str) -> tuple[str, str, str]:
    """Return scheme with `://`, user name and password without `@`, and the rest."""
    rest = _SCHEME.sub("", uri)
    start = uri.removesuffix(rest)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user = ""
    if "@" in authority:
        user = authority.rpartition("@")[0]
    elif not _is_server(start) and (database := _DATABASE_CREDENTIALS.match(rest)):
        user = database[1]
    elif ":" in authority and "@" in rest and not _HOST_AND_PORT.fullmatch(authority):
        user = rest.partition("@")[0]  # not quoted correctly
    return start, user, rest.removeprefix(f"{user}@") if user else rest


def _is_server(start: str) -> bool:
    return start.strip().rstrip(":/").lower() in _SERVER_SCHEMES


def _split(rest: str) -> tuple[str, str, str]:
    """Return place, query and fragment of what follows the user name."""
    beginning, _, fragment = rest.partition("#")
    place, _, query = beginning.partition("?")
    return place, query, fragment


def _pairs(query: str) -> list[str]:
    """Return the parts of a query, each `key=value` or a word alone."""
    return re.split(r"[&;]", query)


def _secrets(uri: str) -> Iterator[str]:
    """Yield every form in which a secret of `uri` may appear elsewhere: as it is, decoded, encoded."""
    start, user, rest = _parts(uri)
    place, query, fragment = _split(rest)
    values = [user, *user.split(":", 1), query, fragment]
    if _is_server(start):
        values += _PATH_VALUE.findall(place)
    for pair in _pairs(query):
        value = pair.partition("=")[2] or pair
        values.append(value if len(value) >= _MIN_SECRET_LENGTH else pair)
    for value in filter(None, values):
        for plain in (value, unquote(value), unquote_plus(value)):
            yield from (plain, quote(plain), quote(plain, safe=""), quote_plus(plain), repr(plain)[1:-1])


if __name__ == "__main__":
    print(mask_uri(os.environ.get("MLFLOW_TRACKING_URI", "")))
