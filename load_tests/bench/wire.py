"""How one question is put to a server: HTTP/1.1 and RESP, as octets that were prepared before."""

import http.client
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

_Read: TypeAlias = Callable[[int], bytes]
_PATIENCE: Final = 60.0


def post(path: str, media: str, body: bytes, **headers: str) -> bytes:
    """A whole HTTP request; `headers` by their names with `_` for `-`."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Type: {media}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def command(*words: bytes) -> bytes:
    """A whole RESP command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def ask_http(port: int, request: bytes) -> bytes:
    """The body of the answer; raises ValueError for one that is not 200, OSError for none."""
    with _connected(port) as stream:
        stream.sendall(request)
        answer = http.client.HTTPResponse(stream, method="POST")
        answer.begin()
        body = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise ValueError(f"status {answer.status}: {body[:300]!r}")
    return body


def ask_resp(port: int, request: bytes) -> bytes:
    """The strings of the answer, one after the other; raises ValueError for an error or a missing string."""
    with _connected(port) as stream, stream.makefile("rb") as answer:
        stream.sendall(request)
        head = answer.readline()
        if head[:1] == b"*":
            return b"".join(_string(answer.readline(), answer.read) for _ in range(int(head[1:])))
        if head[:1] == b"$":
            return _string(head, answer.read)
        if head[:1] == b"-":
            raise ValueError(head.decode())
        return head[1:-2]


def _string(head: bytes, read: _Read) -> bytes:
    length = int(head[1:])
    if head[:1] != b"$" or length < 0:
        raise ValueError(f"no string, but {head!r}")
    return read(length + 2)[:-2]


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
