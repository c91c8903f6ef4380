"""gRPC in a worker: a port that the supervisor keeps for all of them, and a server that starts and ends with uvicorn's.

Nothing here imports grpc before a worker is forked.
"""

import asyncio
import importlib
import socket
from typing import Any, Final

from service.api.app import Service
from service.server.extras import missing
from service.server.listening import address_of, reserve
from service.server.tls import pem_of
from service.settings import Settings

_SERVER: Final = "service.dialects.v2.rpc"
_NEEDED: Final = ("grpc", "grpc_health", "grpc_reflection", "google.protobuf")


def why_not(settings: Settings) -> str | None:
    """Why a port for gRPC cannot be had with these settings; None where it can, or is not wanted."""
    if settings.grpc_port is None:
        return None
    if "v2" not in settings.spoken():
        return "it is a port of the protocol v2, which is switched off"
    return missing("grpc", _NEEDED)


class Rpc:
    """The gRPC server of one worker; one that has no port does nothing."""

    def __init__(self, settings: Settings, service: Service, kept: socket.socket | None) -> None:
        self._settings = settings
        self._service = service
        self._kept = kept
        self._running: Any = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens on the port that is kept, beside the other workers."""
        if self._kept is None:
            return
        host, port = self._kept.getsockname()[:2]
        module = importlib.import_module(_SERVER)
        tls = pem_of(self._settings)
        self._running = await module.start(self._service.served, self._service.front.answer, host, port, tls)

    def stop(self) -> None:
        """Takes no more requests; those in flight get as long as others."""
        if self._running is not None and self._stopping is None:
            stopping = self._running.stop(float(self._settings.drain_seconds))
            self._stopping = asyncio.get_running_loop().create_task(stopping)

    async def ended(self) -> None:
        """Returns when it has come to its end."""
        self.stop()
        if self._stopping is not None:
            await self._stopping


def port_for(settings: Settings) -> socket.socket | None:
    """The port for all workers, if there is to be one; raises Conflict if it is taken."""
    return None if settings.grpc_port is None else reserve(settings.host, settings.grpc_port)


def said_of(kept: socket.socket) -> str:
    """The address that clients use."""
    return address_of(kept).removeprefix("http://")
