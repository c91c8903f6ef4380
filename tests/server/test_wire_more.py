"""The short way where places are few, clients go, and answers break off."""

import gc
import logging
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, cast

import pytest

from load_tests.running import until
from service.api import admission
from service.api.admission import Admission
from service.api.answer import Stream
from service.server.wire import Wire
from service.store import TableStore
from tests.api.wire import NPY, PROBLEM
from tests.server.raw import SECONDS, Connection, Request, World, request, wired
from tests.server.test_wire import (
    LARGE,
    LARGE_IDS,
    LARGE_TEXT,
    OTHER,
    SMALL,
    WIDE,
    WIDE_PATH,
    WORDS,
    as_json,
    ask,
    get,
    is_stuck,
    raw,
    waiting,
)
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

HEALTH: Final = get("/health/live")
OCCUPIER: Final = as_json([1], WORDS, "X-Case: occupier")
"""Its head takes the one place, until its body comes."""
QUICK: Final = 0.05
"""Seconds in which a refusal comes at least once in ten, on a machine that does other things too."""
OUTSIDE: Final = [*LARGE_IDS[1:].tolist(), len(WIDE)]
LARGE_WRONG: Final = raw(OUTSIDE, WIDE_PATH + "?normalize=true")
"""Found to be wrong by a thread, so that the loop goes on meanwhile."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    publish(TableStore(root), "words", KERAS_ROWS, KERAS_TOKENS, padding_id=0)
    publish(TableStore(root), "wide", WIDE)
    return root


@pytest.fixture(scope="module")
def world(root: Path) -> Iterator[World]:
    with wired(root) as world:
        yield world


@pytest.fixture
def crowded(root: Path) -> Iterator[World]:
    """A server with room for one lookup, which knows the usual heads."""
    with wired(root, max_in_flight=1, drain_seconds=2) as world:
        with world.connect() as connection:
            for each in (SMALL, OTHER, LARGE, LARGE_TEXT, OCCUPIER):
                assert ask(connection, each).status == 200
                until(world.is_idle)
        yield world


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups wait for a place as long as a test may take."""
    monkeypatch.setattr(admission, "_PATIENCE", SECONDS)


def places(world: World) -> Admission:
    return world.service.front.lookups.admission


def end_of(world: World, connection: Connection) -> Wire:
    return cast("Wire", world.protocol(connection))


def occupy(world: World, connection: Connection) -> None:
    world.send(connection, OCCUPIER.head)
    assert world.in_flight == 1


def free(connection: Connection) -> None:
    connection.push(OCCUPIER.body)
    assert connection.answer().status == 200


def wait_in_line(world: World, connection: Connection, asked: Request) -> None:
    """Sends a request that finds no place, and what comes behind it is held."""
    before = waiting(world)
    world.send(connection, asked.whole)
    until(partial(_is_in_line, world, before + 1))


def _is_in_line(world: World, count: int) -> bool:
    return waiting(world) == count


def refuse(world: World, connection: Connection) -> None:
    """Ends the patience with one that waits, at once."""
    end = end_of(world, connection)

    async def refused() -> bool:
        is_waiting = places(world).forget(end)
        if is_waiting:
            end.refused()
        return is_waiting

    assert world.on_loop(refused)


# Refusals


@pytest.mark.parametrize("asked", [SMALL, OTHER, LARGE, LARGE_TEXT], ids=["JSON", "raw", "large raw", "large JSON"])
def test_a_known_head_is_refused_within_milliseconds_and_its_connection_goes_on(crowded: World, asked: Request) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        seconds = []
        for _ in range(10):
            since = time.perf_counter()
            refused = ask(second, asked)
            seconds.append(time.perf_counter() - since)
            assert (refused.status, refused.field("retry-after")) == (503, "1")
            assert refused.field("content-type") == PROBLEM
        assert min(seconds) < QUICK
        assert ask(second, HEALTH).status == 200
        free(first)
        assert ask(second, asked).status == 200
    until(crowded.is_idle)


