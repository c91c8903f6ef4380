"""Spans of the calls over gRPC. Needs the extra `tracing`.

Names and attributes are those of the semantic conventions for gRPC
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc).
"""

from collections.abc import Iterator
from typing import Final

import grpc
from opentelemetry.trace import Span, StatusCode

from service.dialects.v2.messages import SERVICE
from service.dialects.v2.rpc_calls import Context, Outcome, Procedure, client_of, status_of
from service.protobuf import fields
from service.requestid import CARRIED
from service.spans import CONTEXT, carried, span_of

_FAULTS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What the conventions have servers mark as errors."""
_INFER: Final = "ModelInfer"
_OF_ANSWER: Final = {1: "embedding.table", 2: "embedding.version"}
"""The first fields of a ModelInferResponse."""


def traced(name: str, work: Procedure) -> Procedure:
    """A procedure with a span around it; it goes on with the trace that the client began, if there is one."""
    attributes: dict[str, str | int] = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": name}

    async def call(sent: bytes, context: Context) -> Outcome:
        with span_of(f"{SERVICE}/{name}", dict(_texts(context)), {**attributes, **_client(context)}) as span:
            CARRIED.set(tuple(carried()))
            found = await work(sent, context)
            if span.is_recording():
                _note(span, name, found)
            return found

    return call


def _texts(context: Context) -> Iterator[tuple[str, str]]:
    for name, value in context.invocation_metadata() or ():
        if name in CONTEXT:
            yield name, str(value)


def _client(context: Context) -> dict[str, str | int]:
    address, port = client_of(context)
    return {"client.address": address} if port is None else {"client.address": address, "client.port": port}


def _note(span: Span, name: str, found: Outcome) -> None:
    status = status_of(found)
    span.set_attribute("rpc.grpc.status_code", status.value[0])
    if status in _FAULTS:
        span.set_status(StatusCode.ERROR)
    if name != _INFER or not isinstance(found, bytes):
        return
    for field in fields(memoryview(found), 0, len(found)):
        if field.number not in _OF_ANSWER:
            return
        span.set_attribute(_OF_ANSWER[field.number], found[field.value : field.end].decode())
