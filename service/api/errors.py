"""Errors as RFC 9457 problem details. The status of every code is here and nowhere else."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from service.api.answer import PROBLEM, Answer, Headers
from service.errors import MethodNotAllowed, ServiceError
from service.requestid import REQUEST_ID, new

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one code have in common."""

    status: int
    title: str


KINDS: Final[dict[str, Kind]] = {
    "invalid_json": Kind(400, "The body is not valid JSON"),
    "unauthorized": Kind(401, "Authentication is required"),
    "forbidden": Kind(403, "Not allowed"),
    "not_found": Kind(404, "Nothing is served here"),
    "table_not_found": Kind(404, "No such table"),
    "version_not_found": Kind(404, "No such version"),
    "label_not_found": Kind(404, "No such label"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "not_acceptable": Kind(406, "No acceptable media type"),
    "conflict": Kind(409, "The state of the store forbids it"),
    "request_too_large": Kind(413, "A limit is exceeded"),
    "unsupported_media_type": Kind(415, "The media type is not supported"),
    "invalid_request": Kind(422, "The request is wrong"),
    "out_of_vocabulary": Kind(422, "Not in the table"),
    "no_vocabulary": Kind(422, "The table has no vocabulary"),
    "no_unknown_row": Kind(422, "The table has no unknown row"),
    "not_representable": Kind(422, "Beyond the range of the dtype"),
    "internal": Kind(500, "Internal error"),
    "not_ready": Kind(503, "The table is not ready"),
    "overloaded": Kind(503, "Too many requests in flight"),
    "timeout": Kind(504, "Not all workers answered in time"),
    "insufficient_storage": Kind(507, "The disk is full"),
}

_WIDE: Final = 1 << 63


def problem(error: ServiceError, extra: Mapping[str, object] | None = None) -> Answer:
    """The answer to `error`; `extra` are members that its place adds."""
    headers = ((b"content-type", PROBLEM), *headers_of(error))
    return _answer(error.code, str(error), {**error.members(), **(extra or {})}, headers)


def headers_of(error: ServiceError) -> Headers:
    """The header fields that go with an error, however it is written."""
    if isinstance(error, MethodNotAllowed):
        return ((b"allow", ", ".join(error.allowed).encode()),)
    if isinstance(error, Fault):
        return ((b"x-request-id", error.request_id.encode()),)
    if error.code == "unauthorized":
        return ((b"www-authenticate", b'Bearer realm="admin"'),)
    return ((b"retry-after", b"1"),) if error.code in ("not_ready", "overloaded") else ()


class Fault(ServiceError):
    """A fault of ours, whose cause is in the log under this id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"the server failed to answer; its log has the cause under the request id {request_id}")
        self.request_id = request_id

    def members(self) -> Mapping[str, object]:
        return {"request_id": self.request_id}


class Told(ServiceError):
    """An error as a process of the service has told of it, for who tells of it in other words."""

    def __init__(self, content: Mapping[str, object]) -> None:
        super().__init__(str(content["detail"]))
        self.code = str(content["code"])  # type: ignore[misc]  # elsewhere that of a class
        self._members = {name: value for name, value in content.items() if name not in _OF_ALL}

    def members(self) -> Mapping[str, object]:
        return self._members


_OF_ALL: Final = frozenset({"type", "title", "status", "detail", "code"})


def fault(error: Exception) -> Fault:
    """Logs an error that is a fault of ours; what is told of it has nothing of its text."""
    found = Fault(REQUEST_ID.get() or new())
    _log.error("request %s failed", found.request_id, exc_info=error)
    return found


def internal(error: Exception) -> Answer:
    """The answer to a fault of ours: an id to find it in the log by."""
    return problem(fault(error))


def _answer(code: str, detail: str, members: Mapping[str, object], headers: Headers) -> Answer:
    kind = KINDS[code]
    content = {
        "type": f"urn:embedding-table-service:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        **members,
    }
    return Answer(kind.status, headers, (orjson.dumps(_exact(content)),))


def _exact(value: object) -> object:
    """`value` with integers that orjson refuses as their digits; an id is never answered as a float."""
    if isinstance(value, Mapping):
        return {key: _digits(item) if key == "id" else _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    if isinstance(value, int) and not -_WIDE <= value < _WIDE:
        return _digits(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _digits(value: object) -> object:
    return orjson.Fragment(str(value))
