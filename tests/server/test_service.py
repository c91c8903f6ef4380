"""The whole service as its users run it: real processes, real signals."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

LOOKUP = "/v1/tables/words/lookup"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS, padding_id=0)
    return store


@pytest.fixture
def server(store: TableStore) -> Iterator[Running]:
    with running(store.root, "--workers", "2", "--poll-seconds", "0.05") as server:
        yield server


def ask(server: Running, ids: object) -> httpx.Response:
    return httpx.post(server.url + LOOKUP, json={"ids": ids})


def test_a_killed_worker_is_replaced_and_its_queue_is_answered(server: Running) -> None:
    before = server.workers()
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    # Connections wait in a queue that both have in common; both were without a process a moment ago.
    answers = [ask(server, [5]) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    after = until(lambda: workers if len(workers := server.workers()) == 2 else None)
    assert not set(before) & set(after)


def test_counters_add_up_over_workers_and_their_deaths(server: Running) -> None:
    for _ in range(30):
        assert ask(server, [1, 2]).status_code == 200
    os.kill(server.workers()[0], signal.SIGKILL)
    for _ in range(30):
        assert ask(server, [[1], [2, 3]]).status_code == 200
    assert ask(server, [7]).status_code == 422
    text = httpx.get(server.url + "/metrics").text
    assert 'embedding_requests_total{code="200",endpoint="lookup",table="words",version="1"} 60.0' in text
    assert 'embedding_requests_total{code="422",endpoint="lookup",table="words",version="1"} 1.0' in text
    assert 'embedding_ids_total{table="words"} 150.0' in text


def test_a_stop_finishes_the_request_in_flight(server: Running) -> None:
    body = b'{"ids":[5,1]}'
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), address.port or 0)) as connection:
        head = f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body[:4])
        # The head has certainly arrived once the same worker or the other has answered somebody behind it.
        for _ in range(20):
            ask(server, [5])
        server.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(server.url))
        connection.sendall(body[4:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"vectors":[[0.7,1.7],[0.1,4.2]]' in answer
    assert server.process.wait(30) == 0


def _refuses(url: str) -> bool:
    try:
        httpx.get(url + "/health/live", timeout=1)
    except httpx.TransportError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stop_leaves_no_process(server: Running, number: signal.Signals) -> None:
    workers = server.workers()
    assert server.stop(number) == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_workers_end_when_the_supervisor_is_killed(server: Running) -> None:
    workers = server.workers()
    server.stop(signal.SIGKILL)
    until(lambda: not [pid for pid in workers if Path(f"/proc/{pid}").exists()])


def test_a_new_activation_reaches_every_worker(server: Running, store: TableStore) -> None:
    assert ask(server, [0]).headers["embedding-version"] == "1"
    publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS)

    def all_follow() -> bool:
        found = Counter(ask(server, [0]).headers["embedding-version"] for _ in range(32))
        return found == {"2": 32}

    until(all_follow)
    vectors = np.array(ask(server, [5]).json()["vectors"], dtype=np.float32)
    assert vectors.tobytes() == (KERAS_ROWS * 2)[[5]].tobytes()


def test_a_new_table_is_served_without_a_restart(server: Running, store: TableStore) -> None:
    url = f"{server.url}/v1/tables/late/lookup"
    assert httpx.post(url, json={"ids": [0]}).json()["code"] == "table_not_found"
    publish(store, "late", [[1.0]])
    until(lambda: {httpx.post(url, json={"ids": [0]}).status_code for _ in range(16)} == {200})


def test_a_damaged_table_is_unavailable_and_the_others_serve(store: TableStore) -> None:
    version = publish(store, "broken", KERAS_ROWS)
    vectors = store.version(version).vectors
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with running(store.root) as server:
        assert ask(server, [5]).status_code == 200
        refused = httpx.post(f"{server.url}/v1/tables/broken/lookup", json={"ids": [0]})
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert "vectors.npy has 183 bytes" in refused.json()["reason"]
        info = httpx.get(f"{server.url}/v1/tables/broken").json()
        assert info["state"] == "UNAVAILABLE"
        ready = httpx.get(server.url + "/health/ready")
        assert ready.status_code == 503
        assert [missing["table"] for missing in ready.json()["missing"]] == ["broken"]


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
def test_an_offer_of_http2_is_ignored_and_the_body_is_read(server: Running, name: str) -> None:
    headers = {"Connection": f"{name}, HTTP2-Settings", name: "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    answer = httpx.post(server.url + LOOKUP, json={"ids": [5]}, headers=headers)
    assert (answer.status_code, answer.json()["vectors"]) == (200, [[0.7, 1.7]])


def test_a_taken_port_is_a_clear_error(server: Running, store: TableStore) -> None:
    port = str(urlsplit(server.url).port)
    command = [sys.executable, "-m", "service", "serve", "--store", str(store.root), "--port", port]
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 4
    assert re.search(rf"127\.0\.0\.1 port {port} is in use", done.stderr)


def test_an_empty_store_is_ready_and_serves_what_comes(tmp_path: Path) -> None:
    with running(tmp_path / "none") as server:
        assert httpx.get(server.url + "/health/ready").status_code == 200
        assert httpx.get(server.url + "/v1/tables").json() == {"tables": []}
