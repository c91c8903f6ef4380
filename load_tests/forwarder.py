"""A TCP forwarder in front of servers: what a load balancer does when one server takes another's place.

New connections go to the server that is named now; those that are open stay with theirs until it closes them.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

_PIECE: Final = 64 << 10
_BACKLOG: Final = 128


class Forwarder:
    """Forwards until it is closed; `url` is its own address. What a server resets, it ends."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._thread = threading.Thread(target=self._accept_all, name="forwarder")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return "http://{}:{}".format(*self._listener.getsockname())

    def forward_to(self, target: str) -> None:
        """From now on new connections go to this server."""
        self._target = target

    def close(self) -> None:
        """Ends every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for thread, client in list(self._connections.items()):
            _end(client)
            thread.join()

    def _accept_all(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # it is shut down
                return
            self._connections = {thread: held for thread, held in self._connections.items() if thread.is_alive()}
            thread = threading.Thread(target=_forward, args=(client, self._target))
            self._connections[thread] = client
            thread.start()


def _forward(client: socket.socket, target: str) -> None:
    address = urlsplit(target)
    with client, suppress(OSError), socket.create_connection((address.hostname, address.port)) as server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests = threading.Thread(target=_copy, args=(client, server))
        requests.start()
        _copy(server, client)
        _end(client)
        requests.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Until one of them ends, which is passed on."""
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def forwarding(target: str) -> Iterator[Forwarder]:
    """A forwarder that is closed afterwards."""
    forwarder = Forwarder(target)
    try:
        yield forwarder
    finally:
        forwarder.close()
