"""What is around every request that comes by ASGI: its id, and where they are wanted a line in the log and a trace."""

import logging
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp

from service.api.answer import Message, Receive, Scope, Send
from service.logs import ACCESS
from service.requestid import REQUEST_ID, given_or_new
from service.settings import Settings

HEADER: Final = b"x-request-id"
_log = logging.getLogger(ACCESS)


def observed(
    app: ASGIApp,
    settings: Settings,
    routes: Callable[[Scope], str | None],
    is_nameless: Callable[[Scope], bool] = lambda _: False,
) -> ASGIApp:
    """An application whose requests have ids. Answers of status 200 to requests that are `is_nameless` have none.

    `routes` tells what the paths of a request's kind have in common, for the names of spans.
    """
    if settings.access_log:
        app = _Logged(app)
    if settings.traces_endpoint is not None:
        from service.api.tracing import Traced  # noqa: PLC0415  (an extra, imported by who wants it)

        app = Traced(app, routes)
    return _Identified(app, is_nameless)


class _Identified:
    """Takes a request's id from its client, or gives it one; the log and the answer have it."""

    def __init__(self, app: ASGIApp, is_nameless: Callable[[Scope], bool]) -> None:
        self._app = app
        self._is_nameless = is_nameless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((bytes(value) for name, value in scope["headers"] if name == HEADER), None)
        request_id = given_or_new(given)
        name = (HEADER, request_id.encode())
        if given is None or name[1] != given:  # whoever this is passed on to hears it
            scope["headers"] = [*(pair for pair in scope["headers"] if pair[0] != HEADER), name]

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_wanted(scope, message, given):
                message["headers"] = [*message["headers"], name]
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, named)
        finally:
            REQUEST_ID.reset(token)

    def _is_wanted(self, scope: Scope, message: Message, given: bytes | None) -> bool:
        if any(name == HEADER for name, _ in message["headers"]):
            return False
        return given is not None or message["status"] != 200 or not self._is_nameless(scope)


class _Logged:
    """One line for each request, when its answer is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, sent = time.perf_counter(), 0, 0

        async def noted(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            _tell(scope, status, sent, time.perf_counter() - begun)


def _tell(scope: Scope, status: int, sent: int, seconds: float) -> None:
    """Without the query, which may be long, and without anything that a client could forge a line with."""
    path = ascii(scope["path"])[1:-1]
    client = (scope.get("client") or ("-",))[0]
    said = {"method": scope["method"], "path": path, "status": status, "bytes": sent, "client": client}
    _log.info(
        '%s "%s %s" %d %d bytes %.6f s',
        *(client, scope["method"], path, status, sent, seconds),
        extra={**said, "seconds": round(seconds, 6)},
    )
