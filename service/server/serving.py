"""uvicorn as the children run it: without its own signal handlers, on sockets that the supervisor bound."""

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from service.server.protocol import ChildProtocol

_TICKS: Final = 10  # of uvicorn's main loop in a second


class ChildServer(uvicorn.Server):
    """uvicorn's server, telling when it accepts, and stopped by `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        drain_seconds: int,
        client_seconds: float,
        on_started: Callable[[], None] = lambda: None,
        protocol: type[ChildProtocol] = ChildProtocol,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=drain_seconds,
            )
        )
        self._client_seconds = client_seconds
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, ChildProtocol):
                    connection.look(self._client_seconds)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def stop(self) -> None:
        """Finishes the requests in flight and then ends."""
        self.should_exit = True
