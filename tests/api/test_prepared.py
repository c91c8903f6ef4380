"""Lookups that come again with the head of an earlier one, against a server that remembers and keeps nothing."""

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from load_tests.running import until
from service.api.answer import Ready
from service.api.batching import Part
from service.api.batching import answers as answers_together
from service.api.json_body import JsonBody, plain_ids, read_fields
from service.api.limits import Limits
from service.api.options import DEFAULT_SCALARS, SCALAR_FIELDS
from service.backends.memory import MappedRows
from service.errors import ServiceError
from service.rowtexts import RowTexts
from service.server import rounds
from service.store import TableStore
from service.types import IdArray, RowArray
from tests.api.forms import AT_ONCE, BASE64, KEPT, USUAL, Form, raw
from tests.api.wire import NPY, OCTETS, AnyArray, npy
from tests.oracle import QUICK
from tests.server.raw import Answer, Request, World, Worlds, both, request, wired
from tests.world import publish

DIM: Final = 64
SMALL, LARGE = 40, 700
"""Ids of an answer that is made at once, and of one that is made in turns, in every form."""
PADDING: Final = 150
SHORT, LONG = 0, 1
"""Rows of `uneven` whose texts are of very different lengths."""
MAX_IDS: Final = 50


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the tables of these tests. Not to be changed."""
    root = tmp_path_factory.mktemp("store")
    store = TableStore(root)
    rows = np.random.default_rng(3).normal(size=(900, DIM)).astype(np.float32)
    publish(store, "plain", rows, [f"token {row}" for row in range(len(rows))])
    publish(store, "padded", rows, padding_id=PADDING)
    publish(store, "zeros", rows, padding_id=PADDING, on_oov="zeros")
    uneven: RowArray = np.array([[1.0] * DIM, [-1.2345678e-5] * DIM], dtype=np.float32)
    publish(store, "uneven", uneven)
    publish(store, "thin", rows[:, :1])
    return root


@pytest.fixture(scope="module")
def worlds(root: Path) -> Iterator[Worlds]:
    with both(root) as worlds:
        yield worlds


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each lookup whose head was known, whether it was answered as one that is prepared."""
    seen: list[bool] = []

    def watched(parts: Sequence[Part | None], since: Sequence[float]) -> list[Ready | None]:
        found = answers_together(parts, since)
        seen.extend(answer is not None for answer in found)
        return found

    monkeypatch.setattr(rounds, "answers", watched)
    return seen


def answers(world: World, asked: Sequence[Request]) -> list[Answer]:
    """One after the other on one connection, heads and bodies by turns in one packet and in two."""
    found: list[Answer] = []
    others = world.in_flight
    with world.connect() as connection:
        for number, each in enumerate(asked):
            for packet in (each.head, each.body) if number % 2 else (each.whole,):
                connection.push(packet)
            found.append(connection.answer())
            until(lambda: world.in_flight == others)  # or else the next might come while the connection is busy
    return found


def assert_same(worlds: Worlds, asked: Sequence[Request]) -> list[Answer]:
    """Answers of the service, which are those of the other one byte for byte."""
    tested, plain = (answers(world, asked) for world in worlds)
    for ours, theirs in zip(tested, plain, strict=True):
        assert ours.undated() == theirs.undated()
    return tested


# The same again, and other ids


def drawn(count: int) -> Iterator[IdArray]:
    """Ids of three digits each, so that all bodies are of the same length: the second time the same ones."""
    generator = np.random.default_rng(count)
    ids = generator.integers(100, 900, count)
    ids[3] = PADDING
    yield from (ids, ids, ids[::-1].copy(), generator.permutation(ids))


@pytest.mark.parametrize("table", ["plain", "padded", "zeros"])
@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("form", [*KEPT, *AT_ONCE, *USUAL], ids=lambda form: form.name)
def test_what_comes_again_is_answered_as_if_nothing_was_remembered(
    worlds: Worlds, prepared: list[bool], form: Form, count: int, table: str
) -> None:
    found = assert_same(worlds, [form.request(table, ids) for ids in drawn(count)])
    assert [answer.status for answer in found] == [200] * 4
    assert found[0].undated() == found[1].undated()
    if form in KEPT or (form in AT_ONCE and count == SMALL):
        assert prepared[-3:] == [True] * 3


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 512, 513])
@pytest.mark.parametrize("form", [*KEPT[:1], *AT_ONCE[:1], raw("bytes"), Form("array", OCTETS, NPY)], ids=str)
def test_answers_of_every_size_are_the_same_again(worlds: Worlds, form: Form, count: int) -> None:
    ids = np.arange(count) % 800 + 100
    found = assert_same(worlds, [form.request("padded", each) for each in (ids, ids, np.roll(ids, 1))])
    assert {answer.status for answer in found} == {200}


