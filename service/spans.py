"""Spans of OpenTelemetry, sent by OTLP over HTTP: what this process traces with. Needs the extra `tracing`.

Contexts are those of the W3C (https://www.w3.org/TR/trace-context).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NoOpTracer, Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.requestid import REQUEST_ID
from service.settings import Settings

CONTEXT: Final = ("traceparent", "tracestate")
"""The fields of a request in which a trace goes on."""
_EXPORT_SECONDS: Final = 2  # a collector that hangs must not hold up a stop
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


@contextmanager
def span_of(name: str, sent: Mapping[str, str], attributes: Mapping[str, str | int]) -> Iterator[Span]:
    """A span around the answer to a request; it goes on with the trace whose `CONTEXT` was sent, if there is one."""
    with _Process.tracer.start_as_current_span(
        name,
        context=_propagator.extract(sent),
        kind=SpanKind.SERVER,
        attributes={**attributes, "embedding.request_id": REQUEST_ID.get()},
    ) as span:
        yield span


def carried() -> list[tuple[bytes, bytes]]:
    """The header fields by which whoever a request is passed on to goes on with the present span."""
    found: dict[str, str] = {}
    _propagator.inject(found)
    return [(name.encode(), value.encode("latin-1")) for name, value in found.items()]
