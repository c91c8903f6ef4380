"""The log's form, of records that are out of the ordinary."""

import io
import logging
from typing import Any

import orjson
import pytest

from service import logs
from service.requestid import REQUEST_ID


def written(message: str, *arguments: object, **extra: object) -> dict[str, Any]:
    """What stands in the log of one record, which nobody else hears of."""
    stream = io.StringIO()
    record = logging.makeLogRecord(
        {"name": "service.test", "levelname": "INFO", "msg": message, "args": arguments, **extra}
    )
    logs.handler(stream, logs.JSON).handle(record)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    found: dict[str, Any] = orjson.loads(text)
    return found


@pytest.mark.parametrize(
    "text", ["st\udcffore", "two\nlines", 'a "quote"', "\x00\x1b[31m", "日本 \u2028", "x" * 100_000], ids=ascii
)
def test_whatever_is_logged_is_one_object_on_one_line(text: str) -> None:
    record = written("serving %s", text, path=text)
    assert record["message"].startswith("serving ")
    assert record["level"] == "INFO"
    assert "path" in record


def test_a_record_has_the_id_of_the_request_in_which_it_was_made() -> None:
    token = REQUEST_ID.set("checkout-7")
    first = written("first")
    REQUEST_ID.reset(token)
    assert first["request_id"] == "checkout-7"
    assert "request_id" not in written("second")
