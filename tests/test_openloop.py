"""The open-loop generator against real servers, its records, and every run of it in a short form."""

import asyncio
import math
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from load_tests.bench.openloop import latency, mixed, overload, spread, start
from load_tests.bench.openloop.answers import Chunks, Head, parse_head
from load_tests.bench.openloop.cores import generating
from load_tests.bench.openloop.generator import Address, Arrivals, Load, Stream, drive
from load_tests.bench.openloop.latency import Curve, point_of
from load_tests.bench.openloop.mixed import Mixed, Window
from load_tests.bench.openloop.records import Record, percentile
from load_tests.bench.openloop.start import Starts
from load_tests.bench.openloop.world import address_of
from load_tests.bench.row import Row, all_kept, table
from tests.world import listening

BODY = b"x" * 33_000
Headers = Sequence[tuple[bytes, bytes]]


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


async def answer(send: Send, status: int = 200, headers: Headers = (), pieces: Sequence[bytes] = (b"",)) -> None:
    """Without a content-length among the headers, uvicorn sends chunks."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for number, piece in enumerate(pieces, 1):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})


def fixed(status: int = 200, headers: Headers = (), body: bytes = b"") -> ASGIApp:
    length = (b"content-length", str(len(body)).encode())

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, status, [*headers, length], [body])

    return app


@contextmanager
def serving_app(app: ASGIApp) -> Iterator[Address]:
    with listening(app) as url:
        yield address_of(url)


@contextmanager
def serving_bytes(answers: Callable[[socket.socket], None]) -> Iterator[Address]:
    """A server that does with each connection, one after the other, what it is told, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if not connection.recv(65_536).startswith(b"GET /"):
                    return
                answers(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        with socket.create_connection(listener.getsockname()) as last:
            last.sendall(b"end")
        thread.join()
        listener.close()


def record_of(
    due: Sequence[float], sent: Sequence[float], done: Sequence[float], status: Sequence[int], **changed: object
) -> Record:
    parts = {"name": "made", "seconds": 10.0, "with_retry_after": 0, "body_bytes": 0, "reconnects": 0, "busy": 0.1}
    arrays = {"due": np.array(due), "sent": np.array(sent), "done": np.array(done), "late": np.zeros(len(due))}
    return Record(**{**parts, **arrays, "status": np.array(status, dtype=np.int16), **changed})  # type: ignore[arg-type]


# The generator


@pytest.mark.parametrize("arrivals", ["poisson", "even"])
def test_every_request_that_arrives_is_sent_when_due_and_answered(arrivals: Arrivals) -> None:
    with serving_app(fixed(body=BODY)) as address:
        (record,) = drive(Load(address, (Stream("all", (get("/"),), 4, 400.0, arrivals),), 0.5))
    assert record.count(200) == len(record.due) == record.body_bytes / len(BODY)
    assert 120 < len(record.due) < 280  # 200, with more than five standard deviations either way
    assert (record.due <= record.sent).all()
    assert (record.sent < record.done).all()
    assert (record.late >= 0).all()
    assert (np.diff(record.due) >= 0).all()
    assert 0 < record.busy < 1


def test_even_arrivals_are_evenly_spaced_and_poisson_ones_are_seeded() -> None:
    even = Stream("even", (b"",), 1, 100.0, "even").due_times(2.0, np.random.default_rng(0))
    assert even == pytest.approx((np.arange(200) + 0.5) / 100)
    poisson = Stream("poisson", (b"",), 1, 1000.0)
    first, same, other = (poisson.due_times(10.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tolist() == same.tolist() != other.tolist()
    gaps = np.diff(first)
    assert gaps.mean() == pytest.approx(0.001, rel=0.05)
    assert gaps.std() == pytest.approx(0.001, rel=0.1)  # exponential: as large as the mean


def test_a_stall_is_charged_to_all_that_was_due_meanwhile() -> None:
    released = asyncio.Event()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/release":
            released.set()
        else:
            await released.wait()
        await answer(send, headers=[(b"content-length", b"0")])

    with serving_app(app) as address:
        stalled = Stream("stalled", (get("/"),), 1, 100.0, "even")
        release = Stream("release", (get("/release"),), 1, 2.5, "even")  # one request, due after 0.2 s
        record, other = drive(Load(address, (stalled, release), 0.4))
    assert other.due.tolist() == pytest.approx([0.2])
    during = record.due < 0.2
    assert during.sum() == 20
    assert record.count(200) == 40
    assert (record.latency() >= 0.2 - record.due)[during].all()
    # On the wire only the first was slow: the others had waited for its connection, which is not the generator's fault.
    assert (record.sent[1:20] >= 0.2).all()
    assert record.late[1:20] == pytest.approx(record.sent[1:20] - record.done[:19])


def test_what_is_not_answered_or_not_sent_in_time_is_infinitely_late() -> None:
    released = asyncio.Event()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != "/release":
            await released.wait()
        released.set()
        await answer(send, headers=[(b"content-length", b"0")])

    with serving_app(app) as address:
        (record,) = drive(Load(address, (Stream("held", (get("/"),), 2, 100.0, "even"),), 0.1, drain=0.0))
        drive(Load(address, (Stream("free", (get("/release"),), 1, 100.0, "even"),), 0.02))
    assert record.count(0) == len(record.due) == 10
    assert np.isfinite(record.sent).sum() == 2
    assert np.isnan(record.late).sum() == 8
    assert percentile(record.latency(), 50) == math.inf


def test_streams_keep_their_own_requests_and_rates() -> None:
    asked: Counter[str] = Counter()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        asked[scope["path"]] += 1
        await answer(send, headers=[(b"content-length", b"0")])

    with serving_app(app) as address:
        often = Stream("often", (get("/a"), get("/b")), 2, 200.0, "even")
        seldom = Stream("seldom", (get("/c"),), 1, 20.0, "even")
        first, second = drive(Load(address, (often, seldom), 0.5))
    assert (first.name, len(first.due), second.name, len(second.due)) == ("often", 100, "seldom", 10)
    assert asked == {"/a": 50, "/b": 50, "/c": 10}


def test_chunked_answers_are_counted_without_their_frames() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, pieces=[b"a" * 10, BODY * 40, b"", b"c"])

    with serving_app(app) as address:
        (record,) = drive(Load(address, (Stream("chunks", (get("/"),), 1, 20.0, "even"),), 0.5))
    assert record.count(200) == 10
    assert record.body_bytes == 10 * (len(BODY) * 40 + 11)


def test_answers_larger_than_the_buffer_are_whole_at_their_end() -> None:
    body = b"x" * 3_000_000
    with serving_app(fixed(body=body)) as address:
        (record,) = drive(Load(address, (Stream("large", (get("/"),), 1, 20.0, "even"),), 0.5))
    assert record.count(200) == 10
    assert record.body_bytes == 10 * len(body)


@pytest.mark.parametrize("step", [1, 7, 64])
def test_answers_may_come_in_pieces(step: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 150\r\n\r\n" + b"x" * 150

    def in_pieces(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(whole), step):
            connection.sendall(whole[first : first + step])

    with serving_bytes(in_pieces) as address:
        (record,) = drive(Load(address, (Stream("pieces", (get("/"),), 1, 50.0, "even"),), 0.2))
    assert record.count(200) == 10
    assert record.body_bytes == 1500


@pytest.mark.parametrize(("honours", "asked"), [(True, 4), (False, None)], ids=["honoured", "ignored"])
def test_a_refused_client_asks_again_when_it_is_told_to(honours: bool, asked: int | None) -> None:
    with serving_app(fixed(503, [(b"retry-after", b"60")])) as address:
        stream = Stream("closed", (get("/"),), 4, honours_retry_after=honours)
        (record,) = drive(Load(address, (stream,), 0.3))
    assert record.count(503) == record.with_retry_after == len(record.due)
    assert len(record.due) == asked if asked else len(record.due) > 4
    assert record.rate(503) == pytest.approx(len(record.due) / 0.3, rel=0.5)
    assert record.time_to(503).size == len(record.due)
    assert record.latency().size == 0


def test_a_client_that_waited_as_told_is_due_when_the_time_has_passed() -> None:
    refused = iter([True])

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"0")]
        if next(refused, False):
            await answer(send, 503, [*headers, (b"retry-after", b"1")])
        else:
            await answer(send, headers=headers)

    with serving_app(app) as address:
        stream = Stream("closed", (get("/"),), 1, honours_retry_after=True)
        (record,) = drive(Load(address, (stream,), 1.2))
    assert record.status[:2].tolist() == [503, 200]
    assert record.due[1] >= record.done[0] + 1
    assert record.sent[1] >= record.due[1]


def test_connections_that_the_server_closes_are_opened_anew() -> None:
    with serving_app(fixed(503, [(b"connection", b"close")])) as address:
        (record,) = drive(Load(address, (Stream("closing", (get("/"),), 2),), 0.2))
    assert record.count(503) == len(record.due) == record.reconnects


def test_a_connection_that_is_lost_costs_its_request() -> None:
    with serving_bytes(lambda _: None) as address:
        (record,) = drive(Load(address, (Stream("lost", (get("/"),), 1, 50.0, "even"),), 0.2))
    assert record.count(0) == len(record.due) == 10
    assert record.reconnects == 10
    assert np.isinf(record.done).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "1 bytes longer"),
        (b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nab", "neither a length nor chunks"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nab", "behind the last chunk"),
    ],
    ids=["too long", "no length", "after chunks"],
)
def test_what_is_no_answer_ends_the_run(text: bytes, says: str) -> None:
    with (
        serving_bytes(lambda connection: connection.sendall(text)) as address,
        pytest.raises((RuntimeError, ValueError), match=says),
    ):
        drive(Load(address, (Stream("wrong", (get("/"),), 1, 50.0, "even"),), 0.1))


