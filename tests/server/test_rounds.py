"""Lookups that are answered together: each as if it had come alone, whatever the others are and do."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.running import until
from service.api.answer import Answer as Answered
from service.api.answer import Ready
from service.api.batching import Part
from service.api.batching import answers as answers_together
from service.api.front import Lookups
from service.api.lookup import Head
from service.api.prepared import Prepared
from service.api.question import Question
from service.backends.memory import MappedRows
from service.server import rounds
from service.server.wire import Wire
from service.store import TableStore
from service.types import IdArray, RowArray
from tests.api.forms import AT_ONCE, BASE64, KEPT, USUAL, Form, raw
from tests.oracle import QUICK
from tests.server.raw import Answer, Request, World, Worlds, both, wired
from tests.world import publish

DIM: Final = 16
FORMS: Final = [*KEPT, *AT_ONCE, *USUAL]
TABLES: Final = ("plain", "padded", "zeros")
PADDING: Final = 150
ROWS: Final[RowArray] = np.random.default_rng(7).normal(size=(900, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the tables of these tests. Not to be changed."""
    root = tmp_path_factory.mktemp("store")
    store = TableStore(root)
    publish(store, "plain", ROWS)
    publish(store, "padded", ROWS + 1, padding_id=PADDING)
    publish(store, "zeros", ROWS + 2, padding_id=PADDING, on_oov="zeros")
    return root


@pytest.fixture(scope="module")
def worlds(root: Path) -> Iterator[Worlds]:
    with both(root) as worlds:
        yield worlds


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[bool]]:
    """Of the lookups of each batch, whether they were answered together with others."""
    seen: list[list[bool]] = []

    def watched(parts: Sequence[Part | None], since: Sequence[float]) -> list[Ready | None]:
        found = answers_together(parts, since)
        seen.append([answer is not None for answer in found])
        return found

    monkeypatch.setattr(rounds, "answers", watched)
    return seen


def known(world: World, asked: Sequence[Request]) -> None:
    """Has the server answer them, so that it knows their heads."""
    with world.connect() as connection:
        for each in asked:
            connection.push(each.whole)
            connection.answer()
    until(world.is_idle)


class Clients:
    """Connections of a server whose packets arrive when they are told to, all in one round of its loop."""

    def __init__(self, world: World, stack: ExitStack, count: int) -> None:
        self.world = world
        self.ends = [stack.enter_context(world.connect()) for _ in range(count)]
        self.protocols = [world.protocol(end) for end in self.ends]

    def arrive(self, asked: Sequence[Request]) -> None:
        """One request of each client."""

        async def arrive() -> None:
            for protocol, each in zip(self.protocols, asked, strict=True):
                protocol.data_received(each.whole)

        self.world.on_loop(arrive)

    def answers(self) -> list[Answer]:
        return [end.answer() for end in self.ends]


@contextmanager
def clients(world: World, count: int) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(world, stack, count)
    until(world.is_idle)


def together(world: World, asked: Sequence[Request]) -> list[Answer]:
    """The answers to requests with known heads that arrive in one round of the loop."""
    known(world, asked)
    with clients(world, len(asked)) as all_clients:
        all_clients.arrive(asked)
        return all_clients.answers()


def alone(world: World, asked: Sequence[Request]) -> list[Answer]:
    """The answers to requests that come one after the other."""
    found = []
    with world.connect() as connection:
        for each in asked:
            connection.push(each.whole)
            found.append(connection.answer())
    until(world.is_idle)
    return found


def assert_same(worlds: Worlds, asked: Sequence[Request]) -> list[Answer]:
    """Answers given together, which are byte for byte those that the other server gives one by one."""
    found = together(worlds[0], asked)
    for ours, theirs in zip(found, alone(worlds[1], asked), strict=True):
        assert ours.undated() == theirs.undated()
    return found


def ids_of(seed: int, count: int = 20) -> IdArray:
    """Ids of three digits each, so that all bodies of a form are of the same length."""
    ids = np.random.default_rng(seed).integers(100, 900, count)
    if count:
        ids[seed % count] = PADDING
    return ids


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("table", TABLES)
def test_those_of_one_form_are_answered_as_if_they_came_alone(
    worlds: Worlds, batches: list[list[bool]], form: Form, table: str
) -> None:
    asked = [form.request(table, ids_of(seed)) for seed in range(9)]
    found = assert_same(worlds, asked)
    assert {answer.status for answer in found} == {200}
    assert len({answer.body for answer in found}) > 1
    assert form in USUAL or batches[-1] == [True] * 9


