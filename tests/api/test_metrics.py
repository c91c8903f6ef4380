"""`/metrics`: what was done is what is counted. Every test has a server of its own, so that the numbers are its own."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.store import TableStore
from tests.api.samples import ROWS, TOKENS
from tests.api.wire import NPY
from tests.world import Path_, imported, publish, serving

Series: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LOOKUP = "/v1/tables/words/lookup"
RAW = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}


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


def requests(series: Series) -> dict[tuple[str, str, str], int]:
    """Requests by table, endpoint and status code."""
    found = Counter[tuple[str, str, str]]()
    for (code, endpoint, table, _), value in labelled(series, "embedding_requests_total").items():
        found[table, endpoint, code] += int(value)
    return dict(found)


def of_table(series: Series, name: str) -> dict[str, float]:
    return {dict(labels)["table"]: value for (found, labels), value in series.items() if found == name}


def test_a_fresh_server_has_counted_nothing(counted: httpx.Client) -> None:
    series = scrape(counted)
    assert not [name for name, _ in series if name.endswith(("_total", "_bucket", "_sum", "_count"))]
    assert series["embedding_workers", ()] == 1.0


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


def test_ids_outside_the_table_are_counted_whoever_answers_them(counted: httpx.Client) -> None:
    counted.post(LOOKUP, json={"ids": [7, 8, 9]})
    counted.post(LOOKUP, json={"tokens": ["zzz"]})
    for pooling in ("none", "mean"):
        counted.post(LOOKUP, json={"ids": [7, 5, 7], "on_oov": "zeros", "pooling": pooling})
    assert of_table(scrape(counted), "embedding_oov_ids_total") == {"words": 3 + 1 + 2 + 2}


@pytest.mark.parametrize("rule", ["error", "zeros"])
def test_those_of_lookups_that_come_again_are_counted_once(counted: httpx.Client, rule: str) -> None:
    for _ in range(5):
        counted.post(
            f"{LOOKUP}?pooling=sum&on_oov={rule}",
            content=np.array([5, 9], dtype="<i8").tobytes(),
            headers={"content-type": "application/octet-stream", "accept": "application/octet-stream"},
        )
    assert of_table(scrape(counted), "embedding_oov_ids_total") == {"words": 5}


def test_ids_of_a_lookup_that_fails_behind_its_rule_are_not_counted_twice(tmp_path: Path, path: Path_) -> None:
    publish(TableStore(tmp_path), "large", [[1.0], [1e6]])
    address = "/v1/tables/large/lookup?on_oov=zeros&dtype=float16"
    with serving(tmp_path, path) as client:
        for ids in ([0, 7], [0, 7], [1, 7], [0, 7]):
            client.post(address, content=np.array(ids, dtype="<i8").tobytes(), headers=RAW)
        assert of_table(scrape(client), "embedding_oov_ids_total") == {"large": 3}


def test_ids_outside_the_table_are_counted_in_several_lookups_too(counted: httpx.Client) -> None:
    counted.post("/v1/lookup", json={"lookups": [{"table": "words", "ids": [5]}, {"table": "words", "ids": [9]}]})
    assert of_table(scrape(counted), "embedding_oov_ids_total") == {"words": 1}


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
    for name in ("embedding_requests_total", "embedding_ids_total", "embedding_oov_ids_total"):
        assert f"# TYPE {name} counter" in lines
        assert any(line.startswith(f"# HELP {name} ") for line in lines)


def labelled(series: Series, name: str) -> dict[tuple[str, ...], float]:
    """One metric by the values of its labels, in the order of their names."""
    return {tuple(value for _, value in labels): value for (found, labels), value in series.items() if found == name}


def test_requests_are_counted_by_the_version_that_answered(counted: httpx.Client, tmp_path: Path) -> None:
    publish(TableStore(tmp_path), "words", ROWS, TOKENS, activate=False)
    counted.post(LOOKUP, json={"ids": [5]})
    counted.post("/v1/tables/words/versions/2/lookup", json={"ids": [5]})
    counted.post("/v1/tables/words/versions/2/lookup", json={"ids": [9]})
    counted.post("/v1/tables/words/versions/3/lookup", json={"ids": [9]})
    assert labelled(scrape(counted), "embedding_requests_total") == {
        ("200", "lookup", "words", "1"): 1,
        ("200", "lookup", "words", "2"): 1,
        ("422", "lookup", "words", "2"): 1,
        ("404", "lookup", "words", ""): 1,
    }


def test_the_ids_of_a_lookup_are_a_histogram(counted: httpx.Client) -> None:
    for count in (1, 4, 5, 5, 5, 64, 100):
        counted.post(LOOKUP, json={"ids": [5] * count})
    counted.post(LOOKUP, json={"ids": [9]})
    found = labelled(scrape(counted), "embedding_request_ids_bucket")
    assert found["lookup", "1", "words"] == 1
    assert found["lookup", "4", "words"] == 2
    assert found["lookup", "16", "words"] == 5
    assert found["lookup", "64", "words"] == 6
    assert found["lookup", "256", "words"] == found["lookup", "+Inf", "words"] == 7


@pytest.mark.parametrize("address", [LOOKUP, "/v1/tables/words/versions/1/lookup"])
def test_the_time_of_every_answered_lookup_is_in_the_histogram(counted: httpx.Client, address: str) -> None:
    begun = perf_counter()
    for _ in range(20):
        counted.post(address, json={"ids": [5, 2]})
    elapsed = perf_counter() - begun
    counted.post(address, json={"ids": [9]})
    series = scrape(counted)
    assert labelled(series, "embedding_request_seconds_count") == {("lookup", "words"): 20}
    assert labelled(series, "embedding_request_seconds_bucket")["lookup", "+Inf", "words"] == 20
    assert 0 < labelled(series, "embedding_request_seconds_sum")["lookup", "words"] < elapsed


def test_what_a_client_takes_to_send_its_body_is_not_the_time_of_its_lookup(counted: httpx.Client) -> None:
    def slowly() -> Iterator[bytes]:
        yield b'{"ids":'
        begun = perf_counter()
        while perf_counter() - begun < 1:  # the server answers others meanwhile
            counted_too.get("/health/live")
        yield b"[5]}"

    with httpx.Client(base_url=counted.base_url) as counted_too:
        assert counted.post(LOOKUP, content=slowly()).status_code == 200
    assert labelled(scrape(counted), "embedding_request_seconds_sum")["lookup", "words"] < 0.8


def test_rows_whose_texts_are_kept_are_hits(counted: httpx.Client) -> None:
    counted.post(LOOKUP, json={"ids": [5, 2, 5]})
    counted.post(LOOKUP, json={"ids": [5, 2]})
    counted.post(LOOKUP, json={"ids": [5, 3]})
    found = labelled(scrape(counted), "embedding_row_texts_total")
    assert sum(found.values()) == 7
    assert found["hit", "words"] >= 3


def test_what_is_open_is_told(counted: httpx.Client) -> None:
    series = scrape(counted)
    assert labelled(series, "embedding_active_version") == {("words", "1"): 1}
    assert labelled(series, "embedding_table_ready") == {("words",): 1}
    assert of_table(series, "embedding_loaded_versions") == {"words": 1, "idle": 0}
    assert of_table(series, "embedding_mapped_bytes") == {"words": ROWS.nbytes, "idle": 0}
    assert series["embedding_workers_ready", ()] == 1
    assert series["embedding_in_flight_limit", ()] == 256
    assert series["embedding_in_flight", ()] == series["embedding_waiting", ()] == 0


def test_the_memory_of_reduced_rows_is_told_as_it_is(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    for dtype in ("float16", "int8"):
        TableStore(tmp_path).publish(dtype, replace(imported(rows), dtype=dtype), activate=True)
    with serving(tmp_path) as client:
        assert of_table(scrape(client), "embedding_mapped_bytes") == {"float16": 4 * 3 * 2, "int8": 4 * (3 + 4)}


def test_a_lookup_in_several_tables_has_a_time_of_its_own(counted: httpx.Client) -> None:
    counted.post("/v1/lookup", json={"lookups": [{"table": "words", "ids": [5]}, {"table": "words", "ids": [5, 2]}]})
    series = scrape(counted)
    assert labelled(series, "embedding_request_seconds_count") == {("multi_lookup", ""): 1}
    assert labelled(series, "embedding_request_ids_count") == {("multi_lookup", "words"): 2}


def test_the_inference_protocol_tells_the_time_that_was_taken(counted: httpx.Client) -> None:
    asked = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [5]}]}
    counted.post("/v2/models/words/infer", json=asked)
    (said,) = counted.get("/v2/models/words/stats").json()["model_stats"]
    assert said["inference_stats"]["success"]["count"] == 1
    assert 0 < said["inference_stats"]["success"]["ns"] < 10**9
