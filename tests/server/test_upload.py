"""Uploads through a real worker and the steward: nothing stays of what fails, memory does not grow with the file."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from load_tests.running import Running, running, until
from load_tests.upload_memory import measure
from service.store import TableStore
from service.types import TableVersion
from tests.api.wire import npy
from tests.test_durable import contents, fill, small_disk
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

VERSIONS: Final = "/v1/admin/tables/words/versions"
OPTIONS: Final = ("--workers", "2", "--poll-seconds", "600", "--delete-grace-seconds", "0")
GOOD: Final = npy(KERAS_ROWS * 3)


@contextmanager
def uploading(root: Path, *options: str) -> Iterator[tuple[Running, httpx.Client]]:
    with (
        running(root, *OPTIONS, *options, settings={"ADMIN_TOKEN": "secret"}) as server,
        httpx.Client(base_url=server.url, headers={"authorization": "Bearer secret"}, timeout=60) as client,
    ):
        yield server, client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store in which `words` has the version 1, which is active."""
    publish(TableStore(tmp_path / "store"), "words", KERAS_ROWS, KERAS_TOKENS)
    return tmp_path / "store"


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared") / "store"
    publish(TableStore(root), "words", KERAS_ROWS, KERAS_TOKENS)
    return root


@pytest.fixture(scope="module")
def shared(shared_root: Path) -> Iterator[httpx.Client]:
    with uploading(shared_root, "--max-upload-bytes", "2000000") as (_, client):
        yield client