@pytest.mark.usefixtures("patient")
def test_no_more_than_four_known_heads_wait_and_the_next_is_refused_at_once(crowded: World) -> None:
    with crowded.connect() as first, crowded.connect() as late:
        lined_up = [crowded.connect() for _ in range(4)]
        occupy(crowded, first)
        for each in lined_up:
            wait_in_line(crowded, each, OTHER)
        assert ask(late, OTHER).status == 503
        free(first)
        assert [each.answer().status for each in lined_up] == [200] * 4
        for each in lined_up:
            each.close()
    until(crowded.is_idle)


def test_a_refused_lookup_is_counted_once(crowded: World) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        before = crowded.counted()
        assert [ask(second, each).status for each in (SMALL, LARGE, SMALL)] == [503] * 3
        assert crowded.more_than(before) == {("words", "503"): 2, ("wide", "503"): 1}
        free(first)


BEHIND: Final = [
    pytest.param([SMALL], [200], id="a small one"),
    pytest.param([HEALTH, OTHER], [200, 200], id="another request and a small one"),
    pytest.param([LARGE, SMALL], [200, 200], id="a large one and a small one"),
    pytest.param([raw([9]), get(WORDS), LARGE_TEXT], [422, 405, 200], id="wrong ones and a large one"),
]


@pytest.mark.parametrize(("behind", "statuses"), BEHIND)
@pytest.mark.usefixtures("patient")
def test_requests_behind_one_that_waits_are_answered_behind_it(
    crowded: World, behind: list[Request], statuses: list[int]
) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        wait_in_line(crowded, second, OTHER)
        second.push(b"".join(each.whole for each in behind))
        free(first)
        assert second.answer().body == KERAS_ROWS[[2, 0, 6]].tobytes()
        assert [second.answer().status for _ in behind] == statuses
    until(crowded.is_idle)


@pytest.mark.parametrize(("behind", "statuses"), BEHIND)
@pytest.mark.usefixtures("patient")
def test_requests_behind_one_that_is_refused_are_answered(
    crowded: World, behind: list[Request], statuses: list[int]
) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        wait_in_line(crowded, second, OTHER)
        second.push(b"".join(each.whole for each in behind))
        refuse(crowded, second)
        assert second.answer().status == 503
        free(first)
        assert [second.answer().status for _ in behind] == statuses
    until(crowded.is_idle)


def test_known_heads_in_one_packet_are_all_refused_and_all_counted(crowded: World) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        before = crowded.counted()
        second.push(SMALL.whole + OTHER.whole + HEALTH.whole + SMALL.whole)
        assert [second.answer().status for _ in range(4)] == [503, 503, 200, 503]
        assert crowded.more_than(before) == {("words", "503"): 3}
        free(first)
        assert ask(second, SMALL).status == 200
    until(crowded.is_idle)


@pytest.mark.usefixtures("patient")
def test_half_a_request_behind_one_that_is_refused_is_answered_when_it_is_whole(crowded: World) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        wait_in_line(crowded, second, OTHER)
        second.push(SMALL.head[:30])
        refuse(crowded, second)
        assert second.answer().status == 503
        free(first)
        second.push(SMALL.head[30:] + SMALL.body)
        assert second.answer().status == 200
    until(crowded.is_idle)


# Clients that go


@pytest.mark.parametrize("goes_first", [False, True], ids=["then goes", "has just gone"])
@pytest.mark.parametrize("asked", [OTHER, LARGE], ids=["small", "large"])
@pytest.mark.usefixtures("patient")
def test_a_client_that_gets_a_place_as_it_goes_gives_it_back(
    crowded: World, asked: Request, *, goes_first: bool
) -> None:
    with crowded.connect() as first, crowded.connect() as second, crowded.connect() as third:
        occupy(crowded, first)
        for each in (second, third):
            wait_in_line(crowded, each, asked)
        occupier, waiter = end_of(crowded, first), end_of(crowded, second)

        async def go() -> None:
            if goes_first:
                waiter.transport.abort()
            occupier.data_received(OCCUPIER.body)
            waiter.transport.abort()

        crowded.on_loop(go)
        assert first.answer().status == 200
        assert third.answer().status == 200
    until(crowded.is_idle)


