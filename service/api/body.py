"""Reading a request body under a limit: nothing is buffered beyond it, and a length that promises more is refused."""

from time import perf_counter

from service.api.answer import Receive, Scope
from service.api.media import header
from service.errors import InvalidRequest, RequestTooLarge


class ClientDisconnected(Exception):
    """The client has gone before its body was whole."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body; raises RequestTooLarge beyond `limit` bytes, ClientDisconnected, InvalidRequest."""
    check_length(header(scope, b"content-length"), limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body = message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        return bytes(body)
    return await _read_rest(message, receive, limit)


async def read_timed(scope: Scope, receive: Receive, limit: int, since: float) -> tuple[bytes, float]:
    """The whole body, and `since` later by what it took to come: that was the client's time. Raises the same."""
    asked = perf_counter()
    body = await read_body(scope, receive, limit)
    return body, since + perf_counter() - asked


async def _read_rest(message: object, receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        if not isinstance(message, dict) or message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()


def check_length(announced: bytes | None, limit: int) -> None:
    """Raises RequestTooLarge for a Content-Length beyond `limit` bytes, InvalidRequest for one that is no number."""
    if announced is None:
        return
    announced = announced.strip(b" \t")  # white space behind a value is no part of it (RFC 9112 section 5)
    if not announced.isdigit():
        raise InvalidRequest(f"Content-Length {announced.decode('latin-1')!r} is not a number of bytes")
    if len(announced) > 18 or int(announced) > limit:
        found = int(announced) if len(announced) <= 18 else None
        raise _too_large(limit, found)


def check_body(body: bytes, limit: int) -> None:
    """Raises RequestTooLarge for a body of more than `limit` bytes."""
    if len(body) > limit:
        raise _too_large(limit, len(body))


def _too_large(limit: int, found: int | None = None) -> RequestTooLarge:
    return RequestTooLarge("the request body in bytes", "EMBEDDING_MAX_BODY_BYTES", limit, found)
