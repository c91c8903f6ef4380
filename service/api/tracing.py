"""Traces by OpenTelemetry: spans of requests that come by ASGI, sent by OTLP over HTTP. Needs the extra `tracing`.

Contexts are those of the W3C (https://www.w3.org/TR/trace-context), names and attributes those of the semantic
conventions for HTTP servers (https://opentelemetry.io/docs/specs/semconv/http/http-spans).
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.requestid import REQUEST_ID
from service.settings import Settings

_EXPORT_SECONDS: Final = 2  # a collector that hangs must not hold up a stop
_UNTRACED: Final = ("/health", "/metrics", "/v2/health")
_OF_ANSWER: Final = {b"embedding-table": "embedding.table", b"embedding-version": "embedding.version"}
_propagator: Final = TraceContextTextMapPropagator()


def start(settings: Settings) -> TracerProvider:
    """Has this process send its spans, from a thread of its own: not to be called before a fork."""
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(settings.traces_ratio),
        resource=Resource.create({"service.name": "embedding-table-service", "service.version": __version__}),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.traces_endpoint, timeout=_EXPORT_SECONDS)))
    _Process.tracer = provider.get_tracer("service", __version__)
    return provider


class _Process:
    """What this process traces with: not the global provider, which FastAPI would trace with once more."""

    tracer: ClassVar[Tracer] = NoOpTracer()


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
        parent, route = _propagator.extract(dict(_texts(scope))), self._routes(scope)
        with _Process.tracer.start_as_current_span(
            _name(scope, route), context=parent, kind=SpanKind.SERVER, attributes=_attributes(scope, route)
        ) as span:
            _pass_on(scope)

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note(span, message)
                await send(message)

            await self._app(scope, receive, noted)


def _texts(scope: Scope) -> Iterator[tuple[str, str]]:
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            yield name.decode(), value.decode("latin-1")


def _pass_on(scope: Scope) -> None:
    """Whoever this request is passed on to goes on with this span."""
    carried: dict[str, str] = {}
    _propagator.inject(carried)
    others = [pair for pair in scope["headers"] if pair[0] not in (b"traceparent", b"tracestate")]
    scope["headers"] = [*others, *((name.encode(), value.encode("latin-1")) for name, value in carried.items())]


def _name(scope: Scope, route: str | None) -> str:
    return str(scope["method"]) if route is None else f"{scope['method']} {route}"


def _attributes(scope: Scope, route: str | None) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope.get("http_version", "1.1"),
        "embedding.request_id": REQUEST_ID.get(),
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
