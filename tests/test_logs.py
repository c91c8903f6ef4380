"""The log's form, of records that are out of the ordinary."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from service import logs
from service.requestid import REQUEST_ID

NAME = "service.tests_of_the_log"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a logger writes as JSON. Nobody else hears of it."""
    stream, logger = io.StringIO(), logging.getLogger(NAME)
    writer = logs.handler(stream, logs.JSON)
    logger.addHandler(writer)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield stream
    logger.removeHandler(writer)


@pytest.mark.parametrize(
    "text", ["st\udcffore", "two\nlines", 'a "quote"', "\x00\x1b[31m", "日本 \u2028", "x" * 100_000], ids=ascii
)
def test_whatever_is_logged_is_one_object_on_one_line(written: io.StringIO, text: str) -> None:
    logging.getLogger(NAME).info("serving %s", text, extra={"path": text})
    (line,) = written.getvalue().splitlines() if "\u2028" not in text else [written.getvalue()]
    record = orjson.loads(line)
    assert record["message"].startswith("serving ")
    assert record["level"] == "INFO"
    assert "path" in record


def test_a_record_has_the_id_of_the_request_in_which_it_was_made(written: io.StringIO) -> None:
    token = REQUEST_ID.set("checkout-7")
    logging.getLogger(NAME).warning("first")
    REQUEST_ID.reset(token)
    logging.getLogger(NAME).warning("second")
    first, second = map(orjson.loads, written.getvalue().splitlines())
    assert first["request_id"] == "checkout-7"
    assert "request_id" not in second