def test_the_generator_runs_in_a_process_of_its_own() -> None:
    with serving_app(fixed()) as address, generating() as generator:
        (record,) = generator.run(Load(address, (Stream("closed", (get("/"),), 2),), 0.2))
    assert record.count(200) > 2
    assert record.count(200) == len(record.due)


# Answers


@pytest.mark.parametrize(
    ("text", "head"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nDate: now", Head(200, 12, None, False)),
        (b"HTTP/1.1 503 Service Unavailable\r\nretry-after:3\r\ncontent-length:0", Head(503, 0, 3.0, False)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: Close", Head(200, None, None, True)),
        (b"HTTP/1.1 204 No Content", Head(204, 0, None, False)),
    ],
    ids=["length", "refusal", "chunked", "no content"],
)
def test_a_head_says_how_the_body_ends(text: bytes, head: Head) -> None:
    assert parse_head(text) == head


def test_a_chunked_body_is_whole_at_its_end_however_it_is_cut() -> None:
    text = b"5\r\nhello\r\n10;name=value\r\n" + b"\r\n" * 8 + b"\r\n0\r\nTrailer: 1\r\n\r\n"
    for cut in range(1, len(text)):
        chunks = Chunks()
        assert not chunks.feed(text[:cut])
        assert chunks.feed(memoryview(text)[cut:])
        assert chunks.size == 21


# Records


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        (range(1, 101), 99.9, 100),
        ([3.0], 50, 3.0),
        ([1.0, math.inf], 50, 1.0),
        ([1.0, math.inf], 99, math.inf),
    ],
)
def test_percentiles_are_values_that_occurred(values: Sequence[float], percent: float, expected: float) -> None:
    assert percentile(np.array(values, dtype=np.float64), percent) == expected


