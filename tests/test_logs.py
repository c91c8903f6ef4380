"""The log's form, of records that are out of the ordinary."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from service import logs
from service.requestid import REQUEST_ID


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged as JSON."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure("debug", logs.JSON)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    "text", ["st\udcffore", "two\nlines", 'a "quote"', "\x00\x1b[31m", "日本 \u2028", "x" * 100_000], ids=ascii
)
def test_whatever_is_logged_is_one_object_on_one_line(written: io.StringIO, text: str) -> None:
    logging.getLogger("service.test").info("serving %s", text, extra={"path": text})
    (line,) = written.getvalue().splitlines() if "\u2028" not in text else [written.getvalue()]
    record = orjson.loads(line)
    assert record["message"].startswith("serving ")
    assert record["level"] == "INFO"
    assert "path" in record


def test_a_record_has_the_id_of_the_request_in_which_it_was_made(written: io.StringIO) -> None:
    token = REQUEST_ID.set("checkout-7")
    logging.getLogger("service.test").warning("first")
    REQUEST_ID.reset(token)
    logging.getLogger("service.test").warning("second")
    first, second = map(orjson.loads, written.getvalue().splitlines())
    assert first["request_id"] == "checkout-7"
    assert "request_id" not in second
