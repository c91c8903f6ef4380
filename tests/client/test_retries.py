"""What the client tries again, for how long, and what it never sends twice; on real sockets and real servers."""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import numpy as np
import pytest

from load_tests.bench.processes import free_port
from load_tests.running import Running, running, until
from service.client import (
    AsyncClient,
    Client,
    ConnectionFault,
    ConnectionTimeout,
    NotReady,
    Overloaded,
    Retries,
    TableNotFound,
    UnexpectedAnswer,
)
from service.client.retries import Patience, retry_after
from service.store import TableStore
from tests.client.both import QUICK, Kind, opened
from tests.client.scripted import CLOSE, RESET, SILENCE, TRICKLE, Late, answer, info, problem, scripted, vectors
from tests.world import publish

ROWS = np.random.default_rng(3).normal(size=(500, 4)).astype(np.float32)
FINE = vectors(ROWS[[1]])
NOT_NOW = problem("overloaded", 503, retry_after="0")
NEVER_WAITING = Retries(deadline=60.0, first_pause=200.0, longest_pause=200.0)
"""Every pause is beyond the deadline, so that it is an error."""
LONG = Retries(deadline=60.0, first_pause=0.005, longest_pause=0.2)


@pytest.mark.parametrize(
    "failure",
    [
        NOT_NOW,
        problem("not_ready", 503, retry_after="0"),
        answer(503, b"<html>no server</html>"),
        answer(502, b"<html>bad gateway</html>"),
        answer(504),
        RESET,
        CLOSE,
    ],
    ids=["overloaded", "not ready", "503 of a proxy", "502", "504", "reset", "closed"],
)
def test_a_lookup_is_tried_again(kind: Kind, failure: bytes) -> None:
    with scripted(failure, failure, FINE, info()) as server, opened(kind, server.url) as client:
        assert client.lookup("words", [1]).vectors.tobytes() == ROWS[[1]].tobytes()
        assert len(server.requests) == 4


