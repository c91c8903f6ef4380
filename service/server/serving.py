"""uvicorn as the children run it: without its own signal handlers, on sockets that the supervisor bound."""

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.server.protocol import IgnoringUpgrades


class ChildServer(uvicorn.Server):
    """uvicorn's server, telling when it accepts, and stopped by `stop`."""

    def __init__(self, app: ASGIApp, drain_seconds: int, on_started: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=IgnoringUpgrades,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=drain_seconds,
            )
        )
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def stop(self) -> None:
        """Finishes the requests in flight and then ends."""
        self.should_exit = True