def ok(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    content: dict[str, Any] = answer.json()
    return content


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def served(client: httpx.Client, connections: int = 8) -> set[str]:
    """The versions that lookups get over so many fresh connections."""
    url = client.base_url.join("/v1/tables/words/lookup")
    with httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as fresh:
        return {fresh.post(url, json={"ids": [0]}).headers["embedding-version"] for _ in range(connections)}


def staging(root: Path) -> list[Path]:
    return list(root.glob("*/.staging*"))


def begun(client: httpx.Client, head: str, body: bytes) -> socket.socket:
    """A connection on which an upload has begun."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30)
    start = f"POST {VERSIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n{head}\r\n\r\n"
    connection.sendall(start.encode() + body)
    return connection


def test_an_upload_is_published_and_served_by_every_worker(root: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "table.npy").write_bytes(npy(KERAS_ROWS * 2))
    with uploading(root, "--import-folder", str(tmp_path / "allowed")) as (_, client):
        pieces = (GOOD[first : first + 10] for first in range(0, len(GOOD), 10))
        answer = client.post(VERSIONS, content=pieces, params={"activate": "true", "note": "ä b&c"})
        assert ok(answer, 201) == {"table": "words", "version": 2, "active": True}
        assert answer.headers["location"] == "/v1/tables/words/versions/2"
        assert served(client) == {"2"}
        answer = client.post(VERSIONS, json={"source": "table.npy"})
        assert ok(answer, 201) == {"table": "words", "version": 3, "active": False}
        assert problem(client.post(VERSIONS, json={"source": "../store/words/1/vectors.npy"})) == (403, "forbidden")
        assert served(client) == {"2"}
        versions = ok(client.get("/v1/admin/tables/words"))["versions"]
        assert [version["source"].get("note") for version in versions] == [None, "ä b&c", None]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 1000", b"x" * 500),
        ("Content-Length: 3000000000", b""),
        ("Transfer-Encoding: chunked", b"1f4\r\n" + b"x" * 500 + b"\r\n"),
    ],
    ids=["500 of 1000 bytes", "none of 3 GB", "one chunk"],
)
def test_a_client_that_disconnects_leaves_nothing(root: Path, head: str, body: bytes) -> None:
    before = contents(root)
    with uploading(root) as (_, client):
        with begun(client, head, body):
            until(lambda: staging(root))
        until(lambda: not staging(root))
        assert served(client) == {"1"}
        assert contents(root) == before
        assert ok(client.post(VERSIONS, content=GOOD), 201)["version"] == 2


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_beyond_the_limit_is_refused(shared_root: Path, shared: httpx.Client, chunked: bool) -> None:
    body = npy(np.zeros((1 << 18, 2), np.float32))
    content = (body[first : first + 65536] for first in range(0, len(body), 65536)) if chunked else body
    answer = shared.post(VERSIONS, content=content)
    assert (problem(answer), answer.json()["limit"]) == ((413, "request_too_large"), "EMBEDDING_MAX_UPLOAD_BYTES")
    until(lambda: not staging(shared_root))  # of what was passed on already
    assert served(shared) == {"1"}


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"content-encoding": "gzip"}, GOOD, 415, "unsupported_media_type"),
        ({"content-digest": "sha-256=:AAAA:"}, GOOD, 422, "invalid_request"),
        ({"content-digest": "md5=:AAAA:"}, GOOD, 422, "invalid_request"),
        ({}, GOOD[:-1], 422, "invalid_request"),
        ({}, b"", 422, "invalid_request"),
        ({"authorization": "Bearer x"}, GOOD, 401, "unauthorized"),
    ],
)
def test_what_is_refused_comes_through_as_it_is(
    shared_root: Path, shared: httpx.Client, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    before = contents(shared_root)
    answer = shared.post(VERSIONS, content=content, headers=headers)
    assert problem(answer) == (status, code)
    assert str(shared_root.parent) not in answer.text
    assert (contents(shared_root), staging(shared_root)) == (before, [])


def test_uploads_at_once_become_versions_of_their_own(root: Path) -> None:
    with uploading(root) as (_, client), ThreadPoolExecutor(6) as pool:
        factors = range(2, 14)
        answers = list(pool.map(lambda factor: client.post(VERSIONS, content=npy(KERAS_ROWS * factor)), factors))
        versions = [ok(answer, 201)["version"] for answer in answers]
        assert sorted(versions) == list(range(2, 14))
        for factor, version in zip(factors, versions, strict=True):
            asked = client.post(f"/v1/tables/words/versions/{version}/lookup", json={"ids": [0]})
            np.testing.assert_array_equal(np.float32(asked.json()["vectors"]), KERAS_ROWS[:1] * factor)
        assert served(client) == {"1"}


@pytest.mark.parametrize("activate", [False, True])
def test_a_disk_that_fills_up_is_answered_and_nothing_stays(tmp_path: Path, activate: bool) -> None:
    body = npy(np.ones((3000, 2), np.float32))  # 6 pages, and 6 as rows, and a few small files
    answered: list[int] = []
    with small_disk(tmp_path / "disk", pages=96) as root:
        store = TableStore(root)
        publish(store, "words", KERAS_ROWS)
        with uploading(root) as (server, client):
            for free in range(24):
                fill(root, free)
                before = contents(root)
                answer = client.post(VERSIONS, content=body, params={"activate": activate})
                answered.append(answer.status_code)
                assert not staging(root)
                if answer.status_code == 507:
                    assert "full" in answer.json()["detail"]
                    assert str(root) not in answer.text
                    assert served(client, 2) == {"1"}
                    assert contents(root) == before or activate
                else:
                    assert ok(answer, 201)["active"] is activate
                    assert served(client, 2) == {str(answer.json()["version"]) if activate else "1"}
                (root / "filler").unlink()
                ok(client.post("/v1/admin/tables/words/activate", json={"version": 1}))
                for version in store.versions("words")[1:]:  # there is no room to take one back on a full disk
                    store.verify(TableVersion("words", version))
                    assert client.delete(f"{VERSIONS}/{version}").status_code == 204
            assert server.stop() == 0
    assert (answered[0], answered[-1]) == (507, 201)


def test_a_version_that_cannot_be_activated_is_taken_back(root: Path) -> None:
    with uploading(root, "--prepare-seconds", "1", "--admin-port", "0") as (server, public):
        address = server.log.read_text().rpartition("the admin API is at ")[2].split()[0]
        with httpx.Client(base_url=address, headers=public.headers, timeout=60) as client:
            stopped = server.workers()[0]
            os.kill(stopped, signal.SIGSTOP)
            answer = client.post(VERSIONS, content=GOOD, params={"activate": "true"})
            assert problem(answer) == (504, "timeout")
            os.kill(stopped, signal.SIGCONT)
            assert served(public) == {"1"}
            assert (TableStore(root).versions("words"), staging(root)) == ([1], [])
            assert ok(client.post(VERSIONS, content=GOOD, params={"activate": "true"}), 201)["active"]
            assert len(served(public)) == 1


def test_what_a_killed_steward_had_received_is_swept(root: Path) -> None:
    with uploading(root) as (server, client):
        with begun(client, "Content-Length: 3000000", b"x" * 2_000_000) as connection:
            until(lambda: [path for path in root.glob("*/.staging*/received") if path.stat().st_size])
            os.kill(server.steward(), signal.SIGKILL)
            connection.sendall(b"x" * 1_000_000)
            assert connection.recv(65536).startswith(b"HTTP/1.1 500 ")
        assert served(client) == {"1"}
        until(lambda: not staging(root))  # by the steward that took its place
        assert ok(client.post(VERSIONS, content=GOOD), 201)["version"] == 2


def test_a_stop_waits_for_no_upload_and_leaves_nothing_in_force(root: Path) -> None:
    half = b"x" * 2_000_000
    with uploading(root, "--drain-seconds", "1") as (server, client), begun(client, "Content-Length: 3000000", half):
        until(lambda: staging(root))
        assert server.stop() == 0
    assert TableStore(root).versions("words") == [1]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    figures = measure(tmp_path, megabytes=96)
    assert figures.sent > 96e6 - 1024
    # Pieces of 1 MB on their way, and a block of rows: 32 MB are far less than the file.
    assert max(figures.growth.values()) < 32e6, figures
