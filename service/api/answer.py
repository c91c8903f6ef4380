"""An HTTP answer as a value, and sending it. The one place that speaks ASGI's `send`."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from starlette.responses import Response

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

PROBLEM: Final = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` are without the length of `body`, which is added when it is sent."""

    status: int
    headers: Headers
    body: bytes | memoryview


async def send_answer(send: Send, answer: Answer) -> None:
    """Sends the whole answer."""
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]})
    await send({"type": "http.response.body", "body": answer.body})


class AnswerResponse(Response):
    """An answer as FastAPI's routes return it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body, answer.status)
        self.raw_headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
