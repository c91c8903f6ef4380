"""Metrics of a real server with several workers: what clients sent is what is counted, whoever dies meanwhile."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.api.test_metrics import Series, labelled, of_table, parsed
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

WORKERS, CLIENTS, ROUNDS = 4, 8, 25
RAW = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
V2 = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [2], "data": [5, 1]}]}
LOOKUP = "/v1/tables/words/lookup"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    publish(store, "other", KERAS_ROWS, KERAS_TOKENS)
    return store


@pytest.fixture
def server(store: TableStore) -> Iterator[Running]:
    # Workers that look at the store by themselves may open a version in the moment in which it is put in force.
    options = ("--workers", str(WORKERS), "--poll-seconds", "600")
    with running(store.root, *options, settings={"ADMIN_TOKEN": "secret"}) as server:
        yield server


def scraped(server: Running) -> Series:
    return parsed(httpx.get(f"{server.url}/metrics").text)


def ask(client: httpx.Client) -> None:
    """One lookup of each kind: 3 ids answered raw, 2 as JSON, 2 by V2, 1 outside, 2 tables at once, no table."""
    ids = np.array([5, 1, 0], dtype="<i8").tobytes()
    assert client.post(LOOKUP, content=ids, headers=RAW).status_code == 200
    assert client.post(LOOKUP, json={"ids": [5, 1]}).status_code == 200
    assert client.post("/v2/models/words/infer", json=V2).status_code == 200
    assert client.post(LOOKUP, json={"ids": [5, 99]}).status_code == 422
    lookups = [{"table": "words", "ids": [1]}, {"table": "other", "ids": [1, 2]}]
    assert client.post("/v1/lookup", json={"lookups": lookups}).status_code == 200
    assert client.post("/v1/tables/nowhere/lookup", json={"ids": [1]}).status_code == 404


def send(server: Running) -> int:
    """Sends ROUNDS of each kind on CLIENTS connections at a time; gives how many of each."""

    def client(_: int) -> None:
        with httpx.Client(base_url=server.url) as connection:
            for _ in range(ROUNDS):
                ask(connection)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(client, range(CLIENTS)))
    return CLIENTS * ROUNDS


def assert_counted(series: Series, sent: int) -> None:
    assert labelled(series, "embedding_requests_total") == {
        ("200", "lookup", "words", "1"): 2 * sent,
        ("422", "lookup", "words", "1"): sent,
        ("200", "v2_infer", "words", "1"): sent,
        ("200", "multi_lookup", "", ""): sent,
        ("404", "lookup", "", ""): sent,
    }
    assert of_table(series, "embedding_ids_total") == {"words": 8 * sent, "other": 2 * sent}
    assert of_table(series, "embedding_oov_ids_total") == {"words": sent}
    counts = {("lookup", "words"): 2 * sent, ("v2_infer", "words"): sent, ("multi_lookup", ""): sent}
    assert labelled(series, "embedding_request_seconds_count") == counts


def kill_worker(server: Running, number: signal.Signals = signal.SIGKILL) -> None:
    """Kills the first of the workers; returns once all are there and serve."""
    before = server.workers()
    os.kill(before[0], number)
    until(lambda: len(set(server.workers()) - {before[0]}) == WORKERS)
    until(lambda: scraped(server)["embedding_workers_ready", ()] == WORKERS)


def test_four_workers_count_exactly_what_was_sent_also_after_one_was_killed(server: Running) -> None:
    sent = send(server)
    assert_counted(scraped(server), sent)
    kill_worker(server)
    assert_counted(scraped(server), sent)
    sent += send(server)
    assert_counted(scraped(server), sent)
    assert scraped(server)["embedding_worker_restarts_total", ()] == 1


def test_every_worker_tells_the_same(server: Running) -> None:
    sent = send(server)
    told = Counter[int]()
    for _ in range(4 * WORKERS):  # each connection goes to the worker that has the fewest
        series = scraped(server)
        assert_counted(series, sent)
        told[int(series["embedding_workers_ready", ()])] += 1
    assert set(told) == {WORKERS}


def test_a_worker_that_is_killed_under_load_loses_no_more_than_was_in_flight(server: Running) -> None:
    def client(_: int) -> tuple[int, int]:
        answered = failed = 0
        for _ in range(4 * ROUNDS):
            try:
                answered += httpx.post(server.url + LOOKUP, json={"ids": [5, 1]}).status_code == 200
            except httpx.TransportError:
                failed += 1
        return answered, failed

    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(client, each) for each in range(3)]
        kill_worker(server)
        results = [future.result() for future in futures]
    answered, failed = (sum(each) for each in zip(*results, strict=True))
    (counted,) = labelled(scraped(server), "embedding_requests_total").values()
    assert answered <= counted <= answered + failed
    assert failed <= 3


def test_activations_are_counted_and_timed(server: Running, store: TableStore) -> None:
    publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS, activate=False)
    admin = {"authorization": "Bearer secret"}

    def activate(version: int) -> int:
        path = f"{server.url}/v1/admin/tables/words/activate"
        return httpx.post(path, json={"version": version}, headers=admin).status_code

    assert [activate(version) for version in (2, 1, 2)] == [200] * 3
    assert activate(7) == 404
    (store.root / "words" / "1" / "vectors.npy").write_bytes(b"damaged")
    assert activate(1) == 409
    series = scraped(server)
    assert labelled(series, "embedding_swaps_total") == {("done", "words"): 3, ("failed", "words"): 1}
    assert labelled(series, "embedding_swap_seconds_count") == {("words",): 3}
    assert 0 < labelled(series, "embedding_swap_seconds_sum")["words",] < 30
    loads = labelled(series, "embedding_table_loads_total")
    assert loads["loaded", "words"] == WORKERS * 4
    until(lambda: labelled(scraped(server), "embedding_active_version")["words", "2"] == WORKERS)


def test_versions_are_counted_as_themselves_by_whatever_protocol_they_are_asked(
    server: Running, store: TableStore
) -> None:
    for version in range(2, 13):
        publish(store, "words", KERAS_ROWS * version, KERAS_TOKENS, activate=False)
        path = f"{server.url}/v1/admin/tables/words/activate"
        headers = {"authorization": "Bearer secret"}
        assert httpx.post(path, json={"version": version}, headers=headers).status_code == 200
        for _ in range(2 * WORKERS):  # each worker has its turn
            assert httpx.post(f"{server.url}/v1/models/words:predict", json={"instances": [5]}).status_code == 200
            assert httpx.post(server.url + LOOKUP, json={"ids": [5]}).status_code == 200
    found = labelled(scraped(server), "embedding_requests_total")
    assert found == {
        ("200", endpoint, "words", str(version)): 2 * WORKERS
        for endpoint in ("lookup", "tensorflow_predict")
        for version in range(5, 13)
    }


def test_open_connections_and_readiness_are_told(server: Running) -> None:
    def told(name: str) -> Callable[[], float]:
        return lambda: scraped(server)[name, ()]

    with httpx.Client(base_url=server.url) as first, httpx.Client(base_url=server.url) as second:
        for client in (first, second):
            client.get("/health/live")
        until(lambda: told("embedding_connections")() >= 2)
    until(lambda: told("embedding_connections")() == 1)
    assert told("embedding_workers")() == told("embedding_workers_ready")() == WORKERS
    assert labelled(scraped(server), "embedding_table_ready") == {("words",): 1, ("other",): 1}
