"""Listening sockets: one per worker on one address, so that the kernel spreads connections over all of them."""

import errno
import socket
from typing import Any, Final, TypeAlias

from service.errors import Conflict, InvalidRequest

_BACKLOG: Final = 2048
_Address: TypeAlias = Any  # its form depends on the address family


def bind(host: str, port: int, workers: int) -> list[socket.socket]:
    """Sockets that listen on the same address, one per worker; port 0 takes a free one.

    A connection waits in its socket's queue while that worker is being replaced: the supervisor keeps the
    socket. Raises Conflict if the address is taken, InvalidRequest if it cannot be.
    """
    family, kind, protocol, _, address = _resolve(host, port)
    alone = socket.socket(family, kind, protocol)
    try:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(alone, address)
        if workers == 1:
            return [_listen(alone)]
        bound = alone.getsockname()
    except BaseException:  # cleaned up after, and raised on
        alone.close()
        raise
    # Bound once without SO_REUSEPORT: with it, a second server on this port would silently take half the traffic.
    alone.close()
    return [_listen(_shared(family, kind, protocol, bound)) for _ in range(workers)]


def _resolve(host: str, port: int) -> tuple[int, int, int, str, _Address]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidRequest(f"--host {host!r} is not an address of this machine: {error}") from None


def _shared(family: int, kind: int, protocol: int, address: _Address) -> socket.socket:
    shared = socket.socket(family, kind, protocol)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(shared, address)
    return shared


def _bind(listener: socket.socket, address: _Address) -> None:
    try:
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"{address[0]} port {address[1]} is in use") from None
        raise InvalidRequest(f"{address[0]} port {address[1]} cannot be taken: {error.strerror}") from None


def _listen(listener: socket.socket) -> socket.socket:
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """The address that clients use, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
