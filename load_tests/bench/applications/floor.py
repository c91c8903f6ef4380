"""The least application there can be: it answers with as many octets as the path says, made once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

_Message: TypeAlias = Mapping[str, Any]
_made: dict[str, tuple[_Message, _Message]] = {}


async def application(
    scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
) -> None:
    """Reads with one `receive()`, answers in two messages."""
    await receive()
    path = scope["path"]
    start, body = _made.get(path) or _make(path)
    await send(start)
    await send(body)


def _make(path: str) -> tuple[_Message, _Message]:
    length = path.removeprefix("/")
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", length.encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    _made[path] = start, {"type": "http.response.body", "body": bytes(int(length))}
    return _made[path]
