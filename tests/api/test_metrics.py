"""`/metrics`: what was done is what is counted. Every test has a server of its own, so that the numbers are its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Counters, SharedCounters, exposition
from service.store import TableStore
from tests.api.samples import ROWS, TOKENS
from tests.api.wire import NPY
from tests.world import Path_, publish, serving

Series: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LOOKUP = "/v1/tables/words/lookup"


@pytest.fixture
def counted(tmp_path: Path, path: Path_) -> Iterator[httpx.Client]:
    store = TableStore(tmp_path)
    publish(store, "words", ROWS, TOKENS)
    publish(store, "idle", ROWS, activate=False)
    with serving(tmp_path, path, max_ids=100) as client:
        yield client


def parsed(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: httpx.Client) -> Series:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return parsed(answer.text)


def requests(series: Series) -> dict[tuple[str, str, str], float]:
    """Requests by table, endpoint and status."""
    return {
        (dict(labels)["table"], dict(labels)["endpoint"], dict(labels)["status"]): value
        for (name, labels), value in series.items()
        if name == "embedding_requests_total"
    }


def of_table(series: Series, name: str) -> dict[str, float]:
    return {dict(labels)["table"]: value for (found, labels), value in series.items() if found == name}


def test_a_fresh_server_has_counted_nothing(counted: httpx.Client) -> None:
    assert scrape(counted) == {("embedding_workers", ()): 1.0}


def test_requests_are_counted_by_table_endpoint_and_status(counted: httpx.Client) -> None:
    for _ in range(3):
        counted.post(LOOKUP, json={"ids": [5]})
    counted.post("/v1/tables/words/versions/1/lookup", json={"ids": [5]})
    counted.post(LOOKUP, json={"ids": [9]})
    counted.post(LOOKUP, json={"ids": [5.0]})
    counted.post(LOOKUP, content=b"{")
    counted.post(LOOKUP, json={"ids": [5]}, headers={"accept": "text/html"})
    counted.post(LOOKUP, json={"ids": [5] * 101})
    counted.post(LOOKUP, content=b"", headers={"content-type": "text/plain"})
    counted.post("/v1/tables/idle/lookup", json={"ids": [5]})
    counted.post("/v1/lookup", json={"lookups": []})
    counted.post("/v1/lookup", json={})
    assert requests(scrape(counted)) == {
        ("words", "lookup", "200"): 4,
        ("words", "lookup", "400"): 1,
        ("words", "lookup", "406"): 1,
        ("words", "lookup", "413"): 1,
        ("words", "lookup", "415"): 1,
        ("words", "lookup", "422"): 2,
        ("idle", "lookup", "503"): 1,
        ("", "multi_lookup", "200"): 1,
        ("", "multi_lookup", "422"): 1,
    }


def test_ids_that_were_looked_up_are_counted(counted: httpx.Client) -> None:
    counted.post(LOOKUP, json={"ids": [5, 2, 3]})
    counted.post(LOOKUP, json={"tokens": [["river"], ["zebra", "<pad>"]], "length": 10})
    counted.post(LOOKUP, content=b"\0" * 32, headers={"content-type": "application/octet-stream"})
    counted.post(LOOKUP, json={"ids": []})
    counted.post("/v1/lookup", json={"lookups": [{"table": "words", "ids": [5]}, {"table": "words", "ids": [[5, 2]]}]})
    assert of_table(scrape(counted), "embedding_ids_total") == {"words": 3 + 3 + 4 + 0 + 3}


def test_ids_of_refused_requests_are_not_counted(counted: httpx.Client) -> None:
    counted.post(LOOKUP, json={"ids": [5, 9]})
    counted.post(LOOKUP, content=b"no npy", headers={"content-type": NPY})
    counted.post("/v1/lookup", json={"lookups": [{"table": "words", "ids": [5]}, {"table": "words", "ids": [9]}]})
    assert of_table(scrape(counted), "embedding_ids_total") == {}


def test_requests_with_ids_outside_the_table_are_counted(counted: httpx.Client) -> None:
    counted.post(LOOKUP, json={"ids": [7, 8, 9]})
    counted.post(LOOKUP, json={"tokens": ["zzz"]})
    counted.post(LOOKUP, json={"ids": [7], "on_oov": "zeros"})
    assert of_table(scrape(counted), "embedding_oov_requests_total") == {"words": 2}


def test_ids_outside_the_table_are_counted_in_several_lookups_too(counted: httpx.Client) -> None:
    counted.post("/v1/lookup", json={"lookups": [{"table": "words", "ids": [5]}, {"table": "words", "ids": [9]}]})
    assert of_table(scrape(counted), "embedding_oov_requests_total") == {"words": 1}


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", "/v1/tables/stranger/lookup"),
        ("POST", "/v1/tables/stranger/versions/1/lookup"),
        ("POST", "/v1/tables/stranger/labels/stable/lookup"),
        ("GET", "/v1/tables/stranger/lookup"),
        ("PUT", "/v1/tables/stranger/versions/1/lookup"),
        ("GET", "/v1/tables/stranger"),
        ("GET", "/v1/stranger"),
        ("POST", "/v1/tables/stranger%09x/lookup"),
        ("GET", "/v1/tables/stranger%0Aembedding_ids_total%20666/lookup"),
    ],
)
def test_the_name_of_an_unknown_table_is_not_in_the_metrics(counted: httpx.Client, method: str, address: str) -> None:
    counted.request(method, address, content=b'{"ids": [5]}')
    assert "stranger" not in counted.get("/metrics").text


def test_an_unknown_table_in_several_lookups_is_not_in_the_metrics(counted: httpx.Client) -> None:
    counted.post("/v1/lookup", json={"lookups": [{"table": "stranger", "ids": [5]}]})
    series = scrape(counted)
    assert requests(series) == {("", "multi_lookup", "404"): 1}


def test_requests_for_unknown_tables_are_counted_together(counted: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        counted.post(f"/v1/tables/{name}/lookup", json={"ids": [5]})
    assert requests(scrape(counted)) == {("", "lookup", "404"): 3}


def test_every_counter_has_its_help_and_type(counted: httpx.Client) -> None:
    lines = counted.get("/metrics").text.splitlines()
    for name in ("embedding_requests_total", "embedding_ids_total", "embedding_oov_requests_total"):
        assert f"# TYPE {name} counter" in lines
        assert any(line.startswith(f"# HELP {name} ") for line in lines)


def test_the_counters_of_all_workers_are_summed() -> None:
    shared = SharedCounters(3)
    for worker in range(3):
        counters = Counters(shared, worker)
        for _ in range(worker + 1):
            counters.add("embedding_ids", ("words",), 10)
    series = parsed(exposition(shared).decode())
    assert of_table(series, "embedding_ids_total") == {"words": 60}
    assert series["embedding_workers", ()] == 3
