"""How long clients may take: connections are looked at as the server does, once a second, but without the seconds."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from load_tests.running import until
from service.server.protocol import ChildProtocol
from service.server.serving import ChildServer
from service.server.wire import Wire
from service.store import TableStore
from service.types import RowArray
from tests.api.wire import OCTETS
from tests.server.raw import Connection, Request, World, request, wired
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

PATIENCE: Final = 3.0
KEEP_ALIVE: Final = 5
"""Seconds that uvicorn keeps an idle connection."""
WIDE: Final[RowArray] = np.random.default_rng(5).normal(size=(100, 256)).astype(np.float32)
IDS: Final = np.arange(8192) % len(WIDE)
SMALL: Final = request(b'{"ids": [5, 1]}')
LARGE: Final = request(IDS.astype("<i8").tobytes(), "/v1/tables/wide/lookup", f"Accept: {OCTETS}", media=OCTETS)
UPLOAD_PATH: Final = "/v1/admin/tables/new/versions?format=npy"
TOKEN: Final = "Authorization: Bearer secret"
UPLOAD: Final = request(b"x" * 100, UPLOAD_PATH, TOKEN, media=OCTETS)
HEALTH: Final = request(b"", "/health/live", media=None, method="GET", length=None)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    publish(TableStore(root), "words", KERAS_ROWS, KERAS_TOKENS)
    publish(TableStore(root), "wide", WIDE)
    return root


@pytest.fixture(scope="module", params=[Wire, ChildProtocol], ids=["the short way", "the way of ASGI"])
def world(request: pytest.FixtureRequest, root: Path) -> Iterator[World]:
    """A server that looks at no connection by itself."""
    with wired(root, protocol=request.param, admin_token="secret") as world:
        yield world


class Watched:
    """A connection, and looks at it from the server's side."""

    def __init__(self, world: World, connection: Connection) -> None:
        self.world = world
        self.end = world.protocol(connection)

    def looks(self, count: int, seconds: float = PATIENCE) -> bool:
        """Looks so many times, a second apart as the protocol understands it; whether the connection stays."""

        async def look() -> bool:
            for _ in range(count):
                self.end.look(seconds)
            return not self.end.transport.is_closing()

        return self.world.on_loop(look)

    def is_stuck(self) -> bool:
        """Whether the server waits for the client to read."""

        async def stuck() -> bool:
            return self.end.flow.write_paused

        return self.world.on_loop(stuck)

    def state(self) -> tuple[object, ...]:
        """What the client has to do; it changes when the client does."""

        async def state() -> tuple[object, ...]:
            return self.end._waits_for(PATIENCE)[0]

        return self.world.on_loop(state)

    def outlasts(self, seconds: float = PATIENCE) -> bool:
        """Whether it stays for exactly as many looks as seconds behind the one that sees the state first."""
        stays = self.looks(int(seconds))
        return stays and not self.looks(1)


def primed(world: World, connection: Connection, asked: Request) -> None:
    connection.push(asked.whole)
    assert connection.answer().status == 200
    until(world.is_idle)


HALVES: Final = [
    pytest.param(SMALL, [b"P"], id="a letter of the method"),
    pytest.param(SMALL, [SMALL.head[:40]], id="half a head"),
    pytest.param(SMALL, [SMALL.head[:-2]], id="a head but for its end"),
    pytest.param(SMALL, [SMALL.head], id="a head without its body"),
    pytest.param(SMALL, [SMALL.head, SMALL.body[:4]], id="half a body"),
    pytest.param(SMALL, [SMALL.whole[:-1]], id="a body but for its end"),
    pytest.param(LARGE, [LARGE.head, LARGE.body[:30_000]], id="half of a long body"),
    pytest.param(UPLOAD, [UPLOAD.head[:40]], id="half the head of an upload"),
    pytest.param(UPLOAD, [UPLOAD.head, UPLOAD.body[:40]], id="half the body of an upload"),
]