def test_percentiles_of_nothing_are_nan() -> None:
    assert math.isnan(percentile(np.empty(0), 99))


def test_a_record_counts_by_status_and_from_due_or_sent() -> None:
    record = record_of([0, 1, 2, 3], [0.5, 1, 2, math.inf], [1, 2, 2.25, math.inf], [200, 200, 503, 0])
    assert record.latency().tolist() == [1, 1, math.inf]
    assert record.time_to(503).tolist() == [0.25]
    assert [record.count(status) for status in (200, 503, 0)] == [2, 1, 1]
    assert record.rate() == 0.2
    assert record.rate(warm_up=2.0) == 1 / 8
    assert record.after(1.0).due.tolist() == [1, 2, 3]
    point = point_of(record, 0.5, 0.4, 1.0)
    assert (point.requests, point.failed, point.p50, point.p99) == (3, 2, 1, math.inf)


@pytest.mark.parametrize(
    ("late", "busy", "doubt"),
    [
        (0.001, 0.5, ""),
        (0.2, 0.5, "the generator was 200.00 ms late (p99), of 1000.00 ms"),
        (0.001, 0.95, "the generator was busy 95% of the time"),
    ],
    ids=["good", "late", "busy"],
)
def test_a_record_says_when_its_latency_may_be_the_generators(late: float, busy: float, doubt: str) -> None:
    record = record_of([0], [0.5], [1], [200], late=np.array([late]), busy=busy)
    assert record.doubt == doubt


# Promises


