"""No secret of a tracking URI is shown: not in the URI, nor in what others say about it."""

import io
import logging
import socket
from contextlib import closing
from pathlib import Path

import pytest
from tracked import Training

from m2pt.commands import main
from m2pt.tracking.mlflow_store import MlflowStore
from m2pt.tracking.uri import MaskingStream, host, mask_secrets, mask_uri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://user:secret@host/mlflow", "https://host/mlflow"),
        ("https://secret@host", "https://host"),
        ("http://user:sec@ret@host/", "http://host/"),
        ("http://host/?token=secret", "http://host/?token=***"),
        ("http://host?TOKEN=secret&page=2", "http://host?TOKEN=***&page=***"),
        ("http://host/?a=1;api_key=secret", "http://host/?a=***&api_key=***"),
        ("http://host/?secret", "http://host/?***"),
        ("http://host/#access_token=secret", "http://host/#***"),
        ("HTTPS://USER:SECRET@HOST/?Password=SECRET#x", "HTTPS://HOST/?Password=***#***"),
        ("http://host/?token=se%63ret%20", "http://host/?token=***"),
        ("http://host:5000/team@site/mlflow", "http://host:5000/team@site/mlflow"),
        ("http://[bad/?token=secret", "http://[bad/?token=***"),
        (
            "postgresql://user:secret@host:5432/runs?sslmode=require&sslpassword=secret",
            "postgresql://host:5432/runs?sslmode=***&sslpassword=***",
        ),
        ("postgresql+psycopg2://user:sec/ret?#x@host/runs", "postgresql+psycopg2://host/runs"),
        ("mysql+pymysql://user:secret@host/runs?ssl_key=secret", "mysql+pymysql://host/runs?ssl_key=***"),
        ("user:secret@host:5000", "host:5000"),
        ("host:5000?token=secret", "host:5000?token=***"),
        (" http://user:secret@host/", " http://host/"),
        ("http:/user:secret@host/", "http:/host/"),
        ("http:user:secret@host/", "http:host/"),
        ("//user:secret@host/", "//host/"),
        ("https://host/a;id=secret/b", "https://host/a;id=***/b"),
        ("https://host/token=secret", "https://host/token=***"),
        ("sqlite:////runs/seed=0/mlflow.db", "sqlite:////runs/seed=0/mlflow.db"),
        ("databricks://profile", "databricks://profile"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("", ""),
    ],
)
def test_what_may_be_shown_of_a_uri(uri: str, expected: str) -> None:
    assert mask_uri(uri) == expected and "secret" not in host(uri)
    assert MlflowStore(uri, artifacts=Path()).masked_uri == expected


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach {uri}",
        "cannot reach http://user:pass-word@host:5000/?token=abc%20def/api/2.0",
        "Max retries exceeded with url: /?token=abc%20def/api/2.0/mlflow (host='host', port=5000)",
        "params {{'token': 'abc def'}}, body token=abc+def",
        "401 for user 'user' with pass-word.",
    ],
)
def test_a_secret_is_masked_in_every_form(text: str) -> None:
    uri = "http://user:pass-word@host:5000/?token=abc%20def"
    said = mask_secrets(text.format(uri=uri), uri)
    assert not any(secret in said for secret in ("pass-word", "abc", "def", "'user'"))
    assert "host" in said or "host" not in text


@pytest.mark.parametrize(
    "form", ["http://{at}/?token={s}", "http://{at}?x=1&API_KEY={s}", "http://me:{s}@{at}"]
)
def test_neither_the_tracker_nor_what_it_uses_says_a_secret(
    results: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Training(results).log(range(2))
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        uri = form.format(at=f"127.0.0.1:{closed.getsockname()[1]}", s="s3cr%26t-word")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert main(["track", str(results)]) == 1
        logging.lastResort.handle(logging.makeLogRecord({"msg": f"retrying {uri}", "levelno": 30}))
    said = capsys.readouterr()
    assert "127.0.0.1" in said.err and "metric points are pending" in said.err
    assert not any(word in said.out + said.err for word in ("s3cr", "t-word"))
    assert not any("s3cr" in str(path) for path in results.rglob("*"))


def test_a_stream_masks_whatever_is_written_to_it() -> None:
    written = io.StringIO()
    stream = MaskingStream(written, "http://user:secret@host")
    print("no answer from http://user:secret@host", file=stream)
    stream.writelines(["user secret\n", "as it is\n"])
    assert written.getvalue() == "no answer from http://host\n*** ***\nas it is\n"
