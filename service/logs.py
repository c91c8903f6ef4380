"""How the log is written: lines for people, or JSON for machines. Every record has the id of its request, if any."""

import logging
import sys
from typing import Any, Final, TextIO

from pythonjsonlogger.orjson import OrjsonFormatter

from service.requestid import REQUEST_ID

CONSOLE: Final = "console"
JSON: Final = "json"
FORMATS: Final = (CONSOLE, JSON)
AUDIT: Final = "service.audit"
"""The logger of who changed what, which is told at every level."""
ACCESS: Final = "service.access"
"""The logger of requests, where they are logged at all."""
_TALKATIVE: Final = ("uvicorn", "httpx", "httpcore", "opentelemetry")
_OF_CLIENTS: Final = "opentelemetry.trace.span"
"""Warns of every `tracestate` that is not well formed, in its words."""
_LINE: Final = "%(asctime)s %(levelname)-8s %(process)d %(message)s%(of_request)s"
_FIELDS: Final = "%(levelname)s %(name)s %(process)d %(message)s"


class _OfRequest(logging.Filter):
    """Puts the id of the request that a task answers into what it logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = REQUEST_ID.get()
        record.of_request = f" request={request_id}" if request_id else ""
        if request_id:
            record.request_id = request_id
        return True


class _Json(OrjsonFormatter):
    """One object a line, whatever is in it: names of files may be no text."""

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            return super().jsonify_log_record(log_data)
        except TypeError:  # half a surrogate pair
            return super().jsonify_log_record({name: _plain(value) for name, value in log_data.items()})


def _plain(value: object) -> object:
    if isinstance(value, int | float | None):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def _json() -> logging.Formatter:
    return _Json(
        _FIELDS,
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
        timestamp="time",
        reserved_attrs=[*_reserved(), "of_request"],
    )


def _reserved() -> list[str]:
    """What every record has, of which only the fields that are named are written."""
    return [*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime"]


def handler(stream: TextIO, form: str) -> logging.Handler:
    """Writes records to a stream, in one of `FORMATS`."""
    found = logging.StreamHandler(stream)
    found.addFilter(_OfRequest())
    found.setFormatter(_json() if form == JSON else logging.Formatter(_LINE))
    return found


def configure(level: str, form: str) -> None:
    """Logs to the standard error from `level` on, in one of `FORMATS`. Children that are forked later do the same."""
    logging.basicConfig(level=level.upper(), handlers=[handler(sys.stderr, form)], force=True)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger(_OF_CLIENTS).setLevel(logging.ERROR)
    for name in (AUDIT, ACCESS):
        logging.getLogger(name).setLevel(logging.INFO)