@pytest.mark.parametrize("form", [*KEPT[:1], *AT_ONCE[:1], raw("bytes"), Form("array", OCTETS, NPY)], ids=str)
@pytest.mark.parametrize("table", ["plain", "zeros"])
def test_an_id_that_is_none_is_treated_as_ever(worlds: Worlds, form: Form, table: str) -> None:
    ids = np.arange(100, 100 + LARGE)
    outside = ids.copy()
    outside[[5, 600]] = 999
    found = assert_same(worlds, [form.request(table, each) for each in (ids, ids, outside, ids)])
    assert [answer.status for answer in found] == [200, 200, 422 if table == "plain" else 200, 200]


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize(
    "ids",
    [
        lambda ids: ids.reshape(-1, 5).tolist(),
        lambda ids: ids.reshape(2, -1, 5).tolist(),
        lambda ids: [ids[:3].tolist(), ids[3:].tolist()],
        lambda ids: [ids[:3].tolist(), [], ids[3:].tolist()],
        lambda ids: [999, *ids.tolist()],
    ],
    ids=["batch", "three axes", "ragged", "an empty sequence", "an id of none"],
)
def test_kept_texts_make_the_answer_that_is_made_without_any(
    worlds: Worlds, ids: Callable[[IdArray], list[Any]], count: int
) -> None:
    (first, *_) = drawn(count)
    body = json.dumps({"ids": ids(first), "on_oov": "mask"}).encode()
    for table in ("plain", "padded"):
        found = assert_same(worlds, [request(body, f"/v1/tables/{table}/lookup")] * 3)
        assert [answer.status for answer in found] == [200] * 3


# Another body behind the same head


@pytest.mark.parametrize("options", [{}, BASE64], ids=["text", "base64"])
@pytest.mark.parametrize(
    "body",
    [
        '{"tokens":["token 5"]}',
        '{"ids":[[100],[101]]}',
        '{"ids":[[100],[101,102]]}',
        '{"ids":[100,101],"pooling":"mean"}',
        '{"ids":[100,101],"encoding":"base64"}',
        '{"encoding":"base64","ids":[100,101]}',
        '{"ids":[100,101],"encoding":"float"}',
        '{"ids":[100],"mask":[1]}',
        '{"ids":[100,-1]}',
        '{"ids":[99999999999999999999]}',
        '{"ids":[9223372036854775808]}',
        '{"ids":[1.0]}',
        '{"ids":[true]}',
        '{"ids":[]}',
        '{"ids":[100],"ids":[101]}',
        '{"ids":[01]}',
        '{"ids":[1,]}',
        '{"ids":[,1]}',
        '{"ids":[1 2]}',
        '{"ids":1[2]}',
        '{"ids":[1]}{"ids":[1]}',
        '{"ids":[1]} 2',
        '{"id5s":[1]}',
        '{"ids":[1],"encoding":"bas6e4"}',
        '\ufeff{"ids":[1]}',
        '{"ids":[900]}',
        "",
    ],
)
def test_another_body_behind_a_prepared_head_is_answered_as_ever(
    worlds: Worlds, body: str, options: Mapping[str, str]
) -> None:
    target, size = "/v1/tables/plain/lookup", 60
    first, other = (text.encode().ljust(size) for text in (json.dumps({"ids": [100, 101], **options}), body))
    found = assert_same(worlds, [request(each, target) for each in (first, first, other, first, other, first)])
    assert [found[index].status for index in (0, 1, 3, 5)] == [200] * 4


@pytest.mark.parametrize(
    "array",
    [
        lambda ids: ids.reshape(5, 8),
        lambda ids: ids.reshape(8, 5).T,
        lambda ids: ids.astype("<u8"),
        lambda ids: ids.astype(">i8"),
        lambda ids: ids.astype("<f8"),
        lambda ids: ids + 900,
        lambda ids: -ids,
    ],
    ids=["batch", "column by column", "unsigned", "big-endian", "fractions", "too large", "negative"],
)
@pytest.mark.parametrize("accept", [OCTETS, NPY])
def test_another_array_behind_a_prepared_head_is_answered_as_ever(
    worlds: Worlds, array: Callable[[IdArray], AnyArray], accept: str
) -> None:
    ids = np.arange(100, 100 + SMALL)
    first, other = (
        request(npy(each), "/v1/tables/plain/lookup", f"Accept: {accept}", media=NPY) for each in (ids, array(ids))
    )
    assert first.head == other.head
    assert_same(worlds, [first, first, other, other, first])


