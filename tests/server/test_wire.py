"""The short way of lookups, in every shape a request may arrive in, against the way of ASGI, which knows no memo."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from load_tests.running import until
from service.api import admission
from service.server.protocol import ChildProtocol
from service.store import TableStore
from service.table import EmbeddingTable
from service.types import RowArray
from tests.api.wire import JSON, NPY, NPZ, OCTETS, PROBLEM, npy
from tests.server.raw import SECONDS, Answer, Connection, Request, World, request, wired
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

WIDE: Final[RowArray] = np.random.default_rng(3).normal(size=(500, 256)).astype(np.float32)
"""Answers of 8,192 ids have 8 MB as bytes, which no pair of socket buffers takes."""
LARGE_IDS: Final = np.arange(8192) % len(WIDE)
WORDS: Final = "/v1/tables/words/lookup"
WIDE_PATH: Final = "/v1/tables/wide/lookup"
NARROW: Final = 600
"""Bytes that a body may have in the world of narrow limits."""


def as_json(ids: object, target: str = WORDS, *fields: str, **others: object) -> Request:
    return request(json.dumps({"ids": ids, **others}).encode(), target, *fields)


def raw(ids: object, target: str = WORDS, *fields: str, accept: str = OCTETS) -> Request:
    return request(np.asarray(ids, dtype="<i8").tobytes(), target, f"Accept: {accept}", *fields, media=OCTETS)


def get(target: str, method: str = "GET") -> Request:
    return request(b"", target, media=None, method=method, length=None)


SMALL: Final = as_json([5, 1])
OTHER: Final = raw([2, 0, 6])
OUTSIDE: Final = raw([2, 7, 6])
LARGE: Final = raw(LARGE_IDS, WIDE_PATH)
NO_HTTP: Final = Request(b"what?\r\n\r\n")
LARGE_TEXT: Final = as_json((LARGE_IDS[:1500]).tolist(), WIDE_PATH)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a small table, a wide one, and one without an active version. Not to be changed."""
    root = tmp_path_factory.mktemp("store")
    store = TableStore(root)
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS, padding_id=0)
    store.set_label("words", "stable", 1)
    publish(store, "wide", WIDE)
    publish(store, "idle", KERAS_ROWS, activate=False)
    return root


@pytest.fixture(scope="module")
def world(root: Path) -> Iterator[World]:
    with wired(root) as world:
        yield world


@pytest.fixture(scope="module")
def narrow(root: Path) -> Iterator[World]:
    with wired(root, max_body_bytes=NARROW) as world:
        yield world


@pytest.fixture(scope="module")
def reference(root: Path) -> Iterator[World]:
    """The same without the short way: every answer goes through ASGI."""
    with wired(root, protocol=ChildProtocol) as world:
        yield world


@pytest.fixture(scope="module")
def narrow_reference(root: Path) -> Iterator[World]:
    with wired(root, protocol=ChildProtocol, max_body_bytes=NARROW) as world:
        yield world


@dataclass(frozen=True)
class Case:
    """Packets, each of which arrives by itself, the requests that they are, and whether the server then closes.

    `interim` is how many answers "100 Continue" come before the first.
    """

    name: str
    packets: tuple[bytes, ...]
    requests: tuple[Request, ...]
    closes: bool = False
    interim: int = 0


def _answers(connection: Connection, asked: Case) -> list[bytes]:
    answers = [connection.head() for _ in range(asked.interim)]
    answers += [connection.answer(bodiless=each.bodiless).undated() for each in asked.requests]
    if asked.closes:
        assert connection.is_ended()
    return answers


def case(name: str, asked: Request, *, closes: bool = False, interim: int = 0) -> Case:
    return Case(name, (asked.whole,), (asked,), closes, interim)


def _shapes(name: str, asked: Request, other: Request) -> Iterator[Case]:
    """One request in every shape, and before another one."""
    head, body = asked.head, asked.body
    middle = len(head) // 2
    yield Case(f"{name} in one packet", (head + body,), (asked,))
    yield Case(f"{name} in two packets", (head, body), (asked,))
    yield Case(f"{name}, half of the body with the head", (head + body[:9], body[9:]), (asked,))
    yield Case(f"{name}, the body in two packets", (head, body[:9], body[9:]), (asked,))
    yield Case(f"{name}, the head in two packets", (head[:middle], head[middle:], body), (asked,))
    yield Case(f"{name}, the rest of the head with the body", (head[:middle], head[middle:] + body), (asked,))
    yield Case(f"{name}, the blank line in two packets", (head[:-1], head[-1:] + body), (asked,))
    yield Case(f"{name} before another in one packet", (asked.whole + other.whole,), (asked, other))
    yield Case(f"{name} before another, the second alone", (asked.whole, other.whole), (asked, other))
    yield Case(f"{name}, the next head with the body", (head, body + other.head, other.body), (asked, other))
    yield Case(f"{name}, half of the next", (asked.whole + other.whole[:50], other.whole[50:]), (asked, other))