@pytest.mark.parametrize("end", [Connection.close, Connection.vanish], ids=["end", "reset"])
@pytest.mark.usefixtures("patient")
def test_who_goes_while_it_waits_leaves_the_line(crowded: World, end: Callable[[Connection], None]) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first)
        wait_in_line(crowded, second, OTHER)
        end(second)
        until(partial(_is_in_line, crowded, 0))
        assert crowded.in_flight == 1
        free(first)
    until(crowded.is_idle)


def test_a_client_that_goes_while_its_large_lookup_is_found_wrong_gives_its_place_back(root: Path) -> None:
    with wired(root) as world:
        with world.connect() as connection:
            assert ask(connection, LARGE_WRONG).status == 422
        for _ in range(5):
            with world.connect() as connection:
                end = end_of(world, connection)
                world.on_loop(partial(_arrive_and_go, end, LARGE_WRONG))
        until(world.is_idle, 2.0)


async def _arrive_and_go(end: Wire, asked: Request) -> None:
    end.data_received(asked.whole)
    end.transport.abort()


def test_a_client_that_goes_while_its_large_answer_is_made_gives_its_place_back(world: World) -> None:
    asked = raw(LARGE_IDS, WIDE_PATH + "?normalize=true")
    with world.connect() as connection:
        assert ask(connection, asked).status == 200
    for _ in range(5):
        with world.connect() as connection:
            world.on_loop(partial(_arrive_and_go, end_of(world, connection), asked))
    until(world.is_idle)


@pytest.mark.parametrize("asked", [SMALL, OTHER, raw([9])], ids=["JSON", "raw", "wrong"])
@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_who_sends_no_more_is_answered_what_it_asked(world: World, asked: Request, *, known: bool) -> None:
    asked = Request(asked.head.replace(b"Host: localhost", b"Host: no-more-%d" % known), asked.body)
    with world.connect() as connection:
        if known:
            ask(connection, asked)
        wanted = ask(connection, asked).undated()
        connection.push(asked.whole)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().undated() == wanted
        assert connection.is_ended()
    until(world.is_idle)


def test_who_sends_no_more_while_it_reads_a_large_answer_gives_its_place_back(world: World) -> None:
    with world.connect(4096) as connection:
        ask(connection, LARGE)
        connection.push(LARGE.whole)
        until(is_stuck(world, connection))
        connection.socket.shutdown(socket.SHUT_WR)
        connection.head()
        until(partial(_reads_until_idle, world, connection))


def _reads_until_idle(world: World, connection: Connection) -> bool:
    connection.read(64 << 10)
    return world.is_idle()


# Answers that break off, and what is kept behind answers


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_stream_that_breaks_off_ends_its_connection_and_is_done_once(
    world: World, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    done: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 10] * count
        raise OSError("the disk is gone")

    with world.connect() as connection, caplog.at_level(logging.ERROR):
        end = end_of(world, connection)

        async def begin() -> None:
            end.stream(b"HTTP/1.1 200 OK\r\ncontent-length: ", Stream(1000, pieces()), lambda: done.append(1))

        world.on_loop(begin)
        with pytest.raises((EOFError, ConnectionResetError)):
            connection.answer()
        assert done == [1]
        assert [record.message for record in caplog.records] == ["an answer broke off"]


def test_uvicorns_clock_for_idle_connections_stands_still_during_a_large_answer(world: World) -> None:
    with world.connect(4096) as connection:
        ask(connection, LARGE)
        ask(connection, HEALTH)
        end = end_of(world, connection)
        until(lambda: end.timeout_keep_alive_task is not None)
        connection.push(LARGE.whole)
        until(is_stuck(world, connection))
        assert end.timeout_keep_alive_task is None
        assert connection.answer().status == 200
    until(world.is_idle)


@pytest.mark.parametrize("asked", [OTHER, LARGE], ids=["small", "large"])
def test_a_connection_keeps_no_body_that_is_answered(world: World, asked: Request) -> None:
    with world.connect() as connection:
        world.send(connection, asked.head, asked.body[:9])
        connection.push(asked.body[9:])
        assert connection.answer().status == 200
        until(world.is_idle)
        assert end_of(world, connection)._body == b""


