"""An HTTP answer as a value, and sending it. The one place that speaks ASGI's `send`."""

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias

from starlette.responses import Response
from starlette.types import Receive as _Receive
from starlette.types import Scope as _Scope
from starlette.types import Send as _Send

from service.api.turns import Turns

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
Buffer: TypeAlias = bytes | memoryview
"""Bytes in one place, one-dimensional."""

PROBLEM: Final = b"application/problem+json"


class Stream(NamedTuple):
    """A body of `length` bytes in all, whose `pieces` are made as they are sent; for one use."""

    length: int
    pieces: Iterator[Buffer]


class Ready(NamedTuple):
    """An answer with its `head` as it is sent, up to the number that is the length of its body."""

    head: bytes
    length: int
    body: tuple[Buffer, ...] | Stream


class Answer(NamedTuple):
    """`headers` are without the length of `body`, which is added when it is sent."""

    status: int
    headers: Headers
    body: tuple[Buffer, ...] | Stream

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.body.length if isinstance(self.body, Stream) else sum(map(len, self.body))


def ready(answer: Answer) -> Ready:
    """The same answer as it is sent past ASGI."""
    return Ready(head_text(answer.status, answer.headers), answer.length, answer.body)


@lru_cache(maxsize=1024)
def head_text(status: int, headers: Headers) -> bytes:
    """The status line and header fields, up to the length of the body."""
    lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join([*lines, b"content-length: "])


def joined(pieces: tuple[Buffer, ...]) -> Buffer:
    """The bytes of all pieces in one place."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def send_answer(send: Send, answer: Answer) -> None:
    """Sends the whole answer. A piece of a stream is made once the ones before it are on their way."""
    length = (b"content-length", b"%d" % answer.length)
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]})
    if not isinstance(answer.body, Stream):
        await send({"type": "http.response.body", "body": joined(answer.body)})
        return
    turns = Turns()
    for piece in answer.body.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await turns.end()
    await send({"type": "http.response.body"})


class AnswerResponse(Response):
    """An answer as FastAPI's routes return it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(status_code=answer.status)
        self._answer = answer
        self.raw_headers = [*answer.headers, (b"content-length", b"%d" % answer.length)]

    async def __call__(self, _scope: _Scope, _receive: _Receive, send: _Send) -> None:
        await send_answer(send, self._answer)