def test_without_memory_for_texts_what_comes_again_is_the_same(root: Path, worlds: Worlds) -> None:
    with wired(root, json_cache_bytes=0) as forgetful:
        for form, table in product((*KEPT[:1], *AT_ONCE[:1], *USUAL[:2]), ("plain", "padded")):
            for count in (SMALL, LARGE):
                assert_same((forgetful, worlds[1]), [form.request(table, ids) for ids in drawn(count)])


# What happens while an answer is read


@pytest.mark.parametrize("form", [KEPT[0], KEPT[2]], ids=lambda form: form.name)
def test_an_answer_is_read_to_its_end_though_its_texts_make_room_for_others_and_its_version_goes(
    tmp_path: Path, form: Form
) -> None:
    rows = np.random.default_rng(5).normal(size=(900, 256)).astype(np.float32)
    store = TableStore(tmp_path)
    publish(store, "wide", rows)
    ids = np.arange(4000) % 200 + 100
    asked = form.request("wide", ids)
    with wired(tmp_path, json_cache_bytes=2 << 20) as world:  # for half of the rows
        first, again = answers(world, [asked, asked])
        with world.connect(receive_buffer=4096) as slow:
            slow.push(asked.whole)
            until(lambda: world.in_flight == 1)
            assert (
                len(answers(world, [form.request("wide", np.arange(row, row + 60)) for row in range(0, 900, 60)])) == 15
            )
            publish(store, "wide", rows * np.float32(2))
            world.watcher.refresh()
            (other,) = answers(world, [asked])
            gc.collect()
            assert world.in_flight == 1
            assert slow.answer().undated() == first.undated() == again.undated()
    assert other.field("embedding-version") == "2"
    assert other.body != first.body


# Limits


@pytest.mark.parametrize("options", [{}, BASE64], ids=["text", "base64"])
def test_a_prepared_lookup_of_more_ids_than_may_be_is_refused(root: Path, options: dict[str, str]) -> None:
    asked = [
        request(json.dumps({"ids": ids, **options}, separators=(",", ":")).encode(), "/v1/tables/plain/lookup")
        for ids in ([100, 101], [100, 101], [1, 2, 3, 4], [100, 101])
    ]
    assert len({len(each.body) for each in asked}) == 1
    with both(root, max_ids=3) as worlds:
        assert [answer.status for answer in assert_same(worlds, asked)] == [200, 200, 413, 200]


@pytest.mark.parametrize("count", [SMALL, LARGE])
def test_a_prepared_answer_that_is_longer_than_may_be_is_refused(root: Path, count: int) -> None:
    short, long = (Form("").request("uneven", np.full(count, row)) for row in (SHORT, LONG))
    with both(root, max_response_bytes=count * DIM * 6) as worlds:
        ours, theirs = (answers(world, [short, short, long, long, short]) for world in worlds)
    assert [answer.status for answer in ours] == [answer.status for answer in theirs] == [200, 200, 413, 413, 200]
    assert {answer.body for answer in ours if answer.status == 200} == {theirs[0].body}


@pytest.mark.parametrize(
    ("form", "count", "table"),
    [
        (raw("bytes"), SMALL, "plain"),
        (raw("bytes"), LARGE, "plain"),
        (Form("array", OCTETS, NPY), SMALL, "plain"),
        (Form("array", OCTETS, NPY), LARGE, "plain"),
        (Form("base64", options=BASE64), SMALL, "thin"),
    ],
)
def test_a_refusal_for_the_length_of_an_answer_stays_one(
    root: Path, worlds: Worlds, form: Form, count: int, table: str
) -> None:
    asked = [form.request(table, np.arange(100, 100 + count))] * 3
    (full,) = {len(answer.body) for answer in assert_same(worlds, asked)}
    for most_bytes, status in ((full, 200), (full - 1, 413)):
        with wired(root, max_response_bytes=most_bytes) as world:
            assert [answer.status for answer in answers(world, asked)] == [status] * 3


# Bodies that are told apart without being looked at


