"""Traces of a real server, as a collector of OpenTelemetry's receives them: OTLP over HTTP, on a loopback port."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.collecting import Collector, attributes, collecting
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

LOOKUP = "/v1/tables/words/lookup"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS, activate=False)
    return store


@pytest.fixture
def server(store: TableStore, collector: Collector) -> Iterator[Running]:
    options = ("--workers", "2", "--traces-endpoint", collector.url)
    with running(store.root, *options, settings={"ADMIN_TOKEN": "secret"}) as server:
        yield server


def test_a_lookup_goes_on_with_its_clients_trace(server: Running, collector: Collector) -> None:
    for ids, status in (([5], 200), ([99], 422)):
        headers = {"traceparent": SAMPLED, "x-request-id": "mine"}
        assert httpx.post(server.url + LOOKUP, json={"ids": ids}, headers=headers).status_code == status
    server.stop()  # which sends what has not been sent
    assert len(collector.spans) == 2
    assert {span.name for span in collector.spans} == {"POST /v1/tables/{table}/lookup"}
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in collector.spans} == {(TRACE, CALLER)}
    found = {attributes(span)["http.response.status_code"]: attributes(span) for span in collector.spans}
    assert (
        found[200]
        | {
            "http.request.method": "POST",
            "http.route": "/v1/tables/{table}/lookup",
            "url.path": LOOKUP,
            "embedding.table": "words",
            "embedding.version": "1",
            "embedding.request_id": "mine",
        }
        == found[200]
    )
    assert set(found) == {200, 422}
    assert collector.resources[0]["service.name"] == "embedding-table-service"


def test_nothing_is_traced_that_its_client_does_not_trace(server: Running, collector: Collector) -> None:
    for headers in ({}, {"traceparent": UNSAMPLED}, {"traceparent": "00-nonsense"}):
        assert httpx.post(server.url + LOOKUP, json={"ids": [5]}, headers=headers).status_code == 200
    assert httpx.get(server.url + "/health/live", headers={"traceparent": SAMPLED}).status_code == 200
    server.stop()
    assert collector.spans == []


def test_an_activation_is_one_trace_through_worker_and_steward(server: Running, collector: Collector) -> None:
    headers = {"traceparent": SAMPLED, "authorization": "Bearer secret"}
    path = f"{server.url}/v1/admin/tables/words/activate"
    assert httpx.post(path, json={"version": 2}, headers=headers).status_code == 200
    server.stop()
    worker, steward = sorted(collector.spans, key=lambda span: span.parent_span_id.hex() != CALLER)
    assert worker.parent_span_id.hex() == CALLER
    assert steward.parent_span_id == worker.span_id
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert {span.name for span in collector.spans} == {"POST /v1/admin/tables/{table}/activate"}


def test_a_share_of_what_comes_without_a_trace_is_traced(store: TableStore, collector: Collector) -> None:
    options = ("--traces-endpoint", collector.url, "--traces-ratio", "1")
    with running(store.root, *options) as server:
        with httpx.Client(base_url=server.url) as client:
            for _ in range(5):
                assert client.post(LOOKUP, json={"ids": [5]}).status_code == 200
        until(lambda: len(collector.spans) == 5)
        server.stop()
    assert len({span.trace_id for span in collector.spans}) == 5


def test_a_collector_that_hangs_does_not_hold_up_a_stop(store: TableStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/v1/traces"
        options = ("--workers", "2", "--traces-endpoint", url, "--traces-ratio", "1", "--drain-seconds", "3000")
        with running(store.root, *options) as server:
            for _ in range(10):
                assert httpx.post(server.url + LOOKUP, json={"ids": [5]}).status_code == 200
            assert server.stop() == 0


def test_lookups_are_answered_where_the_collector_is_not_there(store: TableStore, collector: Collector) -> None:
    gone = collector.url.replace("/v1/traces", "/gone")
    collector.server.server_close()
    options = ("--traces-endpoint", gone, "--drain-seconds", "1")
    with running(store.root, *options) as server:
        headers = {"traceparent": SAMPLED}
        assert httpx.post(server.url + LOOKUP, json={"ids": [5]}, headers=headers).status_code == 200
        assert server.stop() == 0
