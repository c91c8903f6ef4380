"""Tables are swapped while a real server with two workers answers, and another one on the same store follows."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from load_tests.running import Running, running, until
from load_tests.swap import MOST_SECONDS, TOKEN, Figures, mapped_versions, measure
from service.backends import BACKENDS
from service.store import TableStore
from service.types import RowArray
from tests.world import publish

ADMIN = {"authorization": f"Bearer {TOKEN}"}
SHAPES = {1: (7, 2), 2: (9, 3), 3: (5, 4), 4: (8, 1)}
QUICK = ("--workers", "2", "--poll-seconds", "0.1")
NEVER = ("--workers", "2", "--poll-seconds", "3600")
_CONNECTIONS = 16
_CLIENT = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=30)  # a connection for each request


def rows_of(version: int) -> RowArray:
    rows, dim = SHAPES[version]
    return np.arange(version * 1000, version * 1000 + rows * dim, dtype=np.float32).reshape(rows, dim)


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """Four versions, of which the first is active."""
    store = TableStore(tmp_path / "store")
    for version in SHAPES:
        publish(store, "words", rows_of(version), activate=version == 1)
    return store


@contextmanager
def serving(store: TableStore, *options: str, **settings: str) -> Iterator[Running]:
    with running(store.root, *options, settings={"ADMIN_TOKEN": TOKEN, **settings}) as server:
        yield server


def change(server: Running, method: str, path: str, body: object = None) -> httpx.Response:
    url = f"{server.url}/v1/admin/tables/words/{path}"
    answer = _CLIENT.request(method, url, json=body, headers=ADMIN)
    assert answer.is_success, answer.text
    return answer


def activate(server: Running, version: int) -> None:
    assert change(server, "POST", "activate", {"version": version}).json()["workers"] == 2


def ask(server: Running, ids: list[int], chosen: str = "") -> httpx.Response:
    return _CLIENT.post(f"{server.url}/v1/tables/words{chosen}/lookup", json={"ids": ids})


def version_of(answer: httpx.Response, ids: list[int]) -> int:
    """The version whose rows or whose size the whole answer shows."""
    said = answer.json()
    version = int(said["version"])
    known = rows_of(version)
    if answer.status_code == 200:
        assert int(answer.headers["embedding-version"]) == version
        assert np.array_equal(np.array(said["vectors"], np.float32), known[ids])
    else:
        assert (answer.status_code, said["code"]) == (422, "out_of_vocabulary")
        beyond = [{"index": [at], "id": asked} for at, asked in enumerate(ids) if asked >= len(known)]
        assert (said["num_embeddings"], said["errors"]) == (len(known), beyond)
        assert beyond
    return version


def versions_everywhere(server: Running, ids: list[int], chosen: str = "") -> set[int]:
    """The versions of the answers of every worker: connections that are open at a time are spread over all."""
    with ExitStack() as stack:
        found = set()
        for _ in range(_CONNECTIONS):
            client = stack.enter_context(httpx.Client(transport=httpx.HTTPTransport(verify=False), trust_env=False))
            answer = client.post(f"{server.url}/v1/tables/words{chosen}/lookup", json={"ids": ids})
            found.add(version_of(answer, ids))
        return found


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[list[object]]:
    """Does something over and over in two threads; what it gives is in the list. Raises what it raises."""
    done, results = Event(), list[object]()

    def work_until_done() -> None:
        while not done.is_set():
            results.append(work())

    with ThreadPoolExecutor(2) as threads:
        working = [threads.submit(work_until_done) for _ in range(2)]
        try:
            yield results
        finally:
            done.set()
        for each in working:
            each.result(timeout=30)


def until_longer(results: list[object]) -> None:
    """Until there is one more."""
    so_far = len(results)
    until(lambda: len(results) > so_far)


def until_mapped(server: Running, store: TableStore, *versions: int) -> None:
    """Until these versions, and no others, are mapped in both workers; raises TimeoutError if it takes too long."""
    folders = {f"words/{version}" for version in versions}
    until(lambda: mapped(server, store) == [folders] * 2, MOST_SECONDS)


def mapped(server: Running, store: TableStore) -> list[set[str]]:
    """The folders of versions that each worker has mapped, as `words/3`."""
    return [mapped_versions(pid, store.root) for pid in server.workers()]


def map_lines(server: Running, version: int) -> set[str]:
    """Where every worker has mapped the rows of a version."""
    name = f"/words/{version}/vectors.npy"
    return {
        f"{pid} {line}"
        for pid in server.workers()
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if line.endswith(name)
    }


# The short form of `make swap`


@pytest.fixture(scope="module", params=BACKENDS)
def figures(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Figures:
    return measure(tmp_path_factory.mktemp("swap"), swaps=40, connections=16, workers=2, backend=request.param)


def test_swaps_are_not_noticed_but_by_the_version(figures: Figures) -> None:
    tally = figures.tally
    assert (tally.failed, tally.mixed, tally.old, tally.examples) == (0, 0, 0, [])
    assert min(tally.binary, tally.together, tally.out_of_vocabulary) > 100
    assert (len(figures.seconds), figures.pairs) == (40, 20)
    assert figures.rollbacks > 0


def test_swaps_leave_nothing_behind(figures: Figures) -> None:
    assert figures.broken() == []
    assert figures.after.files == figures.before.files
    assert figures.unmapped <= MOST_SECONDS


# What a client sees


@pytest.mark.parametrize(
    ("other", "ids"), [(2, [0, 8]), (3, [0, 6])], ids=["valid in the new version only", "valid in the old one only"]
)
def test_ids_of_one_version_get_its_vectors_or_its_error(store: TableStore, other: int, ids: list[int]) -> None:
    with serving(store, *QUICK) as server:
        with meanwhile(lambda: version_of(ask(server, ids), ids)) as seen:
            for version in (other, 1) * 5:
                activate(server, version)
                assert versions_everywhere(server, ids) == {version}
        assert set(seen) == {1, other}


@pytest.mark.parametrize("keep_loaded", ["0", "2"])
def test_a_chosen_version_is_served_while_others_are_swapped(store: TableStore, keep_loaded: str) -> None:
    store.set_label("words", "stable", 4)
    chosen = cycle(["/versions/4", "/labels/stable"])
    with serving(store, *QUICK, KEEP_LOADED=keep_loaded) as server:
        with meanwhile(lambda: version_of(ask(server, [7], next(chosen)), [7])) as seen:
            for version in (2, 3, 4, 1, 4, 2):
                activate(server, version)
                until_longer(seen)
        assert set(seen) == {4}


def test_a_label_that_was_moved_names_its_new_version_at_once(store: TableStore) -> None:
    with serving(store, *NEVER) as server:
        for version in (3, 1, 2, 3):
            change(server, "PUT", "labels/stable", {"version": version})
            assert versions_everywhere(server, [0], "/labels/stable") == {version}
            assert versions_everywhere(server, [0]) == {1}


# What stays open


def test_a_replaced_version_is_unmapped_at_once(store: TableStore) -> None:
    with serving(store, *NEVER) as server:
        for version in (2, 3, 1):
            activate(server, version)
            assert versions_everywhere(server, [0]) == {version}
            until_mapped(server, store, version)


def test_a_version_that_was_asked_for_is_unmapped_at_once(store: TableStore) -> None:
    with serving(store, *NEVER) as server:
        for chosen in (2, 3, 2):
            assert versions_everywhere(server, [0], f"/versions/{chosen}") == {chosen}
            until_mapped(server, store, 1)


def test_versions_that_are_kept_are_not_mapped_anew(store: TableStore) -> None:
    with serving(store, *NEVER, KEEP_LOADED="2") as server:
        before = map_lines(server, 1)
        assert len(before) == 2
        activate(server, 2)
        activate(server, 3)
        until_mapped(server, store, 1, 2, 3)
        assert versions_everywhere(server, [0], "/versions/1") == {1}
        assert map_lines(server, 1) == before
        activate(server, 4)  # now 2 is the one unused for longest
        until_mapped(server, store, 1, 3, 4)
        assert versions_everywhere(server, [0], "/versions/1") == {1}
        assert map_lines(server, 1) == before


def test_a_kept_version_that_is_active_again_is_mapped_once(store: TableStore) -> None:
    with serving(store, *NEVER, KEEP_LOADED="2") as server:
        for version in (2, 1, 2, 1):
            activate(server, version)
            until(lambda: len(map_lines(server, 1)) == len(map_lines(server, 2)) == 2, MOST_SECONDS)
        activate(server, 3)  # the two older ones stay
        until_mapped(server, store, 1, 2, 3)


BODY = b'{"ids":[4]}'


def half_a_request(server: Running) -> socket.socket:
    """A connection whose request is under way in a worker, which waits for the rest of the body."""
    address = urlsplit(server.url)
    connection = socket.create_connection((str(address.hostname), address.port or 0), timeout=10)
    head = f"POST /v1/tables/words/lookup HTTP/1.1\r\nHost: swap\r\nContent-Length: {len(BODY)}\r\n"
    connection.sendall(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # sent when the worker begins to read the body
    connection.sendall(BODY[:5])
    return connection


def answer_of(connection: socket.socket) -> bytes:
    answer = b""
    while part := connection.recv(1 << 16):
        answer += part
    return answer


def test_a_body_that_is_half_sent_holds_no_version(store: TableStore) -> None:
    with serving(store, *NEVER) as server:
        waiting = [half_a_request(server) for _ in range(_CONNECTIONS)]
        activate(server, 2)
        until_mapped(server, store, 2)
        for connection in waiting:
            connection.sendall(BODY[5:])
            answer = answer_of(connection)
            connection.close()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nembedding-version: 2\r\n" in answer


# Another server on the same store

POLL_SECONDS = 1.0
FOLLOWING = ("--workers", "2", "--poll-seconds", str(POLL_SECONDS))
SLACK = 10.0  # seconds for opening the version, and for asking until it is seen


def seconds_until_served(server: Running, version: int) -> float:
    started = time.monotonic()
    until(lambda: versions_everywhere(server, [0]) == {version})
    return time.monotonic() - started


@contextmanager
def stopped(server: Running) -> Iterator[None]:
    """None of its workers looks at the store."""
    workers = server.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


def test_another_server_follows_within_one_look(store: TableStore) -> None:
    with serving(store, *QUICK) as first, serving(store, *FOLLOWING) as second:
        for version in (2, 3, 1):
            activate(first, version)
            assert versions_everywhere(first, [0]) == {version}
            assert seconds_until_served(second, version) < POLL_SECONDS + SLACK
        for version in (4, 2):
            change(first, "PUT", "labels/stable", {"version": version})
            assert versions_everywhere(second, [0], "/labels/stable") == {version}


def test_another_server_follows_contents_and_not_times(store: TableStore) -> None:
    folder = store.root / "words"
    with serving(store, *FOLLOWING) as second:
        for version in (2, 3):
            before = {path: path.stat() for path in (store.root, folder, folder / "CURRENT", folder / "history.jsonl")}
            with stopped(second):
                store.activate("words", version)
                store.set_label("words", "stable", version)
                for path, stat in before.items():
                    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
                assert (folder / "CURRENT").stat().st_mtime_ns == before[folder / "CURRENT"].st_mtime_ns
            assert seconds_until_served(second, version) < POLL_SECONDS + SLACK
            assert versions_everywhere(second, [0], "/labels/stable") == {version}


def test_a_version_that_another_server_deletes_is_served_on(store: TableStore) -> None:
    with serving(store, *QUICK, DELETE_GRACE_SECONDS="0") as first, serving(store, *NEVER) as late:
        activate(first, 2)
        change(first, "DELETE", "versions/1")
        until(lambda: not list(store.root.glob("words/.deleted-*")) and not (store.root / "words" / "1").exists())
        assert versions_everywhere(late, [6]) == {1}
        assert [len(folders) for folders in mapped(late, store)] == [1, 1]


def test_a_server_follows_past_a_deleted_version(store: TableStore) -> None:
    with serving(store, *QUICK, DELETE_GRACE_SECONDS="0") as first, serving(store, *FOLLOWING) as second:
        with stopped(second):
            activate(first, 3)
            activate(first, 2)
            change(first, "DELETE", "versions/1")
            change(first, "DELETE", "versions/3")
        assert seconds_until_served(second, 2) < POLL_SECONDS + SLACK
        until_mapped(second, store, 2)
