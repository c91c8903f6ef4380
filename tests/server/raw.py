"""HTTP as bytes over a socket, and a server in this process whose connections can be looked at. No expectations."""

import asyncio
import fcntl
import re
import socket
import struct
import termios
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import uvicorn
import uvloop

from load_tests.running import until
from service.api.app import Service
from service.server.protocol import ChildProtocol
from service.server.serving import ChildServer
from service.server.wire import Wire
from service.watcher import StoreWatcher
from tests.api.test_metrics import parsed, requests
from tests.api.wire import JSON
from tests.world import service_over

SECONDS: Final = 10.0
"""How long a test waits for what must come."""
ENDLESS: Final = 86_400.0
_DATE = re.compile(rb"\r\n(date: [^\r]*|x-request-id: [0-9a-f]{32}(?=\r))", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as bytes; `bodiless` for one whose answer has no body whatever its head says."""

    head: bytes
    body: bytes = b""
    bodiless: bool = False

    @property
    def whole(self) -> bytes:
        return self.head + self.body


def request(
    body: bytes,
    target: str = "/v1/tables/words/lookup",
    *fields: str,
    media: str | None = JSON,
    method: str = "POST",
    version: str = "1.1",
    length: int | None = -1,
) -> Request:
    """A request with these header fields after the usual ones; `length` None for one that does not say it."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost"]
    if media is not None:
        lines.append(f"Content-Type: {media}")
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return Request("\r\n".join([*lines, *fields, "", ""]).encode(), body, method == "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as bytes."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def field(self, name: str) -> str | None:
        """The value of a header field."""
        found = re.search(rb"\r\n%b: ([^\r]*)" % name.encode(), self.head, re.IGNORECASE)
        return found and found.group(1).decode()

    def undated(self) -> bytes:
        """All bytes but those of the date, and of an id that the server has made."""
        return _DATE.sub(b"", self.head) + self.body


class Connection:
    """A client that sends what it is told, and reads answer by answer."""

    def __init__(self, address: tuple[str, int], receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(SECONDS)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name: tuple[str, int] = self.socket.getsockname()
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def vanish(self) -> None:
        """Ends the connection by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def push(self, data: bytes) -> None:
        """Sends bytes and leaves open when they are read."""
        self.socket.sendall(data)

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer; raises EOFError where the connection ends before it is whole."""
        head = self.head()
        found = _LENGTH.search(head)
        length = int(found.group(1)) if found and not bodiless else 0
        return Answer(head, self.read(length))

    def head(self) -> bytes:
        """The head of the next answer, with its blank line."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line.endswith(b"\n"):
                raise EOFError(head + line)
            head += line
        return head

    def read(self, count: int) -> bytes:
        """So many bytes; raises EOFError where there are fewer."""
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError(f"{len(data)} bytes of {count}")
        return data

    def is_ended(self) -> bool:
        """Waits for the end; whether nothing comes before it."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


class Still(ChildServer):
    """Leaves it to the tests to look at connections."""

    async def on_tick(self, counter: int) -> bool:
        return await uvicorn.Server.on_tick(self, counter)


class World:
    """A server over a store, and all that a test may want to know of it."""

    def __init__(self, service: Service, watcher: StoreWatcher, server: ChildServer, address: tuple[str, int]) -> None:
        self.service = service
        self.watcher = watcher
        self.server = server
        self.address = address
        self.loop: asyncio.AbstractEventLoop
        self.thread: threading.Thread

    @property
    def in_flight(self) -> int:
        return self.service.front.lookups.admission.in_flight

    def connect(self, receive_buffer: int = 0) -> Connection:
        return Connection(self.address, receive_buffer)

    def on_loop(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` gives on the event loop of the server."""

        async def asked() -> _T:
            return await ask()

        return asyncio.run_coroutine_threadsafe(asked(), self.loop).result(SECONDS)

    def protocol(self, connection: Connection) -> ChildProtocol:
        """The server's end of a connection; to be looked at, or used on the loop."""

        async def found() -> ChildProtocol | None:
            ends = (end for end in self.server.server_state.connections if isinstance(end, ChildProtocol))
            return next((end for end in ends if end.client == connection.name), None)

        return until(lambda: self.on_loop(found))

    def send(self, connection: Connection, *packets: bytes) -> None:
        """Sends packets, each once the server has dealt with the ones before it."""
        for packet in packets:
            connection.push(packet)
            self.settle(connection)

    def settle(self, connection: Connection) -> None:
        """Waits until the server has taken everything that was sent."""
        taken = self.protocol(connection).transport.get_extra_info("socket").fileno()

        async def is_taken() -> bool:
            for _ in range(1000):
                if not _queued(connection.socket.fileno(), termios.TIOCOUTQ) and not _queued(taken, termios.FIONREAD):
                    return True
                await asyncio.sleep(0)
            return False

        until(lambda: self.on_loop(is_taken))

    def is_idle(self) -> bool:
        """Whether no lookup is counted and no task is at work."""

        async def idle() -> bool:
            return not self.in_flight and not self.server.server_state.tasks

        return self.on_loop(idle)

    def counted(self) -> dict[tuple[str, str, str], int]:
        """Requests by table, endpoint and status, of `/metrics`."""
        with self.connect() as connection:
            connection.push(request(b"", "/metrics", media=None, method="GET", length=None).whole)
            return requests(parsed(connection.answer().body.decode()))

    def more_than(self, before: dict[tuple[str, str, str], int]) -> dict[tuple[str, str], float]:
        """The single lookups that were counted since, by table and status."""
        now = self.counted()
        more = {(table, status): now[key] - before.get(key, 0) for key in now for table, _, status in [key]}
        return {key: value for key, value in more.items() if value}

    def stop(self) -> None:
        """Begins a graceful shutdown; gives once every connection knows."""
        with self.connect() as witness:
            self.protocol(witness)
            self.server.stop()
            assert witness.is_ended()

    def ended(self) -> bool:
        """Waits for the server to end."""
        self.thread.join(SECONDS)
        return not self.thread.is_alive()


def _queued(descriptor: int, which: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, which, bytes(4)))
    return int(count)


@contextmanager
def wired(
    root: Path,
    *,
    protocol: type[ChildProtocol] = Wire,
    server: type[ChildServer] = Still,
    client_seconds: float = ENDLESS,
    drain_seconds: int = 5,
    **settings: object,
) -> Iterator[World]:
    """A server as workers run it, in this process; it must end when the test does."""
    service, watcher = service_over(root, **settings)
    started = threading.Event()
    running = server(service.front, drain_seconds, client_seconds, started.set, protocol)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        world = World(service, watcher, running, listener.getsockname())

        async def serve() -> None:
            world.loop = asyncio.get_running_loop()
            await running.serve([listener])

        world.thread = threading.Thread(target=_run, args=(serve,))
        world.thread.start()
        assert started.wait(SECONDS)
        try:
            yield world
        finally:
            running.stop()
            assert world.ended(), "the server did not stop"
            watcher.close()


def _run(serve: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())  # type: ignore[arg-type]


Worlds = tuple[World, World]
"""The service as it runs, and one that answers by ASGI and keeps no text of any row."""


@contextmanager
def both(root: Path, **limits: int) -> Iterator[Worlds]:
    """Both over one store."""
    settings: dict[str, Any] = {**limits}
    with (
        wired(root, **settings) as tested,
        wired(root, protocol=ChildProtocol, json_cache_bytes=0, **settings) as plain,
    ):
        yield tested, plain