def bytewise(name: str, asked: Request) -> Case:
    return Case(name, (asked.head, *(asked.body[i : i + 1] for i in range(len(asked.body)))), (asked,))


ARRIVALS: Final = [
    *_shapes("small JSON", SMALL, OTHER),
    *_shapes("small raw", OTHER, OTHER),
    *_shapes("an error", OUTSIDE, SMALL),
    *_shapes("large raw", LARGE, SMALL),
    *_shapes("large JSON", LARGE_TEXT, OTHER),
    *_shapes("small before large", SMALL, LARGE),
    *_shapes("large before large", LARGE, LARGE_TEXT),
    *_shapes("small before health", OTHER, get("/health/live")),
    *_shapes("large before health", LARGE, get("/health/live")),
    bytewise("JSON byte by byte", SMALL),
    bytewise("raw byte by byte", OTHER),
    bytewise("an error byte by byte", OUTSIDE),
    Case("a small one byte by byte, head too", tuple(bytes([one]) for one in OTHER.whole), (OTHER,)),
    Case("five in one packet", ((SMALL.whole + OTHER.whole + OUTSIDE.whole + OTHER.whole + SMALL.whole),),
         (SMALL, OTHER, OUTSIDE, OTHER, SMALL)),
    Case("another way, then the short one, in one packet", (get("/health/live").whole + SMALL.whole,),
         (get("/health/live"), SMALL)),
]  # fmt: skip


def chunked(body: bytes, target: str = WORDS) -> Request:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"
    return Request(request(b"", target, "Transfer-Encoding: chunked", length=None).head, chunks)


def bare(asked: Request, kept: int = 0) -> Request:
    """With line feeds alone at the ends of all lines but the first `kept`."""
    lines = asked.head.split(b"\r\n")
    ends = [b"\r\n"] * kept + [b"\n"] * len(lines)
    head = b"".join(line + end for line, end in zip(lines[:-1], ends, strict=False))
    return Request(head, asked.body)