@QUICK
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FORMS), st.sampled_from(TABLES), st.integers(0, 99), st.sampled_from([10, 20, 1000, 4000])
        ),
        min_size=1,
        max_size=24,
    ),
    st.sets(st.integers(0, 23)),
)
def test_those_of_all_forms_are_answered_as_if_they_came_alone(
    worlds: Worlds, drawn: list[tuple[Form, str, int, int]], bad: set[int]
) -> None:
    asked = []
    for place, (form, table, seed, count) in enumerate(drawn):
        ids = ids_of(seed, count)
        if place in bad:
            ids[-1] = 999
        asked.append(form.request(table, ids))
    assert_same(worlds, asked)


def test_one_that_is_refused_does_not_concern_the_others(worlds: Worlds, batches: list[list[bool]]) -> None:
    form = raw("bytes")
    asked = [form.request("plain", ids_of(seed)) for seed in range(6)]
    outside = ids_of(6)
    outside[3] = -1
    asked[2] = form.request("plain", outside)
    before = worlds[0].counted()
    found = assert_same(worlds, asked)
    assert [answer.status for answer in found] == [200, 200, 422, 200, 200, 200]
    assert json.loads(found[2].body)["errors"] == [{"index": [3], "id": -1}]
    assert batches[-1] == [True, True, False, True, True, True]
    assert worlds[0].more_than(before) == {("plain", "200"): 10.0, ("plain", "422"): 2.0}  # known() asks once more


def test_more_than_one_batch_holds_are_all_answered(worlds: Worlds, batches: list[list[bool]]) -> None:
    asked = [KEPT[number % len(KEPT)].request("plain", ids_of(number)) for number in range(50)]
    found = assert_same(worlds, asked)
    assert {answer.status for answer in found} == {200}
    assert [len(batch) for batch in batches[-4:]] == [16, 16, 16, 2]


def test_more_rows_than_are_gathered_at_once_are_all_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide: RowArray = np.random.default_rng(1).normal(size=(900, 2048)).astype(np.float32)
    publish(TableStore(tmp_path), "wide", wide)
    gathered: list[int] = []
    gather = MappedRows.gather

    def watched(self: MappedRows, ids: IdArray) -> RowArray:
        gathered.append(len(ids))
        return gather(self, ids)

    with both(tmp_path) as worlds:
        asked = [raw("bytes").request("wide", ids_of(seed, 15)) for seed in range(12)]
        known(worlds[0], asked)
        monkeypatch.setattr(MappedRows, "gather", watched)
        assert {answer.status for answer in assert_same(worlds, asked)} == {200}
    assert [count for count in gathered if count > 15] == [60, 60, 60]