@pytest.mark.parametrize("stuck", [SILENCE, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"], ids=["none", "half"])
def test_an_answer_that_does_not_come_is_asked_for_again(kind: Kind, stuck: bytes) -> None:
    with scripted(stuck, FINE, info()) as server, opened(kind, server.url, timeout=0.7) as client:
        assert client.lookup("words", [1]).version == 1


def test_a_connection_that_was_kept_and_closed_is_made_anew_at_once(kind: Kind) -> None:
    with (
        scripted(FINE, info(), CLOSE, FINE, info()) as server,
        opened(kind, server.url, retries=NEVER_WAITING) as client,
    ):
        client.lookup("words", [1])
        client.lookup("words", [1])


def test_retry_after_is_waited_for() -> None:
    patience = Patience(Retries(deadline=60.0), repeatable=True)
    refusal = Overloaded("busy", 503)
    refusal.retry_after = 7.0
    assert patience.after_answer(refusal, elsewhere=False) == 7.0
    assert patience.after_answer(refusal, elsewhere=True) == 0.0
    refusal.retry_after = 0.0
    assert 0.0 < (patience.after_answer(refusal, elsewhere=False) or 0.0) < 1.0


@pytest.mark.parametrize(("code", "kind_of"), [("overloaded", Overloaded), ("not_ready", NotReady)])
def test_a_wait_beyond_the_deadline_is_not_begun(kind: Kind, code: str, kind_of: type[Exception]) -> None:
    with scripted(problem(code, 503, retry_after="3600")) as server, opened(kind, server.url) as client:
        with pytest.raises(kind_of) as refused:
            client.lookup("words", [1])
        assert len(server.requests) == 1
        assert refused.value.retry_after == 3600.0  # type: ignore[attr-defined]


def test_the_deadline_ends_the_tries(kind: Kind) -> None:
    brief = Retries(deadline=0.5, first_pause=0.01, longest_pause=0.05)
    with scripted(NOT_NOW) as server, opened(kind, server.url, retries=brief) as client, pytest.raises(Overloaded):
        client.lookup("words", [1])


def test_no_try_begins_after_the_deadline() -> None:
    now = [0.0]
    patience = Patience(Retries(deadline=10.0), repeatable=True, clock=lambda: now[0])
    for now[0] in (0.0, 5.0, 8.9):
        assert patience.after_fault(httpx.ConnectError("no"), elsewhere=False) is not None
    assert patience.tries == 4
    for now[0] in (9.999, 10.0, 11.0):
        assert patience.after_fault(httpx.ConnectError("no"), elsewhere=False) is None
    assert patience.after_fault(httpx.ConnectError("no"), elsewhere=True) is None
    assert patience.tries == 4


def test_a_refusal_is_told_rather_than_that_the_last_try_was_late(kind: Kind) -> None:
    brief = Retries(deadline=1.0, first_pause=0.01, longest_pause=0.05)
    with scripted(NOT_NOW, SILENCE) as server, opened(kind, server.url, retries=brief) as client:
        with pytest.raises(Overloaded):
            client.lookup("words", [1])
        assert len(server.requests) == 2


@pytest.mark.parametrize("stuck", [Late.after(20.0, FINE), TRICKLE], ids=["late", "in dribs"])
def test_the_deadline_ends_the_wait_for_an_answer(kind: Kind, stuck: bytes) -> None:
    """It comes in the end, and nothing but the deadline says that this is too late."""
    brief = Retries(deadline=1.0, first_pause=0.01, longest_pause=0.05)
    with scripted(stuck) as server, opened(kind, server.url, retries=brief, timeout=60.0) as client:
        with pytest.raises(ConnectionTimeout):
            client.lookup("words", [1], pooling="sum")
        assert len(server.requests) == 1


def test_the_deadline_ends_the_wait_for_a_free_connection() -> None:
    """Each that gets free may be taken by another one. Two connections have ten answers in the time, not forty."""
    two = httpx.Limits(max_connections=2)

    async def all_found(url: str) -> list[object]:
        async with AsyncClient(url, retries=Retries(deadline=1.0), timeout=60.0, connections=two) as client:
            asked = (client.tables() for _ in range(40))
            return list(await asyncio.gather(*asked, return_exceptions=True))

    with scripted(Late.after(0.2, answer(200, b'{"tables":[]}'))) as server:
        found = asyncio.run(all_found(server.url))
    assert {type(each) for each in found} <= {list, ConnectionTimeout}
    assert [type(each) for each in found].count(list) <= 12


def test_without_retries_there_is_one_try(kind: Kind) -> None:
    for failure in (NOT_NOW, RESET):
        with scripted(failure) as server, opened(kind, server.url, retries=None) as client:
            with pytest.raises((Overloaded, ConnectionFault)):
                client.lookup("words", [1])
            assert len(server.requests) == 1


def test_what_is_wrong_is_not_tried_again(kind: Kind) -> None:
    with scripted(problem("table_not_found", 404)) as server, opened(kind, server.url) as client:
        with pytest.raises(TableNotFound):
            client.lookup("words", [1])
        assert len(server.requests) == 1


@pytest.mark.parametrize("failure", [RESET, CLOSE, SILENCE, answer(502), answer(504)])
def test_a_change_that_may_have_been_made_is_not_sent_again(kind: Kind, failure: bytes) -> None:
    with scripted(failure) as server, opened(kind, server.url, admin_timeout=0.2, token="secret") as client:
        changes: list[tuple[str, list[object]]] = [
            ("activate", [2]),
            ("rollback", []),
            ("publish", [ROWS]),
            ("delete_version", [2]),
            ("delete_label", ["new"]),
        ]
        for number, (verb, arguments) in enumerate(changes):
            with pytest.raises((ConnectionFault, UnexpectedAnswer)):
                getattr(client, verb)("words", *arguments)
            assert len(server.requests) == number + 1


def test_a_change_that_was_refused_unread_is_sent_again(kind: Kind) -> None:
    done = answer(200, b'{"table":"words","previous_version":1,"active_version":2,"workers":1,"seconds":0.1}')
    with scripted(NOT_NOW, done) as server, opened(kind, server.url, token="secret") as client:
        assert client.activate("words", 2).active_version == 2


def test_what_only_reads_and_what_may_be_repeated_is_sent_again(kind: Kind) -> None:
    label = answer(200, b'{"table":"words","label":"stable","version":2}')
    tables = answer(200, b'{"tables":[]}')
    with scripted(RESET, label, RESET, tables) as server, opened(kind, server.url, token="secret") as client:
        assert client.label("words", "stable", 2).version == 2
        assert client.admin_tables() == []


def test_what_httpx_cannot_send_is_said_at_once(kind: Kind) -> None:
    with scripted(FINE) as server, opened(kind, server.url, headers={"X-Team": "two\nlines"}) as client:
        with pytest.raises(ConnectionFault) as refused:
            client.lookup("words", [1])
        assert type(refused.value.__cause__).__name__ == "LocalProtocolError"
        assert server.requests == []


def test_a_change_waits_for_a_server_that_is_not_there_yet(kind: Kind) -> None:
    port = free_port()
    done = answer(200, b'{"table":"words","previous_version":1,"active_version":2,"workers":1,"seconds":0.1}')
    refused = threading.Event()

    def later() -> int:
        refused.wait(60)
        with scripted(done, port=port) as server:
            return until(lambda: len(server.requests))

    with ThreadPoolExecutor() as pool, opened(kind, f"http://127.0.0.1:{port}", token="secret") as client:
        answered = pool.submit(later)
        with pytest.raises(ConnectionFault), opened(kind, f"http://127.0.0.1:{port}", retries=None) as other:
            other.tables()
        refused.set()
        assert client.activate("words", 2).active_version == 2
        assert answered.result() == 1


@pytest.mark.parametrize(("seconds", "low", "high"), [(60, 50, 60), (-60, 0, 0)])
def test_retry_after_may_be_a_date(seconds: int, low: float, high: float) -> None:
    date = datetime.now(UTC) + timedelta(seconds=seconds)
    found = retry_after({"retry-after": format_datetime(date, usegmt=True)})
    assert found is not None
    assert low <= found <= high


def test_retry_after_that_says_nothing() -> None:
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "\u00b2"}) is None
    assert retry_after({"retry-after": " 7 "}) == 7.0


