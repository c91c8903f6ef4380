"""A real server on a real socket whose answers are written beforehand: what a test cannot make a service say."""

import json
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

RESET: Final = b"reset"
CLOSE: Final = b"close"
SILENCE: Final = b"silence"
TRICKLE: Final = b"trickle"
"""What happens to a connection, instead of an answer, once the request has come."""


class Late(bytes):
    """An answer that comes after so many seconds, unless the client has gone by then."""

    seconds: float

    @classmethod
    def after(cls, seconds: float, said: bytes) -> "Late":
        found = cls(said)
        found.seconds = seconds
        return found


@dataclass
class Scripted:
    """One answer for each request, the last one again and again; `requests` are what has come."""

    port: int
    answers: list[bytes]
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[str]:
        """The first line of each request, without the version of HTTP."""
        return [request.split(b" HTTP", 1)[0].decode() for request in self.requests]

    def next_answer(self) -> bytes:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def scripted(*answers: bytes, port: int = 0) -> Iterator[Scripted]:
    """Serves until the end of the block, one thread for each connection."""
    listener = socket.create_server(("127.0.0.1", port))
    script = Scripted(listener.getsockname()[1], list(answers))
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=_serve, args=(connection, script)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield script
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _serve(connection: socket.socket, script: Scripted) -> None:
    with connection, suppress(OSError):
        while request := _request(connection):
            script.requests.append(request)
            answer = script.next_answer()
            if answer == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if answer == CLOSE:
                return
            if answer == TRICKLE:
                _trickle(connection)
            elif isinstance(answer, Late) and _has_gone(connection, answer.seconds):
                return
            elif answer != SILENCE:
                connection.sendall(answer)


def _trickle(connection: socket.socket) -> None:
    """An answer a byte at a time, for six seconds or until the client has gone."""
    connection.sendall(b"HTTP/1.1 200 Text\r\nContent-Length: 300\r\n\r\n")
    for _ in range(300):
        if _has_gone(connection, 0.02):
            return
        connection.sendall(b"x")


def _has_gone(connection: socket.socket, seconds: float) -> bool:
    """Whether the client closes the connection within so many seconds."""
    return bool(select.select([connection], [], [], seconds)[0]) and not connection.recv(1, socket.MSG_PEEK)


def _request(connection: socket.socket) -> bytes:
    """A whole request; nothing for a connection that is closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


# Answers


def answer(status: int, content: bytes = b"", **fields: str) -> bytes:
    """An answer; `_` in the names of fields stands for `-`."""
    lines = [f"HTTP/1.1 {status} Text", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def problem(code: str, status: int, *, retry_after: str | None = None, **members: object) -> bytes:
    """An error of the service."""
    content = {"type": f"urn:x:{code}", "title": code, "status": status, "detail": f"it is {code}", "code": code}
    fields = {} if retry_after is None else {"retry_after": retry_after}
    body = json.dumps({**content, **members}).encode()
    return answer(status, body, content_type="application/problem+json", **fields)


def vectors(rows: np.ndarray, version: int = 1, table: str = "words") -> bytes:
    """The bare vectors of a lookup."""
    return answer(
        200,
        rows.tobytes(),
        embedding_table=table,
        embedding_version=str(version),
        embedding_shape=",".join(map(str, rows.shape)),
        embedding_dtype=rows.dtype.name,
    )


def info(version: int = 1, *, padding_id: int | None = None, table: str = "words") -> bytes:
    """What is told of a version of a table."""
    facts = {"num_embeddings": 100, "padding_id": padding_id, "on_oov": "error", "backend": "numpy", "state": "READY"}
    return answer(
        200, json.dumps({"name": table, "version": version, **facts}).encode(), content_type="application/json"
    )