@pytest.mark.parametrize(("asked", "packets"), HALVES)
@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_who_sends_half_a_request_is_disconnected(
    world: World, asked: Request, packets: list[bytes], *, known: bool
) -> None:
    if known and asked is not UPLOAD:
        with world.connect() as other:
            primed(world, other, asked)
    with world.connect() as connection:
        watched = Watched(world, connection)
        world.send(connection, *packets)
        assert watched.outlasts()
        assert connection.is_ended()
    until(world.is_idle)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_request_behind_others_gets_as_long_as_the_first(world: World, before: int) -> None:
    with world.connect() as connection:
        watched = Watched(world, connection)
        for _ in range(before):
            primed(world, connection, SMALL)
            assert watched.looks(2)
        world.send(connection, SMALL.head)
        assert watched.outlasts()
    until(world.is_idle)


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_a_lookup_that_drips_gets_no_longer_than_any_other(world: World, *, known: bool) -> None:
    with world.connect() as connection:
        if known:
            primed(world, connection, SMALL)
        watched = Watched(world, connection)
        world.send(connection, SMALL.head)
        world.send(connection, SMALL.body[:1])
        stays = []
        for at in range(1, 6):
            stays.append(watched.looks(1))
            if stays[-1]:
                world.send(connection, SMALL.body[at : at + 1])
        assert stays == [True, True, True, False, False]
        assert connection.is_ended()
    until(world.is_idle)


def test_a_head_that_drips_gets_no_longer_either(world: World) -> None:
    with world.connect() as connection:
        watched = Watched(world, connection)
        stays: list[bool] = []
        for at in range(5):
            if all(stays):
                world.send(connection, SMALL.head[at : at + 1])
            stays.append(watched.looks(1))
        assert stays == [True, True, True, False, False]


def test_an_upload_may_drip(world: World) -> None:
    with world.connect() as connection:
        watched = Watched(world, connection)
        world.send(connection, UPLOAD.head)
        for at in range(20):
            world.send(connection, UPLOAD.body[at : at + 1])
            assert watched.looks(1)
        assert watched.looks(2)
        assert not watched.looks(1)


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_who_does_not_read_a_large_answer_is_disconnected(world: World, *, known: bool) -> None:
    asked = Request(LARGE.head.replace(b"Host: localhost", b"Host: unread-%d" % known), LARGE.body)
    with world.connect(4096) as connection:
        if known:
            primed(world, connection, asked)
        connection.push(asked.whole)
        watched = Watched(world, connection)
        until(watched.is_stuck)
        _let_buffers_fill(watched)
        assert world.in_flight == 1
        assert watched.outlasts()
    until(world.is_idle)


def _let_buffers_fill(watched: Watched) -> None:
    """Waits until what the server's system has taken no longer changes."""
    seen: list[tuple[object, ...]] = []

    def is_steady() -> bool:
        seen.append(watched.state())
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    until(is_steady)


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_a_slow_but_steady_reader_is_waited_for(world: World, *, known: bool) -> None:
    asked = Request(LARGE.head.replace(b"Host: localhost", b"Host: steady-%d" % known), LARGE.body)
    with world.connect(4096) as connection:
        if known:
            primed(world, connection, asked)
        connection.push(asked.whole)
        watched = Watched(world, connection)
        until(watched.is_stuck)
        connection.head()
        body = b""
        for _ in range(20):
            before = watched.state()
            body += connection.read(128 << 10)
            until(partial(_is_other_than, watched, before))
            assert watched.looks(int(PATIENCE))
        body += connection.read(IDS.size * 1024 - len(body))
        assert body == WIDE[IDS].tobytes()
        assert watched.looks(1)
    until(world.is_idle)


def test_a_steady_reader_is_waited_for_although_its_next_request_is_on_its_way(world: World) -> None:
    behind = request(b" " * 300_000 + SMALL.body)
    with world.connect(4096) as connection:
        connection.push(LARGE.whole + behind.whole)
        watched = Watched(world, connection)
        until(watched.is_stuck)
        connection.head()
        for at in range(0, IDS.size * 1024, 1 << 20):
            assert connection.read(1 << 20) == WIDE[IDS].tobytes()[at : at + (1 << 20)]
            assert watched.looks(1)
        assert connection.answer().status == 200