@pytest.mark.parametrize("length", ["{}", "   {}", "\t{}", "{} ", " {}\t"])
def test_white_space_around_a_length_is_no_part_of_it(world: World, length: str) -> None:
    asked = request(SMALL.body, WORDS, "Content-Length:" + length.format(len(SMALL.body)), length=None)
    with world.connect() as connection:
        assert ask(connection, asked).status == 200


# Tables that change meanwhile


@pytest.mark.parametrize("asked", [LARGE, LARGE_TEXT], ids=["raw", "JSON"])
@pytest.mark.parametrize("is_deleted", [False, True], ids=["replaced", "deleted"])
def test_a_large_answer_is_that_of_the_version_with_which_it_began(
    tmp_path: Path, asked: Request, *, is_deleted: bool
) -> None:
    store = TableStore(tmp_path)
    publish(store, "wide", WIDE)
    with wired(tmp_path) as world, world.connect(4096) as connection, world.connect() as other:
        wanted = [ask(connection, asked).undated() for _ in range(2)]
        connection.push(asked.whole)
        until(is_stuck(world, connection))
        if is_deleted:
            shutil.rmtree(tmp_path / "wide")
        else:
            publish(store, "wide", -WIDE)
        world.watcher.refresh()
        gc.collect()
        after = ask(other, asked)
        assert after.status == (404 if is_deleted else 200)
        assert after.undated() not in wanted
        assert connection.answer().undated() == wanted[0]
        until(world.is_idle)


@pytest.mark.usefixtures("patient")
def test_a_lookup_that_waited_is_answered_by_the_version_then_in_force(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", KERAS_ROWS)
    with wired(tmp_path, max_in_flight=1) as world, world.connect() as first, world.connect() as second:
        assert [ask(second, each).status for each in (OTHER, OTHER, OCCUPIER)] == [200] * 3
        occupy(world, first)
        wait_in_line(world, second, OTHER)
        publish(store, "words", -KERAS_ROWS)
        world.watcher.refresh()
        free(first)
        assert second.answer().body == (-KERAS_ROWS[[2, 0, 6]]).tobytes()


# A graceful shutdown


@pytest.mark.parametrize(
    "asked",
    [[OTHER], [LARGE], [raw([5], accept=NPY)], [OTHER, SMALL]],
    ids=["a small one", "a large one", "a new head", "two in one packet"],
)
@pytest.mark.usefixtures("patient")
def test_lookups_that_wait_for_a_place_are_answered_in_a_shutdown(crowded: World, asked: list[Request]) -> None:
    with crowded.connect(4096) as first, crowded.connect() as second:
        first.push(LARGE.whole)
        until(is_stuck(crowded, first))
        crowded.send(second, b"".join(each.whole for each in asked))
        until(partial(_is_in_line, crowded, 1))
        crowded.stop()
        assert first.answer().status == 200
        assert [second.answer().status for _ in asked] == [200] * len(asked)
        assert second.is_ended()
        assert crowded.ended()
        assert crowded.in_flight == 0


@pytest.mark.usefixtures("patient")
def test_a_shutdown_that_waits_no_longer_ends_who_waits_for_a_place(crowded: World) -> None:
    with crowded.connect(4096) as first, crowded.connect() as second:
        first.push(LARGE.whole)
        until(is_stuck(crowded, first))
        wait_in_line(crowded, second, OTHER)
        crowded.stop()
        assert crowded.ended()
        assert second.is_ended()
        assert (crowded.in_flight, waiting(crowded)) == (0, 0)


def test_a_client_that_has_sent_all_it_wants_gets_its_large_answer(world: World) -> None:
    asked = raw(LARGE_IDS, WIDE_PATH, "X-Case: half closed")
    with world.connect(4096) as connection:
        ask(connection, asked)
        connection.push(asked.whole)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().body == WIDE[LARGE_IDS].tobytes()
        assert connection.is_ended()
        until(world.is_idle)