@pytest.mark.parametrize(
    ("row", "kept", "line"),
    [
        (Row("a", 0.7, at_least=0.65, aim=0.75), True, "a       0.7  at least 0.65   aim 0.75   kept"),
        (Row("a", 0.6, at_least=0.65), False, "a       0.6  at least 0.65              MISSED"),
        (Row("a", 4.0, at_most=4), True, "a         4  at most 4                 kept"),
        (Row("a", 4.1, at_most=4), False, "a       4.1  at most 4                 MISSED"),
        (Row("a", math.nan, at_most=4), False, "a   nothing  at most 4                 MISSED"),
        (Row("a", 12345.0), True, "a  1.23e+04"),
    ],
)
def test_a_row_says_whether_its_promise_is_kept(row: Row, kept: bool, line: str) -> None:
    assert row.kept == kept == all_kept([Row("b", 1.0), row])
    assert table([row]).split() == line.split()


def test_rows_are_medians_over_windows_rounds_trials_and_starts() -> None:
    windows = [Window(beside, 0, p99, 0, 0, "") for beside, p99 in [("", 1), ("", 2), ("", 9), ("2,048 ids raw", 6)]]
    both = Mixed({}, (*windows, Window("2,048 ids JSON", 0, 20, 0, 0, "")))
    assert [row.measured for row in mixed.rows(both)] == [3, 10]
    trials = [spread.Trial((6, 4)), spread.Trial((5, 5)), spread.Trial((10, 0))]
    assert [row.measured for row in spread.rows(trials)] == [1.2, 2.0]
    assert [row.measured for row in start.rows(Starts(3.0, (1, 2, 9), (3,), (0.5,)))] == [2, 3, 0.5]
    record = record_of([5], [5], [6], [200])
    points = tuple(point_of(record, share, 1, 0) for share in (0.1, 0.5))
    assert [row.measured for row in latency.rows([Curve("64", 9, points)])] == [1000]


def test_overload_is_judged_by_goodput_refusals_their_hint_and_health() -> None:
    record = record_of([0, 1, 2, 3], [0, 1, 3, 3], [4, 5, 3.25, 3.5], [200, 200, 503, 503], with_retry_after=1)
    probes = record_of([0, 1], [0, 1], [0.5, math.inf], [200, 0])
    trial = overload.trial_of("64", "open loop", 0.5, record, probes)
    assert (trial.goodput, trial.ratio, trial.refused, trial.hinted, trial.failed) == (0.25, 0.5, 0.5, 0.5, 0)
    assert (trial.refusal_p50, trial.refusal_p99, trial.refusal_due_p99) == (0.25, 0.5, 1.25)
    assert (trial.lively, trial.health_p99) == (0.5, math.inf)
    assert [row.measured for row in overload.rows([trial])] == [0.5, 500, 0.5, 0.5]
    assert [row.kept for row in overload.rows([trial])] == [False] * 4


def test_overload_without_a_refusal_keeps_no_promise_about_refusals() -> None:
    record = record_of([0], [0], [3], [200])
    trial = overload.trial_of("64", "open loop", 0.125, record, record)
    goodput, refusal, _, health = overload.rows([trial])
    assert goodput.kept
    assert health.kept
    assert not refusal.kept


# Short forms; the promises are for a quiet machine


@pytest.mark.parametrize(
    ("main", "arguments", "printed"),
    [
        (
            latency.main,
            ["--seconds", "0.3", "--shares", "0.2", "0.5", "--rows", "3000"],
            ["p99.9", "64 ids JSON: peak"],
        ),
        (mixed.main, ["--seconds", "0.3", "--windows", "1", "--rows", "3000"], ["median p99 beside 2,048 ids JSON"]),
        (overload.main, ["--seconds", "0.3", "--rounds", "1", "--rows", "3000", "--max-in-flight", "16"], ["hinted"]),
        (spread.main, ["--trials", "2", "--workers", "2", "--connections", "8", "--rows", "3000"], ["busiest of 2"]),
        (start.main, ["--megabytes", "4", "--starts", "1", "--imports"], ["0.0 GB table", "service.cli"]),
    ],
    ids=["latency", "mixed", "overload", "spread", "start"],
)
def test_each_run_measures_and_prints(
    main: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    printed: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in {0, 1}
    output = capsys.readouterr().out
    assert all(text in output for text in printed)


def test_a_missed_promise_ends_a_run_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        spread.main(["--trials", "1", "--workers", "1", "--connections", "2", "--rows", "100", "--at-most", "0.5"])
    assert ended.value.code == 1
    assert "MISSED" in capsys.readouterr().out