def test_a_client_is_waited_for_while_the_server_does_not_read(world: World) -> None:
    with world.connect() as connection:
        watched = Watched(world, connection)

        async def pause_and_look() -> bool:
            # In one step of the loop: the application asks for more of the body when it likes, which resumes reading.
            watched.end.flow.pause_reading()
            for _ in range(int(PATIENCE) * 2):
                watched.end.look(PATIENCE)
            watched.end.flow.resume_reading()
            return not watched.end.transport.is_closing()

        world.send(connection, UPLOAD.head, UPLOAD.body[:40])
        assert world.on_loop(pause_and_look)
        connection.push(UPLOAD.body[40:])
        assert connection.answer().status == 422


def _is_other_than(watched: Watched, before: tuple[object, ...]) -> bool:
    return watched.state() != before


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_who_waits_for_an_answer_is_waited_for(world: World, *, known: bool) -> None:
    asked = Request(LARGE.head.replace(b"Host: localhost", b"Host: waiting-%d" % known), LARGE.body)
    with world.connect() as connection:
        if known:
            primed(world, connection, asked)
        watched = Watched(world, connection)

        async def arrive_and_look() -> bool:
            watched.end.data_received(asked.whole)
            for _ in range(100):  # before the answer is begun, which takes a turn of the loop
                watched.end.look(1.0)
            return not watched.end.transport.is_closing()

        assert world.on_loop(arrive_and_look)
        assert connection.answer().body == WIDE[IDS].tobytes()
    until(world.is_idle)


@pytest.mark.parametrize("asked", [SMALL, HEALTH], ids=["a lookup", "another request"])
@pytest.mark.parametrize("seconds", [1.0, 60.0])
def test_a_connection_is_kept_as_long_as_uvicorn_keeps_it(world: World, asked: Request, seconds: float) -> None:
    with world.connect() as connection:
        watched = Watched(world, connection)
        for _ in range(2):
            primed(world, connection, asked)
            assert watched.looks(KEEP_ALIVE, seconds)
        assert not watched.looks(1, seconds)
        assert connection.is_ended()


def test_a_connection_on_which_nothing_comes_is_kept_as_long_as_a_client_may_take(world: World) -> None:
    with world.connect() as connection:
        assert Watched(world, connection).outlasts()
        assert connection.is_ended()


def test_a_connection_that_is_used_is_kept(world: World) -> None:
    with world.connect() as connection:
        watched = Watched(world, connection)
        for _ in range(20):
            primed(world, connection, SMALL)
            assert watched.looks(2, 1.0)


# With the seconds


def drip(connection: Connection) -> bool:
    """Sends a byte; whether there was anybody to take it."""
    try:
        connection.push(b" ")
    except OSError:
        return False
    return True


def test_a_server_disconnects_clients_that_are_too_slow_and_no_others(root: Path) -> None:
    with wired(root, server=ChildServer, client_seconds=1.0, admin_token="secret") as world, ExitStack() as stack:
        idle, half_a_head, half_a_body, lookup, upload = (stack.enter_context(world.connect()) for _ in range(5))
        unread, steady = (stack.enter_context(world.connect(4096)) for _ in range(2))
        primed(world, idle, SMALL)
        half_a_head.push(SMALL.head[:40])
        half_a_body.push(SMALL.whole[:-1])
        lookup.push(request(b" " * 5000).head)
        upload.push(request(b" " * 5000, UPLOAD_PATH, TOKEN, media=OCTETS).head)
        unread.push(LARGE.whole)
        steady.push(LARGE.whole)
        steady.head()
        until(lambda: world.in_flight == 4)
        begun = time.monotonic()
        body = b""

        def only_one_is_left() -> bool:
            nonlocal body
            body += steady.read(1024)
            drip(lookup)
            assert drip(upload)
            return world.in_flight == 1

        until(only_one_is_left)
        assert 1.0 <= time.monotonic() - begun < 15.0
        assert all(each.is_ended() for each in (half_a_head, half_a_body))
        assert not drip(lookup)
        assert body + steady.read(IDS.size * 1024 - len(body)) == WIDE[IDS].tobytes()
        assert drip(upload)
        idle.push(SMALL.whole)
        assert json.loads(idle.answer().body)["shape"] == [2, 2]
