"""Spans of the calls over gRPC. Needs the extra `tracing`.

Names and attributes are those of the semantic conventions for gRPC
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc).
"""

from typing import Final

import grpc
from opentelemetry.trace import Span, StatusCode

from service.dialects.v2.messages import SERVICE
from service.dialects.v2.rpc_calls import Call, Outcome, Procedure, client_of, status_of
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
_STATUS: Final = "rpc.grpc.status_code"
_INFER: Final = "ModelInfer"
_OF_ANSWER: Final = {1: "embedding.table", 2: "embedding.version"}
"""The first fields of a ModelInferResponse."""


def traced(name: str, work: Procedure, *, by_itself: bool) -> Procedure:
    """Work with a span around it that goes on with the trace which the client began.

    Where there is none it begins one if that is done `by_itself`, as it is for a share of the calls.
    """
    said: dict[str, str | int] = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": name}

    async def spanned(call: Call) -> Outcome:
        sent = {field: call.metadata[field] for field in CONTEXT if field in call.metadata}
        if not sent and not by_itself:
            return await work(call)
        with span_of(f"{SERVICE}/{name}", sent, {**said, **_client(call)}) as span:
            CARRIED.set(tuple(carried()))
            span.set_attribute(_STATUS, grpc.StatusCode.CANCELLED.value[0])  # where nothing comes of it
            found = await work(call)
            if span.is_recording():
                _note(span, name, found)
            return found

    return spanned


def _client(call: Call) -> dict[str, str | int]:
    address, port = client_of(call)
    named: dict[str, str | int] = {"client.address": address} if address else {}
    return named if port is None else {**named, "client.port": port}


def _note(span: Span, name: str, found: Outcome) -> None:
    status = status_of(found)
    span.set_attribute(_STATUS, status.value[0])
    if status in _FAULTS:
        span.set_status(StatusCode.ERROR)
    if name != _INFER or not isinstance(found, bytes):
        return
    for field in fields(memoryview(found), 0, len(found)):
        if field.number not in _OF_ANSWER:
            return
        span.set_attribute(_OF_ANSWER[field.number], found[field.value : field.end].decode())
