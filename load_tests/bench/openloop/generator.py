"""An open-loop load generator in one thread: epoll, plain sockets, requests made beforehand, bodies only counted.

Every request has a due time. It goes onto a free connection, or waits for one, and its latency counts from when it
was due: a server that stalls is charged for all that arrived meanwhile (coordinated omission is accounted for).
When an answer arrived is the kernel's word, not when the generator came round to reading it.
"""

import gc
import heapq
import math
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Final, Literal, TypeAlias

import numpy as np

from load_tests.bench.openloop.answers import HEAD_END, Chunks, Head, parse_head
from load_tests.bench.openloop.records import Record, Seconds

Arrivals: TypeAlias = Literal["poisson", "even"]
Address: TypeAlias = tuple[str, int]

_clock = time.time  # the clock of the kernel's time stamps
_BUFFER_BYTES: Final = 1 << 20
_EVENTS: Final = 64
_SPIN: Final = 0.0002  # seconds before a due time in which the generator no longer sleeps
_PAUSE: Final = 0.01  # seconds before a client whose connection was lost asks again
_SO_TIMESTAMPNS: Final = 35  # the socket module has no name for it
_TIMESPEC: Final = struct.Struct("qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_LOST: Final = Head(status=0, length=0, retry_after=None, closes=True)


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of request: whole requests that are sent in turn, `rate` a second, over so many connections.

    Without a rate it is a closed loop: every connection asks again once it is answered, after a refusal only when
    `Retry-After` has passed if it `honours_retry_after`. Requests must fit into a socket's buffer: 200 KB.
    """

    name: str
    requests: tuple[bytes, ...]
    connections: int
    rate: float | None = None
    arrivals: Arrivals = "poisson"
    honours_retry_after: bool = False

    def due_times(self, seconds: float, random: np.random.Generator) -> Seconds:
        """The arrivals of so many seconds, ascending, from 0; empty for a closed loop."""
        if self.rate is None:
            return np.empty(0)
        if self.arrivals == "even":
            return np.arange(0.5, math.floor(self.rate * seconds)) / self.rate
        # Given their number, the arrivals of a Poisson process are uniform.
        return np.sort(random.uniform(0.0, seconds, random.poisson(self.rate * seconds)))


@dataclass(frozen=True, slots=True)
class Load:
    """Streams that arrive at one address together for so many seconds; `drain` is how long answers may take then."""

    address: Address
    streams: tuple[Stream, ...]
    seconds: float
    drain: float = 5.0
    seed: int = 0


class _Connection:
    """One keep-alive connection, with the request that is on it and what is still to come of its answer."""

    __slots__ = ("address", "chunks", "flags", "free_at", "head", "index", "lane", "left", "pending", "socket")

    def __init__(self, lane: "_Lane", address: Address) -> None:
        self.lane = lane
        self.address = address
        self.open()

    def open(self) -> None:
        """Connects; raises OSError."""
        self.socket = socket.create_connection(self.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.setblocking(False)
        self.free_at = _clock()
        self.reset()

    def reset(self) -> None:
        """Nothing is on it."""
        self.index = -1
        self.head: Head | None = None
        self.pending = b""
        self.chunks: Chunks | None = None
        self.left = 0
        self.flags = 0


class _Lane(ABC):
    """A stream under way: its connections and what is recorded of it."""

    def __init__(self, stream: Stream, load: Load) -> None:
        self.stream = stream
        self.connections = [_Connection(self, load.address) for _ in range(stream.connections)]
        self.reconnects = self.with_retry_after = self.body_bytes = self.flying = 0
        self._requests = cycle(stream.requests)
        self._due: list[float] = []
        self._sent: list[float] = []
        self._free: list[float] = []
        self._done: list[float] = []
        self._status: list[int] = []

    @abstractmethod
    def begin(self, now: float) -> None:
        """The run starts now."""

    @abstractmethod
    def release(self, now: float) -> None:
        """Sends what is due and has a connection."""

    @abstractmethod
    def wakes_at(self) -> float:
        """When there is something to release, if nothing is answered before."""

    @abstractmethod
    def finished(self, now: float) -> bool:
        """Whether all that arrives has been answered."""

    @abstractmethod
    def _freed(self, connection: _Connection, head: Head) -> None:
        """A connection can be used again."""

    def answered(self, connection: _Connection, head: Head, arrived: float) -> None:
        """The request on a connection is done; without an answer (status 0) at infinity."""
        if head.status:
            self._done[connection.index] = arrived
            self._status[connection.index] = head.status
            self.with_retry_after += head.retry_after is not None
        self.flying -= 1
        connection.free_at = arrived
        connection.reset()
        self._freed(connection, head)

    def _send(self, connection: _Connection, due: float) -> None:
        request = next(self._requests)
        connection.index = len(self._sent)
        self.flying += 1
        self._due.append(due)
        self._free.append(connection.free_at)
        self._done.append(math.inf)
        self._status.append(0)
        self._sent.append(_clock())
        with suppress(ConnectionError):  # its end is read, too
            if connection.socket.send(request) != len(request):
                raise RuntimeError(f"a request of {len(request):,} bytes does not fit into the socket's buffer")

    def record(self, begun: float, seconds: float, busy: float) -> Record:
        """What became of all requests."""
        due = np.array(self._all_due(), dtype=np.float64) - begun
        sent, done, free = (
            _filled(times, len(due), math.inf) - begun for times in (self._sent, self._done, self._free)
        )
        was_sent = np.isfinite(sent)
        late = np.full(len(due), np.nan)
        late[was_sent] = sent[was_sent] - np.maximum(due, free)[was_sent]
        return Record(
            name=self.stream.name,
            seconds=seconds,
            due=due,
            sent=sent,
            done=done,
            late=late,
            status=_filled(self._status, len(due), 0).astype(np.int16),
            with_retry_after=self.with_retry_after,
            body_bytes=self.body_bytes,
            reconnects=self.reconnects,
            busy=busy,
        )

    def _all_due(self) -> list[float]:
        """Also of what was never sent."""
        return self._due


def _filled(values: Sequence[float], size: int, missing: float) -> Seconds:
    filled = np.full(size, missing)
    filled[: len(values)] = values
    return filled


class _Open(_Lane):
    """Requests arrive at their due times and take the connection that has been free longest."""

    def __init__(self, stream: Stream, load: Load, random: np.random.Generator) -> None:
        super().__init__(stream, load)
        self._arrivals: list[float] = stream.due_times(load.seconds, random).tolist()
        self._idle = deque(self.connections)
        self._next_due = math.inf

    def begin(self, now: float) -> None:
        self._arrivals = [now + due for due in self._arrivals]
        self._arrivals.append(math.inf)
        self._next_due = self._arrivals[0]

    def release(self, now: float) -> None:
        while self._next_due <= now and self._idle:
            self._send(self._idle.popleft(), self._next_due)
            self._next_due = self._arrivals[len(self._sent)]

    def wakes_at(self) -> float:
        return self._next_due if self._idle else math.inf

    def finished(self, now: float) -> bool:  # noqa: ARG002
        return self._next_due == math.inf and not self.flying

    def _freed(self, connection: _Connection, head: Head) -> None:  # noqa: ARG002
        self._idle.append(connection)
        self.release(_clock())

    def _all_due(self) -> list[float]:
        return self._arrivals[:-1]


class _Closed(_Lane):
    """Every connection is a client that asks again, until the time is over."""

    def __init__(self, stream: Stream, load: Load) -> None:
        super().__init__(stream, load)
        self._seconds = load.seconds
        self._until = 0.0
        self._waiting: list[tuple[float, int, _Connection]] = []

    def begin(self, now: float) -> None:
        self._until = now + self._seconds
        for connection in self.connections:
            self._send(connection, now)

    def release(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now < self._until:
            due, _, connection = heapq.heappop(self._waiting)
            self._send(connection, due)

    def wakes_at(self) -> float:
        return self._waiting[0][0] if self._waiting else math.inf

    def finished(self, now: float) -> bool:
        return now >= self._until and not self.flying

    def _freed(self, connection: _Connection, head: Head) -> None:
        now = _clock()
        pause = self._pause(head)
        if pause:
            heapq.heappush(self._waiting, (now + pause, id(connection), connection))
        elif now < self._until:
            self._send(connection, now)

    def _pause(self, head: Head) -> float:
        if head is _LOST:
            return _PAUSE
        return (head.retry_after or 0.0) if self.stream.honours_retry_after else 0.0


class _Driver:
    """The loop over all connections."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._epoll = select.epoll()  # before the connections, so that its number is one that `select` takes
        random = np.random.default_rng(load.seed)
        self._lanes: list[_Lane] = [
            _Closed(stream, load) if stream.rate is None else _Open(stream, load, random) for stream in load.streams
        ]
        self._connections: dict[int, _Connection] = {}
        for lane in self._lanes:
            for connection in lane.connections:
                self._register(connection)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._buffers = [self._buffer]
        self._waited = 0.0

    def run(self) -> list[Record]:
        """All requests of the load, and what became of them, stream by stream."""
        begun = _clock()
        for lane in self._lanes:
            lane.begin(begun)
        until = begun + self._load.seconds
        while not self._over(until):
            for fd, _ in self._ready(until):
                self._on_readable(self._connections[fd])
        busy = 1.0 - self._waited / (_clock() - begun)
        return [lane.record(begun, self._load.seconds, busy) for lane in self._lanes]

    def close(self) -> None:
        """Ends all connections."""
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    def _over(self, until: float) -> bool:
        now = _clock()
        for lane in self._lanes:
            lane.release(now)
        return now >= until and (now >= until + self._load.drain or all(lane.finished(now) for lane in self._lanes))

    def _ready(self, until: float) -> list[tuple[int, int]]:
        """The connections that can be read; waits until there is one, or a request is due."""
        events = self._epoll.poll(0, _EVENTS)
        if not events:
            begun = now = _clock()
            wakes_at = min(*(lane.wakes_at() for lane in self._lanes), until if begun < until else begun + _PAUSE)
            while not events and now < wakes_at:
                if wakes_at - now > _SPIN:
                    # Unlike epoll's, the timeout of `select` is finer than a millisecond.
                    select.select([self._epoll], [], [], wakes_at - now - _SPIN)
                events = self._epoll.poll(0, _EVENTS)
                now = _clock()
            self._waited += now - begun
        return events

    def _register(self, connection: _Connection) -> None:
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)

    def _reopen(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._epoll.unregister(connection.socket)
        connection.socket.close()
        connection.open()
        connection.lane.reconnects += 1
        self._register(connection)

    def _on_readable(self, connection: _Connection) -> None:
        try:
            received, ancillary, _, _ = connection.socket.recvmsg_into(
                self._buffers, _ANCILLARY_BYTES, connection.flags
            )
        except BlockingIOError:  # of a connection that was opened anew since
            return
        except ConnectionError:
            received = 0
        if not received:
            self._lost(connection)
        elif self._whole(connection, received):
            self._answered(connection, _arrival(ancillary))

    def _lost(self, connection: _Connection) -> None:
        on_it = connection.index
        self._reopen(connection)
        if on_it >= 0:
            connection.index = on_it
            connection.lane.answered(connection, _LOST, _clock())

    def _answered(self, connection: _Connection, arrived: float) -> None:
        head, index = connection.head, connection.index
        assert head is not None
        connection.lane.body_bytes += connection.chunks.size if connection.chunks else head.length or 0
        if head.closes:
            self._reopen(connection)
            connection.index = index
        connection.lane.answered(connection, head, arrived)

    def _whole(self, connection: _Connection, received: int) -> bool:
        """Whether the answer is complete with what was just read into the buffer."""
        if connection.left:
            connection.left -= received
        elif connection.chunks is not None:
            return connection.chunks.feed(memoryview(self._buffer)[:received])
        else:
            return self._read_head(connection, received)
        return _nothing_left(connection)

    def _read_head(self, connection: _Connection, received: int) -> bool:
        if connection.index < 0:
            raise RuntimeError("an answer came that nobody had asked for")
        data: bytes | bytearray = self._buffer
        if connection.pending:
            data = connection.pending + self._buffer[:received]
            received = len(data)
        end = data.find(HEAD_END, 0, received)
        if end < 0:
            connection.pending = bytes(data[:received])
            return False
        head = connection.head = parse_head(bytes(data[:end]))
        body = end + len(HEAD_END)
        if head.length is None:
            connection.chunks = Chunks()
            return connection.chunks.feed(memoryview(data)[body:received])
        connection.left = head.length - (received - body)
        connection.flags = socket.MSG_TRUNC  # the rest of a body is counted and not copied (tcp(7))
        return _nothing_left(connection)


def _nothing_left(connection: _Connection) -> bool:
    if connection.left < 0:
        raise RuntimeError(f"an answer is {-connection.left} bytes longer than it says")
    return not connection.left


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> float:
    """When the last byte that was read arrived."""
    if not ancillary:
        return _clock()
    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
    return float(seconds) + float(nanoseconds) * 1e-9


def drive(load: Load) -> list[Record]:
    """Runs a load in this process; raises OSError if there is no server, RuntimeError for what is no HTTP."""
    driver = _Driver(load)
    gc.disable()  # a collection is a pause of the generator
    try:
        return driver.run()
    finally:
        gc.enable()
        driver.close()
