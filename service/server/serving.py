"""uvicorn as the children run it: without its own signal handlers, on sockets that the supervisor bound."""

import asyncio
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from service.server.accepting import Acceptor, OpenConnections, Share
from service.server.protocol import ChildProtocol

_TICKS: Final = 10  # of uvicorn's main loop in a second
_PARTING: Final = 0.5
"""Seconds, at a stop, in which answers tell their clients that they are the last ones of their connections."""
_LOOKS: Final = 50  # in this time, whether somebody is left
_CLOSE: Final = (b"connection", b"close")
_ROUNDS: Final = 10
"""Of the event loop, at a stop, in which requests are read that have come already: one is enough for most."""


class ChildServer(uvicorn.Server):
    """uvicorn's server, telling when it accepts and when it is told to stop, which is done by `stop`.

    Ten times a second it tells how many connections are open.

    With a `share` it has one socket, perhaps also that of other processes, and takes its share of the connections; with
    `tls`, which needs one, they are encrypted.
    """

    def __init__(
        self,
        app: ASGIApp,
        drain_seconds: int,
        client_seconds: float,
        on_started: Callable[[], None] = lambda: None,
        protocol: type[ChildProtocol] = ChildProtocol,
        share: Share | None = None,
        on_stop: Callable[[], None] = lambda: None,
        on_tick: Callable[[int], None] = lambda _connections: None,
        tls: Mapping[str, Any] = MappingProxyType({}),
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
        self._on_stop = on_stop
        self._tick = on_tick
        self._share = share
        self._tls = tls
        self._acceptor: Acceptor | None = None
        if share is not None:
            self.server_state.connections = OpenConnections(share.lost)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        self._tick(len(self.server_state.connections))
        if counter % _TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, ChildProtocol):
                    connection.look(self._client_seconds)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._share is None or sockets is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            (listener,) = sockets
            self._acceptor = Acceptor(listener, self._share, self._new_protocol, self._tls)
        self._on_started()

    def _new_protocol(self) -> asyncio.Protocol:
        """As uvicorn makes it for a connection that it accepts."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accept_no_more()
        await self._part()
        await self._read_what_has_come()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # whose clients have not read their answers in time
            if isinstance(connection, ChildProtocol):
                connection.transport.abort()

    async def _part(self) -> None:
        """Waits for clients that ask all the time to read that their connections end, rather than to ask in vain."""
        for _ in range(_LOOKS):
            if not self.server_state.connections:
                return
            await asyncio.sleep(_PARTING / _LOOKS)

    async def _read_what_has_come(self) -> None:
        """Tells every connection of the stop, those on which a request lies unread only after that was read."""
        for _ in range(_ROUNDS):
            left = [each for each in self.server_state.connections if isinstance(each, ChildProtocol)]
            for connection in left:
                if not connection.has_unread():
                    connection.shutdown()
            if not any(connection.has_unread() for connection in left):
                return
            await asyncio.sleep(0)

    def stop(self) -> None:
        """Finishes the requests in flight, telling every client that its connection ends, and then ends."""
        if not self.should_exit:  # the first time
            self.config.encoded_headers.append(_CLOSE)  # of which the fields of the next second are made
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        self.should_exit = True
        self._on_stop()
        self._accept_no_more()

    def _accept_no_more(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
