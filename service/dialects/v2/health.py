"""gRPC's own health service (`grpc.health.v1`): the server, and the inference service, serve when every table does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from service.api.served import Served
from service.dialects.v2 import models
from service.dialects.v2.messages import SERVICE, Message

HEALTH: Final = "grpc.health.v1.Health"
_KNOWN: Final = ("", SERVICE, HEALTH)
_LOOK: Final = 1.0  # seconds between two looks for those who watch


def health_handler(served: Served, stopping: asyncio.Event) -> grpc.GenericRpcHandler:
    """Answers both methods of the service."""

    def state(service: str) -> Message:
        kinds = health_pb2.HealthCheckResponse
        if service not in _KNOWN:
            return kinds(status=kinds.SERVICE_UNKNOWN)
        serves = models.is_ready(served) and not stopping.is_set()
        return kinds(status=kinds.SERVING if serves else kinds.NOT_SERVING)

    async def check(request: Message, context: Message) -> Message:
        if request.service not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r}")
        return state(request.service)

    async def watch(request: Message, _context: Message) -> AsyncIterator[Message]:
        told = None
        while told is None or not stopping.is_set():
            now = state(request.service)
            if now != told:
                told = now
                yield now
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK)
        yield state(request.service)

    read, write = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    handlers = {
        "Check": grpc.unary_unary_rpc_method_handler(check, read, write),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, read, write),
    }
    return grpc.method_handlers_generic_handler(HEALTH, handlers)
