"""The Open Inference Protocol over gRPC: grpcio's asyncio server in a worker, over the tables that it serves anyway.

Imported by workers that have a port for it, after they were forked: grpc must not be there before.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from starlette.types import ASGIApp

from service.api.served import Served
from service.dialects.v2.health import HEALTH, health_handler
from service.dialects.v2.messages import POOL, SERVICE
from service.dialects.v2.rpc_endpoints import Endpoints

_HEAD_ROOM: Final = 1 << 16
"""Bytes of a message beside its tensors: the limits are for those."""
_LOGGER: Final = "grpc._cython.cygrpc"
_OTHERS: Final = 16  # calls beside inferences: health, metadata


class Running(Protocol):
    """A server that has been started."""

    async def stop(self, grace: float) -> None:
        """Takes no more requests, and gives those in flight so many seconds."""


@dataclass(frozen=True, slots=True)
class _Started:
    server: Any
    stopping: asyncio.Event

    async def stop(self, grace: float) -> None:
        self.stopping.set()  # for those who watch the health: they would wait for ever
        await self.server.stop(grace)


async def start(
    served: Served, admin: ASGIApp, host: str, port: int, tls: tuple[bytes, bytes] | None = None
) -> Running:
    """Starts a server on a port that other workers listen on as well. `admin` is asked to load and unload.

    `tls` is a private key and a certificate chain.
    """
    limits = served.limits
    patience = int(served.settings.client_seconds * 1000)
    # Calls count from their first byte on, as places are taken when the message is there: twice as many may come.
    calls = 2 * served.admission.limit + _OTHERS
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.max_body_bytes + _HEAD_ROOM),
        ("grpc.max_send_message_length", limits.max_response_bytes + _HEAD_ROOM),
        ("grpc.max_concurrent_streams", calls),  # with fewer grpc's clients begin too many, and some are refused
        ("grpc.keepalive_time_ms", patience),
        ("grpc.keepalive_timeout_ms", patience),
    ]
    logging.getLogger(_LOGGER).addFilter(_is_of_server)
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=calls)
    stopping = asyncio.Event()
    handlers = (_handlers(Endpoints(served, admin)), health_handler(served, stopping))
    server.add_generic_rpc_handlers(handlers)
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        POOL.AddSerializedFile(file.serialized_pb)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server, pool=POOL)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, grpc.ssl_server_credentials([tls]))
    await server.start()
    return _Started(server, stopping)


def _is_of_server(record: logging.LogRecord) -> bool:
    """False for what grpcio logs as an error, with the value, wherever metadata is no text: a token may be in it."""
    return not str(record.msg).startswith("Invalid encoding")


def _handlers(endpoints: Endpoints) -> grpc.GenericRpcHandler:
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in endpoints.methods().items()}
    return grpc.method_handlers_generic_handler(SERVICE, handlers)
