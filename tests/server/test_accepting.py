"""Several workers take connections in turns: real processes, real sockets."""

import asyncio
import http.client
import os
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import uvloop

from load_tests.bench.openloop.spread import holders
from load_tests.bench.openloop.world import address_of
from load_tests.running import Running, running, until
from service.server.accepting import Acceptor, OpenConnections, Share, Shares
from service.server.listening import bind
from service.store import TableStore
from tests.world import KERAS_ROWS, publish

ASK = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
NOTICED = 5.0
"""Seconds, more than a busy machine needs: a turn that nobody takes is over after 50 ms where it is idle."""

_TRIES = 3
"""Where the machine lets a worker wait, others go on without it, once."""


class Clients:
    """Keep-alive connections to a server, and which of its processes has which."""

    def __init__(self, server: Running, stack: ExitStack) -> None:
        self._address = address_of(server.url)
        self._server = server
        self._stack = stack
        self.open: list[socket.socket] = []

    def connect(self, number: int) -> list[socket.socket]:
        """So many connections at once, without a request."""
        fresh = [self._stack.enter_context(socket.create_connection(self._address, 30)) for _ in range(number)]
        self.open += fresh
        return fresh

    def ask(self) -> float:
        """A request on a connection of its own, which stays; the seconds until its answer."""
        begun = time.monotonic()
        (connection,) = self.connect(1)
        connection.sendall(ASK)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        assert answer.status == 200
        return time.monotonic() - begun

    def shares(self, of: Sequence[socket.socket] | None = None) -> Counter[int]:
        """How many of all (or of these) connections each living worker has, once each belongs to one of them."""
        ports = {port_of(client) for client in (self.open if of is None else of)}
        shares = Counter(dict.fromkeys(self._server.workers(), 0))
        shares.update(until(lambda: self._holders(ports)))
        return shares

    def _holders(self, ports: set[int]) -> list[int] | None:
        held_by = self.held_by(self._server.workers())
        return [held_by[port] for port in ports] if ports <= held_by.keys() else None

    def held_by(self, workers: Sequence[int]) -> dict[int, int]:
        """The connections that these workers have: the client's port to the worker."""
        # The listening socket has no client.
        return {port: worker for port, worker in holders(self._address[1], workers).items() if port}

    def part_from(self, worker: int) -> list[socket.socket]:
        """Takes those out that one worker has."""
        held = self.held_by([worker])
        parted = [client for client in self.open if port_of(client) in held]
        self.open = [client for client in self.open if client not in parted]
        return parted


def port_of(client: socket.socket) -> int:
    return int(client.getsockname()[1])


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS)
    return store


@pytest.fixture
def server(store: TableStore) -> Iterator[Running]:
    with running(store.root, "--workers", "4") as server:
        yield server


@pytest.fixture
def clients(server: Running) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(server, stack)


def is_even(shares: Counter[int], workers: int = 4) -> bool:
    mean = shares.total() / workers
    return len(shares) == workers and all(abs(share - mean) <= 2 for share in shares.values())


def one_by_one(clients: Clients) -> None:
    for _ in range(64):
        clients.ask()


@pytest.mark.parametrize(
    "come", [lambda clients: clients.connect(64), one_by_one], ids=["all at once", "one after the other"]
)
def test_every_worker_has_as_many_connections_as_the_others(
    clients: Clients, come: Callable[[Clients], object]
) -> None:
    seen = []
    for _ in range(_TRIES):
        come(clients)
        seen.append(clients.shares())
        if sum(map(is_even, seen)) == 2:
            return
    pytest.fail(str(seen))


def test_a_worker_whose_clients_have_left_gets_the_next_ones(clients: Clients) -> None:
    def gets_them() -> bool:
        clients.connect(64)
        ((left, _),) = clients.shares().most_common(1)
        gone = clients.part_from(left)
        for client in gone:
            client.close()
        until(lambda: not clients.held_by([left]))
        fresh = clients.connect(len(gone))
        return clients.shares(fresh)[left] >= len(gone) - 2

    assert any(gets_them() for _ in range(_TRIES))


def test_nobody_waits_for_a_worker_that_is_stopped(server: Running, clients: Clients) -> None:
    clients.ask()
    stopped = server.workers()[0]

    def catches_up() -> bool:
        os.kill(stopped, signal.SIGSTOP)
        try:
            before = clients.shares()
            slowest = max(clients.ask() for _ in range(30))
            assert slowest < NOTICED
            assert clients.shares()[stopped] <= before[stopped] + 1
        finally:
            os.kill(stopped, signal.SIGCONT)
        for _ in range(20):  # it was 8 to 10 behind each of the others
            clients.ask()
        return clients.shares()[stopped] >= before[stopped] + 8

    assert any(catches_up() for _ in range(_TRIES))


def test_the_successor_of_a_killed_worker_gets_its_share(server: Running, clients: Clients) -> None:
    clients.connect(32)
    clients.shares()
    killed = server.workers()[1]
    clients.part_from(killed)
    os.kill(killed, signal.SIGKILL)
    assert clients.ask() < NOTICED

    def caught_up() -> bool:
        clients.ask()
        return is_even(clients.shares())

    until(caught_up, 30)
    assert killed not in clients.shares()