def test_a_failure_of_all_together_is_none_of_each(
    worlds: Worlds, batches: list[list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = MappedRows.gather

    def for_few(self: MappedRows, ids: IdArray) -> RowArray:
        if len(ids) > 20:
            raise MemoryError
        return gather(self, ids)

    monkeypatch.setattr(MappedRows, "gather", for_few)
    for form in (raw("bytes"), Form("base64", options=BASE64), raw("one pooled sequence", options={"pooling": "sum"})):
        asked = [form.request("plain", ids_of(seed)) for seed in range(5)]
        assert {answer.status for answer in assert_same(worlds, asked)} == {200}
        assert batches[-1] == [True] * 5


def test_texts_that_are_not_kept_are_rendered_for_who_asks_for_them(
    root: Path, worlds: Worlds, batches: list[list[bool]]
) -> None:
    kept, fresh, others = (
        Form("text").request("plain", ids) for ids in (np.arange(100, 120), np.arange(500, 520), np.arange(110, 130))
    )
    asked = [kept, fresh, others]
    with wired(root) as world:
        known(world, [kept, others])
        with clients(world, 3) as all_clients:
            all_clients.arrive(asked)
            found = all_clients.answers()
    assert [answer.undated() for answer in found] == [answer.undated() for answer in alone(worlds[1], asked)]
    assert batches[-1] == [True, False, True]


# What clients do meanwhile


def asked_for_rows(count: int) -> list[Request]:
    return [raw("bytes").request("plain", ids_of(seed)) for seed in range(count)]


def test_who_goes_before_the_answer_takes_nothing_from_the_others(worlds: Worlds) -> None:
    world, asked = worlds[0], asked_for_rows(4)
    known(world, asked)
    with clients(world, 4) as all_clients:

        async def arrive_and_go() -> None:
            for protocol, each in zip(all_clients.protocols, asked, strict=True):
                protocol.data_received(each.whole)
            all_clients.protocols[1].transport.abort()

        world.on_loop(arrive_and_go)
        ends = all_clients.ends
        found = [ends[place].answer() for place in (0, 2, 3)]
        assert ends[1].is_ended()
    right = alone(worlds[1], asked)
    assert [answer.undated() for answer in found] == [right[place].undated() for place in (0, 2, 3)]
    assert world.in_flight == 0


def test_what_comes_before_the_answer_is_answered_behind_it(worlds: Worlds) -> None:
    world, asked = worlds[0], asked_for_rows(4)
    known(world, asked)
    with clients(world, 2) as all_clients:

        async def arrive() -> None:
            first, second = all_clients.protocols
            first.data_received(asked[0].whole)
            second.data_received(asked[1].whole)
            first.data_received(asked[2].whole)
            first.data_received(asked[3].head)
            first.data_received(asked[3].body)

        world.on_loop(arrive)
        first, second = all_clients.ends
        found = [first.answer(), second.answer(), first.answer(), first.answer()]
        first.push(asked[0].whole)  # it reads on
        assert first.answer().status == 200
    assert [answer.undated() for answer in found] == [answer.undated() for answer in alone(worlds[1], asked)]


def test_who_has_sent_all_it_wants_gets_its_answer_and_the_end(worlds: Worlds) -> None:
    world, asked = worlds[0], asked_for_rows(2)
    known(world, asked)
    with clients(world, 2) as all_clients:

        async def arrive() -> object:
            for protocol, each in zip(all_clients.protocols, asked, strict=True):
                protocol.data_received(each.whole)
            first: Any = all_clients.protocols[0]
            return first.eof_received()

        assert world.on_loop(arrive)
        found = all_clients.answers()
        assert all_clients.ends[0].is_ended()
    assert [answer.undated() for answer in found] == [answer.undated() for answer in alone(worlds[1], asked)]


def test_a_shutdown_waits_for_answers_that_are_given_together(root: Path) -> None:
    asked = asked_for_rows(3)
    with wired(root) as world:
        known(world, asked)
        with ExitStack() as stack:
            all_clients = Clients(world, stack, 3)

            async def arrive_and_stop() -> None:
                for protocol, each in zip(all_clients.protocols, asked, strict=True):
                    protocol.data_received(each.whole)
                for protocol in all_clients.protocols:
                    protocol.shutdown()

            world.on_loop(arrive_and_stop)
            assert [answer.status for answer in all_clients.answers()] == [200] * 3
            assert all(end.is_ended() for end in all_clients.ends)


def test_an_answer_that_cannot_be_written_ends_its_connection_only(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world, asked = worlds[0], asked_for_rows(3)
    known(world, asked)
    with clients(world, 3) as all_clients:
        write = Wire.write

        def broken(self: Wire, head: bytes, length: int, body: tuple[bytes, ...]) -> None:
            if self is all_clients.protocols[1]:
                raise MemoryError
            write(self, head, length, body)

        monkeypatch.setattr(Wire, "write", broken)
        all_clients.arrive(asked)
        first, second, third = all_clients.ends
        assert [first.answer().status, third.answer().status] == [200, 200]
        assert second.is_ended()
    assert world.in_flight == 0
    assert "a lookup could not be answered" in caplog.text


# Places, and versions


@pytest.mark.parametrize("form", [raw("bytes"), Form("text")], ids=lambda form: form.name)
def test_no_more_large_ones_are_in_flight_than_may_be(root: Path, worlds: Worlds, form: Form) -> None:
    asked = [form.request("plain", ids_of(seed, 4000)) for seed in range(7)]
    most: list[int] = []
    with wired(root, max_in_flight=2) as world:
        known(world, asked)
        with clients(world, len(asked)) as all_clients:

            async def arrive() -> None:
                for protocol, each in zip(all_clients.protocols, asked, strict=True):
                    protocol.data_received(each.whole)
                for _ in range(100):
                    await asyncio.sleep(0)
                    most.append(world.in_flight)

            world.on_loop(arrive)
            found = all_clients.answers()
    assert max(most) == 2
    for ours, theirs in zip(found, alone(worlds[1], asked), strict=True):
        assert ours.status == 503 or ours.undated() == theirs.undated()
    assert [answer.status for answer in found[:2]] == [200, 200]


@pytest.mark.parametrize(
    "form",
    [raw("bytes"), Form("text"), Form("text of a batch", nested=(-1, 5)), Form("base64", options=BASE64)],
    ids=lambda form: form.name,
)
def test_large_ones_wait_for_a_place_before_any_work_is_done(
    root: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [form.request("plain", ids_of(seed, 4000)) for seed in range(20)]
    with wired(root, max_in_flight=1) as world:
        known(world, asked)
        with clients(world, len(asked)) as all_clients:
            worked: list[int] = []
            answer_now = Lookups.answer_now

            def watched(
                self: Lookups, head: Head, body: bytes, since: float
            ) -> tuple[Answered | Question, Prepared | None]:
                worked.append(world.in_flight)
                return answer_now(self, head, body, since)

            monkeypatch.setattr(Lookups, "answer_now", watched)
            all_clients.arrive(asked)
            statuses = [answer.status for answer in all_clients.answers()]
    assert set(worked) <= {1}
    assert len(worked) <= statuses.count(200)


def test_small_ones_that_are_answered_in_one_round_need_no_places(root: Path) -> None:
    asked = asked_for_rows(40)
    with wired(root, max_in_flight=2) as world:
        assert {answer.status for answer in together(world, asked)} == {200}


@pytest.mark.parametrize("form", [*KEPT, *AT_ONCE], ids=lambda form: form.name)
def test_requests_that_a_swap_overtakes_are_answered_by_the_version_in_force(tmp_path: Path, form: Form) -> None:
    store = TableStore(tmp_path)
    publish(store, "plain", ROWS)
    asked = [form.request("plain", ids_of(seed)) for seed in range(3)]
    with both(tmp_path) as worlds:
        world = worlds[0]
        known(world, asked)
        kept = world.service.served.registry.entries["plain"].loaded  # as lookups that name a version keep it
        publish(store, "plain", ROWS * np.float32(2))
        with clients(world, 3) as all_clients:

            async def arrive_and_swap() -> None:
                for protocol, each in zip(all_clients.protocols, asked, strict=True):
                    protocol.data_received(each.whole)
                world.watcher.refresh()

            world.on_loop(arrive_and_swap)
            found = all_clients.answers()
        worlds[1].watcher.refresh()
        right = alone(worlds[1], asked)
    assert kept is not None
    assert {answer.field("embedding-version") for answer in found} == {"2"}
    assert [answer.undated() for answer in found] == [answer.undated() for answer in right]


class Noting:
    """A transport, and what was written to it."""

    def __init__(self, transport: asyncio.Transport, written: list[object]) -> None:
        self._transport = transport
        self._written = written

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self._written.extend(pieces)
        self._transport.writelines(pieces)


@pytest.mark.parametrize("count", [20, 60, 128], ids=["20 KB", "60 KB", "the largest that is made at once"])
def test_what_a_slow_reader_leaves_unread_is_its_own_answer_only(tmp_path: Path, count: int) -> None:
    wide: RowArray = np.random.default_rng(1).normal(size=(900, 256)).astype(np.float32)
    publish(TableStore(tmp_path), "wide", wide)
    asked = [raw("bytes").request("wide", ids_of(seed, count)) for seed in range(8)]
    written: list[object] = []
    with wired(tmp_path) as world:
        known(world, asked)
        with clients(world, len(asked)) as all_clients:
            for protocol in all_clients.protocols:
                transport: Any = Noting(protocol.transport, written)
                protocol.transport = transport
            all_clients.arrive(asked)
            assert {answer.status for answer in all_clients.answers()} == {200}
    assert [type(piece) for piece in written] == [bytes] * len(asked)
