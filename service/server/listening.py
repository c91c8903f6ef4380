"""Listening sockets: on one address, with one queue for all workers."""

import errno
import socket
from typing import Any, Final, TypeAlias

from service.errors import Conflict, InvalidRequest

_BACKLOG: Final = 2048  # for each worker; the system has a limit of its own
_Address: TypeAlias = Any  # its form depends on the address family


def bind(host: str, port: int, workers: int) -> list[socket.socket]:
    """A socket for each worker, all on the same queue; port 0 takes a free one.

    A connection waits in the queue until any worker takes it, and while there is none: the supervisor keeps the
    sockets. Raises Conflict if the address is taken, InvalidRequest if it cannot be.
    """
    family, kind, protocol, _, address = _resolve(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(listener, address)
        listener.listen(_BACKLOG * workers)
        listener.setblocking(False)
        return [listener, *(listener.dup() for _ in range(workers - 1))]
    except BaseException:  # cleaned up after, and raised on
        listener.close()
        raise


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps an address for others of this service, which bind it with SO_REUSEPORT and listen.

    It does not listen itself, so that no connection comes to it. Raises what `bind` raises.
    """
    family, kind, protocol, _, address = _resolve(host, port)
    with socket.socket(family, kind, protocol) as probe:  # with SO_REUSEPORT the address of another server is free, too
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(probe, address)
    kept = socket.socket(family, kind, protocol)
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(kept, address)
    except BaseException:  # cleaned up after, and raised on
        kept.close()
        raise
    return kept


def _resolve(host: str, port: int) -> tuple[int, int, int, str, _Address]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidRequest(f"--host {host!r} is not an address of this machine: {error}") from None


def _bind(listener: socket.socket, address: _Address) -> None:
    try:
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"{address[0]} port {address[1]} is in use") from None
        raise InvalidRequest(f"{address[0]} port {address[1]} cannot be taken: {error.strerror}") from None


def address_of(listener: socket.socket, *, tls: bool = False) -> str:
    """The address that clients use, as a URL."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