def test_a_worker_without_room_leaves_connections_to_the_others_and_says_so_once(
    server: Running, clients: Clients
) -> None:
    full, *_ = server.workers()
    limits = resource.prlimit(full, resource.RLIMIT_NOFILE)
    used = {int(descriptor.name) for descriptor in Path(f"/proc/{full}/fd").iterdir()}
    free = next(number for number in count() if number not in used)
    resource.prlimit(full, resource.RLIMIT_NOFILE, (free, limits[1]))
    slowest = max(clients.ask() for _ in range(30))
    assert slowest < NOTICED
    assert clients.shares()[full] == 0
    assert server.log.read_text().count("no connection can be taken: Too many open files") == 1
    resource.prlimit(full, resource.RLIMIT_NOFILE, limits)

    def is_back() -> bool:
        clients.ask()
        return clients.shares()[full] > 0

    until(is_back)


# One worker's view


@pytest.mark.parametrize(
    ("opened", "absent", "first"),
    [
        ((0, 0, 0), (), []),
        ((5, 5, 5), (), []),
        ((1, 0, 1), (), [1]),
        ((3, 0, 2), (), [1, 2]),
        ((3, 0, 2), (1,), [2]),
        ((3, 0, 2), (1, 2), []),
        ((0, 4, 4), (), []),
        ((31, 30, 31), (), [1]),
        ((32, 31, 31), (), []),
        ((33, 31, 32), (), [1]),
        ((640, 621, 620), (), []),
    ],
)
def test_a_worker_has_its_turn_while_no_other_that_takes_part_has_fewer(
    opened: Sequence[int], absent: Sequence[int], first: Sequence[int]
) -> None:
    shares = Shares(len(opened))
    for worker, connections in enumerate(opened):
        share = Share(shares, worker)
        share.begin()
        for _ in range(connections):
            share.took()
    mine = Share(shares, 0)
    mine.pass_over(absent)
    assert mine.first() == first


def test_a_new_process_begins_with_no_connections_and_what_was_taken_stays_counted() -> None:
    shares = Shares(2)
    before, other = Share(shares, 0), Share(shares, 1)
    before.begin()
    for _ in range(3):
        before.took()
    before.lost()
    assert (before.open, other.taken_by_all()) == (2, 3)
    Share(shares, 0).begin()
    assert (before.open, other.taken_by_all()) == (0, 3)


def test_a_connection_is_lost_once() -> None:
    lost: list[None] = []
    connections = OpenConnections(lambda: lost.append(None))
    connections.add("one")
    for _ in range(2):
        connections.discard("one")
    assert (len(connections), len(lost)) == (0, 1)


class Noted(asyncio.Protocol):
    """Passes the transports of all connections on."""

    def __init__(self, transports: asyncio.Queue[asyncio.BaseTransport]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.put_nowait(transport)


def test_a_worker_that_others_have_passed_over_takes_part_again_also_if_they_leave_it_nothing() -> None:
    shares = Shares(2)
    mine, other = Share(shares, 0), Share(shares, 1)

    async def come_back() -> None:
        (listener,) = bind("127.0.0.1", 0, 1)
        acceptor = Acceptor(listener, mine, asyncio.Protocol)
        other.begin()
        other.took()
        for _ in range(2):
            other.pass_over([0])
            assert other.first() == []
            await passing(lambda: bool(other.first()))  # nothing comes to the socket meanwhile
        acceptor.close()
        assert other.first() == []
        assert acceptor._returning.cancelled()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(come_back(), 10))


def test_a_worker_that_had_no_room_takes_part_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    shares = Shares(2)
    mine, other = Share(shares, 0), Share(shares, 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def recover() -> None:
        (listener,) = bind("127.0.0.1", 0, 1)
        acceptor = Acceptor(listener, mine, asyncio.Protocol)
        other.begin()
        other.took()
        with socket.create_connection(listener.getsockname()):
            os.close(free := os.dup(listener.fileno()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                await passing(lambda: not other.first())
                acceptor._return()  # as its timer does
                assert other.first() == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            listener.accept()[0].close()  # another worker has taken it: this one has nothing to try with
        await passing(lambda: bool(other.first()))
        other.pass_over([0])
        await passing(lambda: bool(other.first()))
        acceptor.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(recover(), 10))
    assert caplog.text.count("no connection can be taken: Too many open files") == 1


async def passing(condition: Callable[[], bool]) -> None:
    """Lets the loop run until a condition holds, of which nobody tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def test_what_waits_at_the_end_is_taken_by_whoever_sees_it() -> None:
    shares = Shares(2)
    Share(shares, 1).begin()  # it has no connections, and it never looks

    async def end() -> None:
        (listener,) = bind("127.0.0.1", 0, 1)
        address = listener.getsockname()
        transports: asyncio.Queue[asyncio.BaseTransport] = asyncio.Queue()
        mine = Share(shares, 0)
        acceptor = Acceptor(listener, mine, lambda: Noted(transports))
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.create_connection(address))
            acceptor.close()
            acceptor.close()
            assert mine.open == 3
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            for _ in range(3):
                transport = await asyncio.wait_for(transports.get(), 5)
                taken = transport.get_extra_info("socket")
                assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                transport.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(end())