# Several addresses


def test_the_next_address_is_asked_where_one_does_not_answer(kind: Kind) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with scripted(FINE, info(), FINE) as server, opened(kind, [nobody, server.url], retries=NEVER_WAITING) as client:
        client.lookup("words", [1])
        client.lookup("words", [1])
        assert len(server.requests) == 3


def test_the_next_address_is_asked_where_one_is_overloaded(kind: Kind) -> None:
    with (
        scripted(problem("overloaded", 503, retry_after="3600")) as full,
        scripted(FINE, info()) as free,
        opened(kind, [full.url, free.url]) as client,
    ):
        client.lookup("words", [1])
        assert (len(full.requests), len(free.requests)) == (1, 2)


def test_a_probe_asks_the_next_address_where_one_does_not_answer(kind: Kind) -> None:
    nobody = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    said = [answer(200, b'{"status":"ready","missing":[]}'), answer(200)]
    with scripted(*said) as server, opened(kind, [*nobody, server.url]) as client:
        assert client.ready()
    with scripted(answer(200)) as server, opened(kind, [*nobody, server.url]) as client:
        assert client.live() is True
    with opened(kind, nobody) as client:
        assert client.live() is False
        with pytest.raises(ConnectionFault):
            client.ready()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_that_is_not_trusted_is_not_tried_again(
    kind: Kind, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run(made, check=True, capture_output=True)
    with running(store, "--tls-certificate", str(certificate), "--tls-key", str(key)) as server:
        untrusted = server.url.replace("http://", "https://")
        with opened(kind, untrusted) as client, pytest.raises(ConnectionFault, match="certificate") as refused:
            client.lookup("words", [1])
        assert " tries" not in str(refused.value)
        with scripted(FINE, info()) as other, opened(kind, [untrusted, other.url]) as client:
            assert client.lookup("words", [1]).version == 1


def test_the_admin_api_may_have_an_address_of_its_own(kind: Kind) -> None:
    with (
        scripted(answer(200, b'{"tables":[]}')) as lookups,
        scripted(answer(200, b'{"tables":[]}')) as admin,
        opened(kind, lookups.url, admin_url=admin.url, token="secret") as client,
    ):
        client.tables()
        client.admin_tables()
        assert (lookups.lines(), admin.lines()) == (["GET /v1/tables"], ["GET /v1/admin/tables"])


# Servers that end and begin


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish(TableStore(tmp_path), "words", ROWS)
    return tmp_path


@contextmanager
def listening_at(port: int, store: Path) -> Iterator[Running]:
    with running(store, "--port", str(port), "--workers", "2") as server:
        yield server


class Looking:
    """Threads with one client, and tasks with another, that look up all the time until they are told to stop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.done = 0

    def block(self) -> None:
        with Client(self._url, retries=LONG) as client, ThreadPoolExecutor(4) as pool:
            for asked in [pool.submit(self._block, client, seed) for seed in range(4)]:
                asked.result()

    def _block(self, client: Client, seed: int) -> None:
        draw = np.random.default_rng(seed)
        while not self._stop.is_set():
            ids = draw.integers(0, len(ROWS), 16)
            assert client.lookup("words", ids).vectors.tobytes() == ROWS[ids].tobytes()
            self.done += 1

    def wait(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        async with AsyncClient(self._url, retries=LONG) as client, asyncio.TaskGroup() as tasks:
            for seed in range(4):
                tasks.create_task(self._await(client, seed))

    async def _await(self, client: AsyncClient, seed: int) -> None:
        draw = np.random.default_rng(seed)
        while not self._stop.is_set():
            ids = draw.integers(0, len(ROWS), 16)
            assert (await client.lookup("words", ids)).vectors.tobytes() == ROWS[ids].tobytes()
            self.done += 1

    def more(self) -> None:
        """Waits until lookups have been answered that began after this."""
        before = self.done
        until(lambda: self.done > before + 50, 60)

    def stop(self) -> None:
        self._stop.set()


def test_nobody_notices_that_servers_and_workers_are_replaced(store: Path) -> None:
    port = free_port()
    looking = Looking(f"http://127.0.0.1:{port}")
    with ThreadPoolExecutor() as pool, listening_at(port, store) as server:
        asked = [pool.submit(looking.block), pool.submit(looking.wait)]
        try:
            looking.more()
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
                looking.more()
            assert server.stop() == 0
            for _ in range(2):
                with listening_at(port, store):
                    looking.more()
            with listening_at(port, store):
                looking.more()
                looking.stop()
                for each in asked:
                    each.result(60)
        finally:
            looking.stop()
    assert looking.done > 300


def test_a_client_may_be_used_by_many_threads(store: Path) -> None:
    with running(store) as server, Client(server.url, retries=QUICK) as client, ThreadPoolExecutor(16) as pool:

        def look(seed: int) -> bool:
            ids = np.random.default_rng(seed).integers(0, len(ROWS), (seed % 7 + 1, 3))
            found = client.lookup("words", ids)
            return found.vectors.tobytes() == ROWS[ids].tobytes() and found.vectors.shape == (*ids.shape, 4)

        assert all(pool.map(look, range(400)))
