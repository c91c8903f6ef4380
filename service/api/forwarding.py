"""Requests that a worker passes on to the steward as they are, over a Unix socket, and the answers back.

Who may not ask, or sends what would be refused, is told so here: the steward's answer comes back only after the
body has been passed on.
"""

from collections.abc import AsyncIterator
from typing import Final

import httpx

from service.api.answer import Answer, Receive, Scope, Send, send_answer
from service.api.authorization import Authorize
from service.api.body import ClientDisconnected
from service.api.errors import problem
from service.api.upload import check_head, is_upload
from service.errors import InvalidRequest, ServiceError, Unreachable
from service.uploads import too_large

_OF_ONE_CONNECTION: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect"})
"""Fields that are about the client's connection to us (RFC 9110 section 7.6.1), and what we have answered already."""


class Forwarding:
    """The ASGI application in a worker for what the steward serves. A body is passed on piece by piece."""

    def __init__(self, address: str, authorize: Authorize, upload_limit: int) -> None:
        self._address = address
        self._authorize = authorize
        self._upload_limit = upload_limit
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._authorize(scope)
            if is_upload(scope):
                check_head(scope, self._upload_limit)
            answer = await self._ask(scope, receive)
        except ClientDisconnected:
            return
        except ServiceError as error:
            answer = problem(error)
        except (httpx.LocalProtocolError, httpx.InvalidURL) as error:
            answer = problem(InvalidRequest(f"the request cannot be passed on: {error}"))
        except httpx.TransportError:
            answer = problem(Unreachable("the process that changes the store has ended; ask what is in force"))
        await send_answer(send, answer)

    async def rehearse(self) -> None:
        """Asks in vain, before workers are forked: what is imported at the first use (80 ms) is imported then."""
        try:
            await self._transport().get("http://steward")
        except httpx.TransportError:
            await self._transport().aclose()
        self._client = None

    async def _ask(self, scope: Scope, receive: Receive) -> Answer:
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        request = httpx.Request(
            scope["method"],
            httpx.URL("http://steward", raw_path=target),
            headers=[(name, value) for name, value in scope["headers"] if name not in _OF_ONE_CONNECTION],
            content=_pieces(receive, self._upload_limit) if _has_body(scope) else None,
        )
        response = await self._transport().send(request)
        passed = [(name.lower(), value) for name, value in response.headers.raw]
        dropped = _OF_ONE_CONNECTION | {b"content-length", b"transfer-encoding", b"date", b"server"}
        kept = tuple(pair for pair in passed if pair[0] not in dropped)
        return Answer(response.status_code, kept, (response.content,))

    def _transport(self) -> httpx.AsyncClient:
        """Made by the first request: connections belong to the event loop of the process that was forked."""
        if self._client is None:
            # A connection for each request: one that is kept may be closed by the steward in the instant of its use.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            # A Unix socket needs no certificates; to load them would stop the event loop for 100 ms.
            transport = httpx.AsyncHTTPTransport(uds=self._address, limits=limits, verify=False)
            self._client = httpx.AsyncClient(transport=transport, timeout=None, trust_env=False)  # noqa: S113
        return self._client


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _pieces(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        piece = bytes(message.get("body", b""))
        total += len(piece)
        if total > limit:
            raise too_large(limit)
        yield piece
        if not message.get("more_body", False):
            return