IDS: Final = np.array([5, 1], dtype="<i8").tobytes()
BODY: Final = b'{"ids": [5, 1]}'
FORMS: Final = [
    case("GET", get(WORDS)),
    case("HEAD", get(WORDS, "HEAD")),
    case("PUT with a body", request(BODY, method="PUT")),
    case("DELETE", get(WORDS, "DELETE")),
    case("HTTP/1.0", request(BODY, version="1.0"), closes=True),
    case("HTTP/1.0 that wants to stay", request(BODY, WORDS, "Connection: keep-alive", version="1.0"), closes=True),
    case("Connection: close", request(BODY, WORDS, "Connection: close"), closes=True),
    case("Connection: keep-alive", request(BODY, WORDS, "Connection: keep-alive")),
    case("Expect: 100-continue", request(BODY, WORDS, "Expect: 100-continue"), interim=1),
    case("chunks", chunked(BODY)),
    case("a large one in chunks", chunked(LARGE_TEXT.body, WIDE_PATH)),
    case("an escaped letter in the table", request(BODY, "/v1/tables/w%6frds/lookup")),
    case("an escaped letter in the route", request(BODY, "/v1/tables/words/look%75p")),
    case("an escaped slash", request(BODY, "/v1/tables%2Fwords/lookup")),
    case("an escaped question mark", request(BODY, WORDS + "%3F")),
    case("an empty query", request(BODY, WORDS + "?")),
    case("a query beside JSON", request(BODY, WORDS + "?pooling=sum")),
    case("a query beside raw ids", raw([5, 1], WORDS + "?pooling=sum")),
    case("a shape", raw([5, 1], WORDS + "?shape=1,2")),
    case("a shape for npy", raw([5, 1], WORDS + "?shape=2,1", accept=NPY)),
    case("a wrong shape", raw([5, 1], WORDS + "?shape=3,2")),
    case("half floats", raw([5, 1], WORDS + "?dtype=float16")),
    case("normalised rows", raw([5, 1, 1], WORDS + "?normalize=true", accept=NPY)),
    case("flat rows", raw([5, 1, 1], WORDS + "?flatten=true")),
    case("padded", raw([5, 1], WORDS + "?length=4")),
    case("padded behind a rule for unknown ids", raw([5, 9], WORDS + "?length=4&on_oov=zeros")),
    case("int32", raw(np.frombuffer(np.array([5, 1], dtype="<i4").tobytes(), "<i8"), WORDS + "?ids_dtype=int32")),
    case("a parameter that is none", raw([5, 1], WORDS + "?colour=red")),
    case("a path that ends like one", request(BODY, "/elsewhere?x=/lookup")),
    case("an absolute URL", request(BODY, f"http://localhost{WORDS}")),
    case("an absolute URL with a query", raw([5, 1], f"http://localhost{WORDS}?dtype=float16")),
    case("raw as npy", raw([5, 1], accept=NPY)),
    case("raw as npz", raw([5, 1], accept=NPZ)),
    case("raw as JSON", raw([5, 1], accept=JSON)),
    case("raw as anything", raw([5, 1], accept="*/*")),
    case("raw as nothing that there is", raw([5, 1], accept="text/html")),
    case("npy as npy", request(npy(np.array([[5, 1]])), WORDS, f"Accept: {NPY}", media=NPY)),
    case("no ids, raw", raw([])),
    case("no ids, JSON", as_json([])),
    case("padding, raw as JSON", raw([0, 5], accept=JSON)),
    case("tokens", request(b'{"tokens": ["nice", "to"]}')),
    case("a batch", as_json([[5, 1], [2]])),
    case("base64", as_json([5, 1], encoding="base64")),
    case("npz of JSON", as_json([5, 1], WORDS, f"Accept: {NPZ}")),
    case("raw bytes that are no ids", request(IDS + b"\0", media=OCTETS)),
    case("broken JSON", request(b'{"ids": [5')),
    case("no body", request(b"")),
    case("no body and no length", get(WORDS, "POST")),
    case("no type", request(BODY, media=None)),
    case("a type that is none", request(BODY, media="text/html")),
    case("two types", request(BODY, WORDS, f"Content-Type: {OCTETS}")),
    case("a coding", request(BODY, WORDS, "Content-Encoding: gzip")),
    case("two lists of types", raw([5, 1], WORDS, f"Accept: {NPY};q=0.5", accept=f"{OCTETS};q=0.1")),
    case("names in capitals", Request(OTHER.head.upper().replace(WORDS.upper().encode(), WORDS.encode()), OTHER.body)),
    case("a length with zeros before", request(BODY, WORDS, f"Content-Length: 00{len(BODY)}", length=None)),
    case("a long head", request(BODY, WORDS, f"X-Trace: {'a' * 4000}")),
    case("an offer of HTTP/2", request(BODY, WORDS, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")),
    case("blank lines before", Request(b"\r\n\r\n" + SMALL.head, SMALL.body)),
    case("a blank line before", Request(b"\r\n" + SMALL.head, SMALL.body)),
    case("a blank line within the body", request(b'{"ids":\r\n\r\n [5, 1]}')),
    case("a table that is none", as_json([5], "/v1/tables/nobody/lookup")),
    case("a table without a version", raw([5], "/v1/tables/idle/lookup")),
    case("a version", raw([5], "/v1/tables/words/versions/1/lookup")),
    case("a version that is none", raw([5], "/v1/tables/words/versions/7/lookup")),
    case("a label", raw([5], "/v1/tables/words/labels/stable/lookup")),
    case("several lookups", request(b'{"lookups": [{"table": "words", "ids": [5]}]}', "/v1/lookup")),
    case("no table", as_json([5], "/v1/tables//lookup")),
    case("the description", get("/v1/tables/words")),
    case("line feeds alone", bare(SMALL), closes=True),
    case("line feeds alone behind the first line", bare(SMALL, 1), closes=True),
    case("a folded field", request(BODY, WORDS, "X-Long: a\r\n b"), closes=True),
    case("two lengths", request(BODY, WORDS, f"Content-Length: {len(BODY)}"), closes=True),
    case("a length and chunks", request(BODY, WORDS, "Transfer-Encoding: chunked"), closes=True),
    case("a negative length", request(BODY, length=None, media=f"{JSON}\r\nContent-Length: -1"), closes=True),
]
TOO_LONG: Final = [
    case("raw ids as many as allowed", raw([5] * (NARROW // 8))),
    case("raw ids over the limit", raw([5] * (NARROW // 8 + 1))),
    case("JSON as long as allowed", request(BODY + b" " * (NARROW - len(BODY)))),
    case("JSON over the limit", request(BODY + b" " * (NARROW + 1 - len(BODY)))),
    *_shapes("a body over the limit", raw([5] * 100), SMALL),
]


def names(cases: list[Case]) -> list[str]:
    return [each.name for each in cases]


def _exchange(world: World, asked: Case, connection: Connection) -> list[bytes]:
    """Sends what the server takes; behind a large answer it takes nothing until that is read."""
    for packet in asked.packets:
        connection.push(packet)
        if packet is not asked.packets[-1] and LARGE.whole not in asked.packets[0] + packet:
            world.settle(connection)
    return _answers(connection, asked)


def check_same(world: World, reference: World, asked: Case) -> None:
    """Twice on one connection if it stays open, and once more on another: all as the way of ASGI answers."""
    with reference.connect() as slow:
        slow.push(b"".join(asked.packets))
        wanted = _answers(slow, asked)
    with world.connect() as first, world.connect() as second:
        for connection in (first, second) if asked.closes else (first, first, second):
            assert _exchange(world, asked, connection) == wanted
    until(world.is_idle)


@pytest.mark.parametrize("asked", ARRIVALS, ids=names(ARRIVALS))
def test_the_answer_is_the_same_however_the_request_arrives(world: World, reference: World, asked: Case) -> None:
    check_same(world, reference, asked)


def test_a_small_lookup_before_what_is_no_http_is_answered(world: World) -> None:
    for _ in range(2):
        with world.connect() as connection:
            connection.push(SMALL.whole + NO_HTTP.whole)
            assert [connection.answer().status for _ in range(2)] == [200, 400]
            assert connection.is_ended()


@pytest.mark.parametrize("asked", FORMS, ids=names(FORMS))
def test_the_answer_is_the_same_whatever_is_asked(world: World, reference: World, asked: Case) -> None:
    check_same(world, reference, asked)


@pytest.mark.parametrize("asked", TOO_LONG, ids=names(TOO_LONG))
def test_a_small_limit_of_the_body_holds(narrow: World, narrow_reference: World, asked: Case) -> None:
    check_same(narrow, narrow_reference, asked)


@pytest.mark.parametrize("asked", ARRIVALS + FORMS, ids=names(ARRIVALS + FORMS))
def test_every_lookup_is_counted_once(world: World, reference: World, asked: Case) -> None:
    before = world.counted()
    with world.connect() as connection:
        answers = _exchange(world, asked, connection)
    wanted: dict[tuple[str, str], float] = {}
    for each, answer in zip(asked.requests, answers[asked.interim :], strict=True):
        key = _series(each, answer)
        if key is not None:
            wanted[key] = wanted.get(key, 0.0) + 1.0
    assert world.more_than(before) == wanted


def _series(asked: Request, answer: bytes) -> tuple[str, str] | None:
    """The table and the status under which a request is counted; None for what is no lookup."""
    status = answer.split(b" ", 2)[1].decode()
    if b"\r\ncontent-type: text/plain" in answer:  # it was no HTTP
        return None
    target = asked.head.split(b" ", 2)[1].replace(b"%6f", b"o").replace(b"%75", b"u").replace(b"%2F", b"/")
    path = target.removeprefix(b"http://localhost").partition(b"?")[0].decode()
    if not path.endswith("/lookup") or path == "/v1/tables//lookup":
        return None
    table = path.split("/")[3] if path != "/v1/lookup" else ""
    return (table if table in ("words", "wide", "idle") else ""), status


def ask(connection: Connection, asked: Request) -> Answer:
    connection.push(asked.whole)
    return connection.answer()


# The memo, while tables change


FORGETFUL: Final = [
    pytest.param(raw, id="raw"),
    pytest.param(lambda ids: raw(ids, accept=NPY), id="npy"),
    pytest.param(lambda ids: raw(ids, WORDS + "?dtype=float16"), id="float16"),
    pytest.param(as_json, id="JSON"),
]
Asked = Callable[[list[int]], Request]


@pytest.mark.parametrize("asked", FORGETFUL)
def test_right_ids_and_ids_outside_may_alternate_behind_one_head(world: World, asked: Asked) -> None:
    with world.connect() as connection:
        right, wrong = ask(connection, asked([5, 1])), ask(connection, asked([5, 9]))
        assert (right.status, wrong.status, wrong.field("content-type")) == (200, 422, PROBLEM)
        assert json.loads(wrong.body)["errors"] == [{"index": [1], "id": 9}]
        before = world.counted()
        again = [ask(connection, asked(ids)).undated() for ids in ([5, 1], [5, 9]) * 3]
    assert again == [right.undated(), wrong.undated()] * 3
    assert world.more_than(before) == {("words", "200"): 3, ("words", "422"): 3}


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[World]:
    """A server over a store of its own, in which `words` has the version 1."""
    publish(TableStore(tmp_path), "words", KERAS_ROWS, KERAS_TOKENS)
    with wired(tmp_path) as world:
        yield world


def served(world: World) -> "weakref.ref[EmbeddingTable]":
    return weakref.ref(world.service.served.registry.get("words"))


def is_freed(table: "weakref.ref[EmbeddingTable]") -> bool:
    gc.collect()
    return table() is None


@pytest.mark.parametrize("asked", FORGETFUL)
def test_a_head_that_is_known_is_answered_by_the_version_in_force(changing: World, asked: Asked) -> None:
    store = changing.watcher.store
    with changing.connect() as connection:
        first = [ask(connection, asked([5, 1])).undated() for _ in range(3)]
        old = served(changing)
        publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS)
        changing.watcher.refresh()
        until(lambda: is_freed(old))
        second = [ask(connection, asked([5, 1])) for _ in range(3)]
        store.activate("words", 1)
        changing.watcher.refresh()
        third = [ask(connection, asked([5, 1])).undated() for _ in range(3)]
    assert {answer.field("embedding-version") for answer in second} == {"2"}
    assert len({answer.undated() for answer in second}) == 1
    assert second[0].body != first[0][-len(second[0].body) :]
    assert third == first


def test_raw_rows_behind_a_known_head_are_those_of_the_version_in_force(changing: World) -> None:
    with changing.connect() as connection:
        for version in range(1, 5):
            bodies = [ask(connection, raw([5, 1])).body for _ in range(3)]
            assert bodies == [(KERAS_ROWS[[5, 1]] * np.float32(version)).tobytes()] * 3
            publish(changing.watcher.store, "words", KERAS_ROWS * (version + 1), KERAS_TOKENS)
            changing.watcher.refresh()


def test_an_id_that_the_next_version_lacks_is_refused_behind_a_known_head(changing: World) -> None:
    with changing.connect() as connection:
        assert [ask(connection, raw([6])).status for _ in range(3)] == [200] * 3
        publish(changing.watcher.store, "words", KERAS_ROWS[:3])
        changing.watcher.refresh()
        refused = [ask(connection, raw([6])) for _ in range(3)]
    assert {(answer.status, json.loads(answer.body)["num_embeddings"]) for answer in refused} == {(422, 3)}


@pytest.mark.parametrize("asked", FORGETFUL)
def test_a_deleted_table_is_not_found_behind_a_known_head(changing: World, asked: Asked) -> None:
    with changing.connect() as connection:
        assert [ask(connection, asked([5])).status for _ in range(3)] == [200] * 3
        old = served(changing)
        shutil.rmtree(changing.watcher.store.root / "words")
        changing.watcher.refresh()
        until(lambda: is_freed(old))
        gone = [ask(connection, asked([5])) for _ in range(3)]
        publish(changing.watcher.store, "words", KERAS_ROWS * 3)
        changing.watcher.refresh()
        back = ask(connection, asked([5]))
    assert {(answer.status, json.loads(answer.body)["code"]) for answer in gone} == {(404, "table_not_found")}
    assert back.status == 200


# Clients that go, and clients that are slow


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
@pytest.mark.parametrize("part", [0, 1, 5], ids=["no body", "a byte of it", "five bytes"])
@pytest.mark.parametrize("end", [Connection.close, Connection.vanish], ids=["end", "reset"])
def test_a_client_that_goes_before_its_body_is_whole_leaves_nothing(
    world: World, end: Callable[[Connection], None], part: int, *, known: bool
) -> None:
    asked = as_json([5, 1], WORDS, f"X-Case: {end.__name__} {part} {known}")
    if known:
        with world.connect() as connection:
            assert ask(connection, asked).status == 200
    before = world.counted()
    with world.connect() as connection:
        world.send(connection, asked.head, *([asked.body[:part]] if part else []))
        assert world.in_flight == 1
        end(connection)
    until(world.is_idle)
    assert world.more_than(before) == {}


@pytest.mark.parametrize("asked", [LARGE, LARGE_TEXT], ids=["raw", "JSON"])
@pytest.mark.parametrize("end", [Connection.close, Connection.vanish], ids=["end", "reset"])
def test_a_client_that_goes_in_the_middle_of_a_large_answer_leaves_nothing(
    world: World, caplog: pytest.LogCaptureFixture, end: Callable[[Connection], None], asked: Request
) -> None:
    with world.connect() as connection:
        ask(connection, asked)
    until(world.is_idle)
    before = world.counted()
    with world.connect(4096) as connection:
        connection.push(asked.whole)
        assert connection.head().startswith(b"HTTP/1.1 200 ")
        connection.read(1000)
        assert world.in_flight == 1
        end(connection)
    until(world.is_idle)
    assert world.more_than(before) == {("wide", "200"): 1}
    assert caplog.records == []


def is_stuck(world: World, connection: Connection) -> Callable[[], bool]:
    """Whether the server waits for this client to read on."""
    end = world.protocol(connection)

    async def paused() -> bool:
        return end.flow.write_paused

    return lambda: world.on_loop(paused)


@pytest.mark.parametrize("asked", [LARGE, LARGE_TEXT], ids=["raw", "JSON"])
def test_what_comes_during_a_large_answer_is_answered_behind_it(world: World, asked: Request) -> None:
    with world.connect(4096) as connection:
        wanted = [ask(connection, each).undated() for each in (asked, SMALL, OTHER, get("/health/live"))]
        connection.push(asked.whole)
        until(is_stuck(world, connection))
        for packet in (SMALL.whole + OTHER.head, OTHER.body + asked.whole, get("/health/live").whole):
            connection.push(packet)
        found = [connection.answer().undated() for _ in range(5)]
    assert found == [*wanted[:3], wanted[0], wanted[3]]
    until(world.is_idle)


def test_half_a_request_that_comes_during_a_large_answer_is_answered_when_it_is_whole(world: World) -> None:
    with world.connect(4096) as connection:
        wanted = [ask(connection, each).undated() for each in (LARGE, SMALL)]
        connection.push(LARGE.whole)
        until(is_stuck(world, connection))
        connection.push(SMALL.head[:20])
        assert connection.answer().undated() == wanted[0]
        world.send(connection, SMALL.head[20:], SMALL.body[:4])
        connection.push(SMALL.body[4:])
        assert connection.answer().undated() == wanted[1]


def test_others_are_answered_during_a_large_answer(world: World) -> None:
    with world.connect(4096) as slow, world.connect() as other:
        wanted = ask(other, SMALL).undated()
        ask(slow, LARGE)
        slow.push(LARGE.whole)
        until(is_stuck(world, slow))
        assert ask(other, SMALL).undated() == wanted
        assert slow.answer().body == WIDE[LARGE_IDS].tobytes()


@pytest.mark.parametrize("form", [OCTETS, NPY, NPZ, JSON])
def test_a_slow_reader_of_a_large_answer_gets_every_byte(world: World, reference: World, form: str) -> None:
    asked = raw(LARGE_IDS[: 1500 if form == JSON else None], WIDE_PATH, accept=form)
    with reference.connect() as quick:
        wanted = ask(quick, asked)
    with world.connect(4096) as connection:
        for _ in range(2):
            connection.push(asked.whole)
            until(is_stuck(world, connection))
            head = connection.head()
            body = b"".join(
                connection.read(min(8192, len(wanted.body) - at)) for at in range(0, len(wanted.body), 8192)
            )
            assert Answer(head, body).undated() == wanted.undated()
    until(world.is_idle)


# A graceful shutdown


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
@pytest.mark.parametrize("part", [0, 4], ids=["no body", "half of the body"])
def test_a_request_whose_body_is_on_its_way_is_answered_in_a_shutdown(
    changing: World, part: int, *, known: bool
) -> None:
    asked = as_json([5, 1], WORDS, f"X-Case: {part} {known}")
    with changing.connect() as connection:
        if known:
            assert ask(connection, asked).status == 200
        before = changing.counted()
        world_packets = [asked.head] + ([asked.body[:part]] if part else [])
        changing.send(connection, *world_packets)
        changing.stop()
        connection.push(asked.body[part:])
        answer = connection.answer()
        assert (answer.status, answer.field("connection")) == (200, "close")
        assert json.loads(answer.body)["vectors"] == KERAS_ROWS[[5, 1]].astype(float).round(6).tolist()
        assert connection.is_ended()
    assert changing.ended()
    assert changing.in_flight == 0
    assert before.get(("words", "lookup", "200"), 0) == known


@pytest.mark.parametrize("asked", [SMALL, OTHER, get("/health/live")], ids=["JSON", "raw", "ASGI"])
@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_who_asks_on_in_a_shutdown_is_told_of_it_by_the_answer(changing: World, asked: Request, *, known: bool) -> None:
    with changing.connect() as connection:
        before = ask(connection, asked if known else get("/health/ready"))
        assert before.field("connection") is None
        changing.server.stop()
        answer = ask(connection, asked)
        assert (answer.status, answer.field("connection")) == (200, "close")
        assert connection.is_ended()
    assert changing.ended()


def test_half_a_head_is_not_waited_for_in_a_shutdown(changing: World) -> None:
    with changing.connect() as connection:
        changing.send(connection, SMALL.head[:40])
        changing.stop()
        assert connection.is_ended()
    assert changing.ended()


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_a_large_answer_is_sent_as_a_whole_in_a_shutdown(root: Path, *, known: bool) -> None:
    with wired(root) as world, world.connect(4096) as connection:
        asked = raw(LARGE_IDS, WIDE_PATH, f"X-Case: {known}")
        if known:
            ask(connection, asked)
        connection.push(asked.whole)
        until(is_stuck(world, connection))
        world.stop()
        assert connection.answer().body == WIDE[LARGE_IDS].tobytes()
        assert connection.is_ended()
        assert world.ended()
        assert world.in_flight == 0


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(False, id="a new head"),
        pytest.param(True, id="a known head"),
    ],
)
def test_a_large_answer_that_a_shutdown_cuts_off_ends_its_connection(root: Path, *, known: bool) -> None:
    asked = raw(LARGE_IDS, WIDE_PATH, f"X-Case: cut off {known}")
    with wired(root, drain_seconds=1) as world, world.connect(4096) as connection:
        if known:
            ask(connection, asked)
        connection.push(asked.whole)
        until(is_stuck(world, connection))
        end = world.protocol(connection)
        world.stop()
        assert world.ended()
        assert end.transport.is_closing()
        assert world.in_flight == 0


# Too many in flight


@dataclass(frozen=True)
class Place:
    """A request that occupies a place as far as it was sent, and the rest of it."""

    name: str
    sent: tuple[bytes, ...]
    rest: bytes
    known: bool = False


PLACES: Final = [
    Place("no body behind a new head", (SMALL.head,), SMALL.body),
    Place("no body behind a known head", (SMALL.head,), SMALL.body, known=True),
    Place("half a body behind a known head", (SMALL.head, SMALL.body[:4]), SMALL.body[4:], known=True),
    Place("half a body with its head", (SMALL.whole[:-4],), SMALL.whole[-4:]),
    Place("half a body in chunks", (chunked(BODY).whole[:-5],), b"0\r\n\r\n"),
    Place("half a body of a version", (raw([5], "/v1/tables/words/versions/1/lookup").whole[:-4],), b"\0\0\0\0"),
]
MULTI: Final = request(b'{"lookups": [{"table": "words", "ids": [5]}]}', "/v1/lookup")
ASKED: Final = [SMALL, OTHER, LARGE_TEXT, raw([5], "/v1/tables/words/versions/1/lookup"), MULTI]


@pytest.fixture(scope="module")
def crowded(root: Path) -> Iterator[World]:
    """A server with room for one lookup."""
    with wired(root, max_in_flight=1, admin_token="secret") as world:
        yield world


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups wait for a place as long as a test may take."""
    monkeypatch.setattr(admission, "_PATIENCE", SECONDS)


def occupy(world: World, connection: Connection, place: Place) -> None:
    if place.known:
        with world.connect() as other:
            assert ask(other, SMALL).status == 200
    world.send(connection, *place.sent)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_request_that_is_not_whole_occupies_a_place(crowded: World, place: Place) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first, place)
        assert crowded.in_flight == 1
        before = crowded.counted()
        refused = [ask(second, each) for each in ASKED]
        assert {(answer.status, answer.field("content-type")) for answer in refused} == {(503, PROBLEM)}
        assert {json.loads(answer.body)["code"] for answer in refused} == {"overloaded"}
        assert {answer.field("retry-after") for answer in refused} == {"1"}
        assert crowded.more_than(before) == {("words", "503"): 3, ("wide", "503"): 1, ("", "503"): 1}
        first.push(place.rest)
        assert first.answer().status == 200
        until(crowded.is_idle)
        assert [ask(second, each).status for each in ASKED] == [200] * len(ASKED)
    until(crowded.is_idle)


def test_everything_but_lookups_is_answered_where_no_place_is_free(crowded: World) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first, PLACES[0])
        paths = ("/health/live", "/health/ready", "/metrics", "/v1/tables", "/v1/tables/words")
        assert [ask(second, get(path)).status for path in paths] == [200] * len(paths)
        admin = request(b"", "/v1/admin/tables", "Authorization: Bearer secret", media=None, method="GET", length=None)
        assert ask(second, admin).status == 200
        first.push(PLACES[0].rest)
        assert first.answer().status == 200


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
@pytest.mark.parametrize("end", [Connection.close, Connection.vanish], ids=["end", "reset"])
def test_a_client_that_goes_gives_its_place_back(
    crowded: World, place: Place, end: Callable[[Connection], None]
) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first, place)
        end(first)
        until(crowded.is_idle)
        assert ask(second, SMALL).status == 200


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
@pytest.mark.parametrize("asked", ASKED, ids=["JSON", "raw", "large", "a version", "several"])
@pytest.mark.usefixtures("patient")
def test_a_lookup_that_waits_gets_the_place_that_becomes_free(crowded: World, place: Place, asked: Request) -> None:
    with crowded.connect() as first, crowded.connect() as second:
        occupy(crowded, first, place)
        crowded.send(second, asked.whole)
        until(partial(_are_waiting, crowded, 1))
        first.push(place.rest)
        assert first.answer().status == 200
        assert second.answer().status == 200
    until(crowded.is_idle)


def _are_waiting(world: World, count: int) -> bool:
    return waiting(world) == count


def waiting(world: World) -> int:
    return len(world.service.front.lookups.admission._waiting)


@pytest.mark.usefixtures("patient")
def test_a_client_that_goes_while_it_waits_takes_no_place_with_it(crowded: World) -> None:
    with crowded.connect() as first, crowded.connect() as second, crowded.connect() as third:
        occupy(crowded, first, PLACES[0])
        for number, each in enumerate((second, third), 1):
            crowded.send(each, OTHER.whole)
            until(partial(_are_waiting, crowded, number))
        second.vanish()
        first.push(PLACES[0].rest)
        assert (first.answer().status, third.answer().status) == (200, 200)
    until(crowded.is_idle)


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a known head"])
def test_a_large_answer_that_is_being_read_occupies_a_place(crowded: World, *, known: bool) -> None:
    asked = raw(LARGE_IDS, WIDE_PATH, f"X-Case: {known}")
    with crowded.connect(4096) as first, crowded.connect() as second:
        if known:
            ask(first, asked)
            until(crowded.is_idle)
        first.push(asked.whole)
        until(is_stuck(crowded, first))
        assert ask(second, SMALL).status == 503
        assert first.answer().body == WIDE[LARGE_IDS].tobytes()
        until(crowded.is_idle)
        assert ask(second, SMALL).status == 200


def test_two_places_are_two(root: Path) -> None:
    with wired(root, max_in_flight=2) as world, world.connect() as first, world.connect() as second:
        with world.connect() as third:
            world.send(first, SMALL.head)
            assert ask(third, OTHER).status == 200
            world.send(second, SMALL.head)
            assert world.in_flight == 2
            assert ask(third, OTHER).status == 503
            for each in (first, second):
                each.push(SMALL.body)
                assert each.answer().status == 200
            assert ask(third, OTHER).status == 200
        until(world.is_idle)


@pytest.mark.usefixtures("patient")
def test_no_more_are_in_flight_than_allowed_where_a_large_answer_begins_behind_one_that_waits(crowded: World) -> None:
    with crowded.connect(4096) as first, crowded.connect(4096) as second:
        ask(first, LARGE)
        until(crowded.is_idle)
        crowded.send(first, LARGE.head)
        crowded.send(second, LARGE_TEXT.whole)
        until(partial(_are_waiting, crowded, 1))
        first.push(LARGE.body)
        until(is_stuck(crowded, first))
        assert crowded.in_flight == 1
        assert first.answer().status == 200
        assert second.answer().status == 200
    until(crowded.is_idle)


def test_a_lookup_that_has_a_place_is_not_refused_once_it_is_whole(
    crowded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = raw(LARGE_IDS, WIDE_PATH, "X-Case: has a place")
    with crowded.connect() as first, crowded.connect(4096) as second:
        crowded.send(first, asked.head)
        monkeypatch.setattr(admission, "_PATIENCE", SECONDS)
        crowded.send(second, LARGE.whole)
        until(partial(_are_waiting, crowded, 1))
        monkeypatch.setattr(admission, "_PATIENCE", 0.0)
        first.push(asked.body)
        assert first.answer().status == 200
    until(crowded.is_idle)
