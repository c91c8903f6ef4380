"""Listening sockets: on one address, with one queue for all workers."""

import ctypes
import errno
import socket
import struct
from typing import Any, Final, TypeAlias

from service.errors import Conflict, InvalidRequest

_BACKLOG: Final = 2048  # for each worker; the system has a limit of its own
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_FIRST_PACKETS: Final = (
    (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header, which begins at 0
    (0x54, 0, 0, 0x12),  # of these SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # then nothing of the packet is kept
    (0x06, 0, 0, 0xFFFFFFFF),  # else all of it
)
"""Drops attempts to connect: classic BPF (linux/filter.h), `code, jt, jf, k` each."""
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


def shut(listener: socket.socket) -> bool:
    """Has nobody connect any more, while those who are about to be connected still are, and can be accepted.

    A listening socket that is closed resets what is in its queue. Between the last look into the queue and the end of
    the socket a client could come and ask, and one that is far away may not have heard yet that it is connected. Who
    comes after this tries again after a second (RFC 6298), and is refused if nobody listens by then. False where the
    system cannot do it.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _FIRST_PACKETS))
    described = struct.pack("@HP", len(_FIRST_PACKETS), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:
        return False
    return True


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
