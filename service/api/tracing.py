"""Spans of the requests that come by ASGI. Needs the extra `tracing`.

Names and attributes are those of the semantic conventions for HTTP servers
(https://opentelemetry.io/docs/specs/semconv/http/http-spans).
"""

from collections.abc import Callable, Iterator
from typing import Final

from opentelemetry.trace import Span, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.spans import CONTEXT, carried, span_of

_UNTRACED: Final = ("/health", "/metrics", "/v2/health")
_OF_ANSWER: Final = {b"embedding-table": "embedding.table", b"embedding-version": "embedding.version"}
_CONTEXT: Final = frozenset(name.encode() for name in CONTEXT)


class Traced:
    """A span around each request; it goes on with the trace that the client began, if there is one.

    It is named by `routes`, what the paths of its kind have in common: else there would be a name for each table.
    """

    def __init__(self, app: ASGIApp, routes: Callable[[Scope], str | None]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_UNTRACED):
            await self._app(scope, receive, send)
            return
        route = self._routes(scope)
        with span_of(_name(scope, route), dict(_texts(scope)), _attributes(scope, route)) as span:
            _pass_on(scope)

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note(span, message)
                await send(message)

            await self._app(scope, receive, noted)


def _texts(scope: Scope) -> Iterator[tuple[str, str]]:
    for name, value in scope["headers"]:
        if name in _CONTEXT:
            yield name.decode(), value.decode("latin-1")


def _pass_on(scope: Scope) -> None:
    """Whoever this request is passed on to goes on with this span."""
    scope["headers"] = [*(pair for pair in scope["headers"] if pair[0] not in _CONTEXT), *carried()]


def _name(scope: Scope, route: str | None) -> str:
    return str(scope["method"]) if route is None else f"{scope['method']} {route}"


def _attributes(scope: Scope, route: str | None) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if route is not None:
        found["http.route"] = route
    for key, pair in (("client", scope.get("client")), ("server", scope.get("server"))):
        if pair is not None and pair[1] is not None:
            found |= {f"{key}.address": pair[0], f"{key}.port": pair[1]}
    return found


def _note(span: Span, message: Message) -> None:
    status = int(message["status"])
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    for name, value in message["headers"]:
        if name in _OF_ANSWER:
            span.set_attribute(_OF_ANSWER[name], value.decode("latin-1"))