def general(body: bytes, limits: Limits) -> tuple[list[int], tuple[int, ...], str]:
    """Ids, their shape and the encoding, the long way, which refuses much."""
    parsed = JsonBody(body)
    assert isinstance(parsed.value, dict)
    assert parsed.value.keys() <= SCALAR_FIELDS | {"ids"}
    asked, scalars = read_fields(parsed.value, lambda: parsed.exact, limits)
    assert asked.options is DEFAULT_SCALARS.options
    batch: Any = asked.batch
    assert not batch.exact
    return batch.values.tolist(), batch.layout.shape, scalars.encoding


LIMITS: Final = Limits(1 << 20, MAX_IDS, 1 << 20)


def assert_plain_is_general(body: bytes) -> None:
    plain = plain_ids(body, MAX_IDS)
    if plain is None:
        return
    ids, scalars = plain
    try:
        wanted = general(body, LIMITS)
    except (ServiceError, AssertionError) as error:
        raise AssertionError(f"{body!r} is taken, and is no such lookup") from error
    assert (ids.tolist(), ids.shape, scalars.encoding) == wanted
    assert ids.dtype == np.int64


BODIES: Final = (
    '{"ids":[1,22,3]}',
    '{"ids": [1, 2], "encoding": "base64"}',
    '{"ids":[7],"encoding":"float"}',
    '{"encoding":"base64","ids":[9223372036854775807]}',
    '{ "ids" : [5, 0 ] , "encoding" : "base64" }',
    '{"ids":[[1],[2]]}',
    '{"ids":[1],"ids":[2]}',
    '{"ids":[1],"mask":[1]}',
    '{"ids":[1],"length":2}',
    '{"ids":[1],"pooling":"mean"}',
    '{"ids":[1],"flatten":true,"encoding":"base64"}',
    '{"tokens":["1"]}',
)
_CHANGES: Final = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([*"0123456789, 00,, 64", *'-+.e[]{}":\n\ufeff', ""])), max_size=5
)


def changed(body: str, changes: Sequence[tuple[int, str]]) -> bytes:
    """The body with characters put in, or with one taken out where there is none."""
    for place, character in changes:
        at = place % (len(body) + 1)
        body = body[:at] + character + body[at + (not character) :]
    return body.encode()


@QUICK
@given(body=st.sampled_from(BODIES), changes=_CHANGES)
@example(body='{"ids":[1],"encoding":"bas6e4"}', changes=[])
@example(body='{"ids":[18446744073709551615]}', changes=[])
@example(body='{"ids":[' + "9" * 5000 + "]}", changes=[])
@example(body='{"ids":[' + ",".join(["1"] * (MAX_IDS + 1)) + "]}", changes=[])
@example(body='{"ids":[]}', changes=[])
def test_plain_ids_are_those_of_the_long_way(body: str, changes: list[tuple[int, str]]) -> None:
    raw_body = changed(body, changes)
    assert_plain_is_general(raw_body)


@QUICK
@given(
    ids=st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=MAX_IDS),
    encoding=st.sampled_from([None, "float", "base64"]),
    separators=st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_plain_bodies_are_taken(ids: list[int], encoding: str | None, separators: tuple[str, str]) -> None:
    body = json.dumps({"ids": ids} | ({} if encoding is None else {"encoding": encoding}), separators=separators)
    plain = plain_ids(body.encode(), MAX_IDS)
    if plain is None:
        assert separators == (", ", ": ")
        return
    assert (plain[0].tolist(), plain[1].encoding) == (ids, encoding or "float")


@pytest.mark.parametrize(
    "body",
    [
        b'{"ids":[1],"encoding4":"base6"}',
        b'{"ids":[1],"6enco ding":"base64"}',
        b'{"ids":[1],"encoding,":"float"}',
        b'{"64encoding":"base","ids":[1]}',
    ],
)
def test_a_field_that_does_not_exist_is_not_taken_for_one_that_does(body: bytes) -> None:
    assert_plain_is_general(body)


# Memory


@pytest.mark.parametrize("at_once", [1, 100])
def test_texts_take_no_more_memory_than_they_may(at_once: int) -> None:
    rows = np.random.default_rng(1).normal(size=(3000, 8)).astype(np.float32)
    ids = np.arange(len(rows))
    tracemalloc.start()
    try:
        texts = RowTexts(MappedRows(rows), 300_000, lambda *_: None)
        for first in range(0, len(ids), at_once):
            texts.of(ids[first : first + at_once])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert texts.most_bytes == 300_000
    assert 200_000 < taken <= 300_000
