"""Several lookups in one request: one snapshot, all or none."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.store import TableStore
from tests.api.samples import CONTRACT, DIM, ROWS
from tests.api.wire import JSON, NPY, NPZ, OCTETS, PROBLEM
from tests.world import Path_, backend_of, publish, reachable, service_over, serving

LOOKUP = "/v1/lookup"
GOOD = {"table": "padded", "ids": [5]}


def multi(client: httpx.Client, *items: object, **headers: str) -> httpx.Response:
    return client.post(LOOKUP, content=json.dumps({"lookups": items}), headers=headers)


def test_results_come_in_the_order_of_the_lookups(client: httpx.Client) -> None:
    answer = multi(client, {"table": "padded", "tokens": [["river", "<pad>"]]}, GOOD, {"table": "plain", "ids": []})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(result["table"], result["version"], result["shape"]) for result in results] == [
        ("padded", 1, [1, 2, DIM]),
        ("padded", 1, [1, DIM]),
        ("plain", 1, [0, DIM]),
    ]
    assert [result["mask"] for result in results] == [[[True, False]], [True], []]
    assert np.array(results[0]["vectors"], dtype=np.float32).tobytes() == ROWS[[[2, 0]]].tobytes()


def test_a_result_is_what_the_single_lookup_answers(client: httpx.Client) -> None:
    bodies: list[dict[str, object]] = [
        {"ids": [[5, 2], [0]], "length": 4, "padding": "pre"},
        {"ids": [[5, 2], [0]], "pooling": "mean", "weights": [[1, 3], [2]], "normalize": True},
        {"ids": [5, 9], "on_oov": "mask", "masked": "zero", "flatten": True},
        {"ids": [5, 2], "mask": [0, 1], "dtype": "float16", "encoding": "base64"},
    ]
    singles = [client.post("/v1/tables/padded/lookup", json=body).json() for body in bodies]
    results = multi(client, *({"table": "padded", **body} for body in bodies)).json()["results"]
    assert results == singles
    assert base64.b64decode(results[3]["vectors"]) == ROWS[[5, 2]].astype(np.float16).tobytes()


def test_no_lookups_have_no_results(client: httpx.Client) -> None:
    answer = multi(client)
    assert (answer.status_code, answer.json()) == (200, {"results": []})


@pytest.mark.parametrize(
    ("target", "version"),
    [({}, 2), ({"version": 1}, 1), ({"version": 2}, 2), ({"label": "stable"}, 1), ({"label": "canary"}, 3)],
    ids=["active", "version", "active version by number", "label", "label of an inactive version"],
)
def test_an_item_may_name_a_version_or_a_label(client: httpx.Client, target: dict[str, object], version: int) -> None:
    (result,) = multi(client, {"table": "versions", "ids": [5], **target}).json()["results"]
    assert result["version"] == version
    assert np.array(result["vectors"], dtype=np.float32).tobytes() == (ROWS[[5]] * version).tobytes()


def test_the_answer_is_json_without_the_headers_of_one_table(client: httpx.Client) -> None:
    answer = multi(client, GOOD)
    assert answer.headers["content-type"] == JSON
    assert [name for name in answer.headers if name.startswith("embedding-")] == []


@pytest.mark.parametrize("accept", ["*/*", JSON, "application/*;q=0.1", f"{OCTETS}, {JSON};q=0.1"])
def test_json_is_given_to_all_who_accept_it(client: httpx.Client, accept: str) -> None:
    assert multi(client, GOOD, accept=accept).headers["content-type"] == JSON


# Wrong items

ITEMS = [
    pytest.param({"table": "padded", "ids": [5, 7]}, "out_of_vocabulary", None, id="an id outside"),
    pytest.param({"table": "padded", "ids": [-1]}, "out_of_vocabulary", None, id="a negative id"),
    pytest.param({"table": "padded", "ids": [2**64 + 5]}, "out_of_vocabulary", None, id="an id that would wrap"),
    pytest.param({"table": "padded", "tokens": ["zzz"]}, "out_of_vocabulary", None, id="a token outside"),
    pytest.param({"table": "padded", "ids": [1.0]}, "invalid_request", "ids[0]", id="a fraction"),
    pytest.param({"table": "padded", "ids": [[5], [True]]}, "invalid_request", "ids[1][0]", id="a boolean"),
    pytest.param({"table": "padded"}, "invalid_request", "ids", id="neither ids nor tokens"),
    pytest.param({**GOOD, "tokens": ["river"]}, "invalid_request", "ids", id="both ids and tokens"),
    pytest.param({**GOOD, "extra": 1}, "invalid_request", "extra", id="an unknown field"),
    pytest.param({**GOOD, "length": 0}, "invalid_request", "length", id="a wrong option"),
    pytest.param({**GOOD, "weights": [1]}, "invalid_request", "weights", id="weights without pooling"),
    pytest.param({"table": "plain", "tokens": ["river"]}, "no_vocabulary", None, id="no vocabulary"),
    pytest.param({"table": "plain", "ids": [5], "on_oov": "unk"}, "no_unknown_row", None, id="no unknown row"),
    pytest.param({"table": "large", "ids": [1], "dtype": "float16"}, "not_representable", None, id="beyond float16"),
    pytest.param({"ids": [5]}, "invalid_request", "table", id="no table"),
    pytest.param({"table": 5, "ids": [5]}, "invalid_request", "table", id="a table that is no string"),
    pytest.param({"table": "nope", "ids": [5]}, "table_not_found", None, id="an unknown table"),
    pytest.param({"table": "", "ids": [5]}, "table_not_found", None, id="a table without a name"),
    pytest.param({"table": "idle", "ids": [5]}, "not_ready", None, id="a table that is not active"),
    pytest.param({**GOOD, "version": 9}, "version_not_found", None, id="an unknown version"),
    pytest.param({**GOOD, "version": 0}, "version_not_found", None, id="version 0"),
    pytest.param({**GOOD, "version": -1}, "version_not_found", None, id="version -1"),
    pytest.param({**GOOD, "version": 2**63}, "version_not_found", None, id="version 2**63"),
    pytest.param({**GOOD, "version": 2**70}, "version_not_found", None, id="version 2**70"),
    pytest.param({**GOOD, "version": "1"}, "invalid_request", "version", id="a version that is a string"),
    pytest.param({**GOOD, "version": 1.0}, "invalid_request", "version", id="a version that is a fraction"),
    pytest.param({**GOOD, "version": True}, "invalid_request", "version", id="a version that is a boolean"),
    pytest.param({**GOOD, "version": None}, "invalid_request", "version", id="a version that is null"),
    pytest.param({**GOOD, "label": "nope"}, "label_not_found", None, id="an unknown label"),
    pytest.param({**GOOD, "label": 1}, "invalid_request", "label", id="a label that is no string"),
    pytest.param({**GOOD, "version": 1, "label": "x"}, "invalid_request", "version", id="version and label"),
    pytest.param(5, "invalid_request", None, id="a number"),
    pytest.param(None, "invalid_request", None, id="null"),
    pytest.param([GOOD], "invalid_request", None, id="an array"),
]


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(("item", "code", "place"), ITEMS)
def test_one_wrong_lookup_refuses_all_and_is_named_by_its_index(
    client: httpx.Client, item: object, code: str, place: str | None, before: int
) -> None:
    answer = multi(client, *[GOOD] * before, item, GOOD)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["lookup"]) == (CONTRACT[code], code, before)
    assert answer.headers["content-type"] == PROBLEM
    assert "results" not in problem
    if place is not None:
        assert problem["field"] == place
    assert multi(client, GOOD).status_code == 200


def test_an_id_outside_is_named_with_its_table_and_position(client: httpx.Client) -> None:
    answer = multi(client, GOOD, {"table": "versions", "label": "canary", "ids": [[5], [2, 2**70]]})
    assert f'"errors":[{{"index":[1,1],"id":{2**70}}}]' in answer.text
    problem = answer.json()
    assert (problem["lookup"], problem["table"], problem["version"]) == (1, "versions", 3)
    assert (problem["num_embeddings"], problem["total"]) == (7, 1)


# Wrong bodies


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        pytest.param(b"", "invalid_json", None, id="nothing"),
        pytest.param(b"{", "invalid_json", None, id="cut"),
        pytest.param(b"[]", "invalid_request", None, id="an array"),
        pytest.param(b"{}", "invalid_request", "lookups", id="no lookups"),
        pytest.param(b'{"lookups": null}', "invalid_request", "lookups", id="null"),
        pytest.param(b'{"lookups": {}}', "invalid_request", "lookups", id="an object"),
        pytest.param(b'{"lookups": [], "ids": [5]}', "invalid_request", "ids", id="an unknown field"),
        pytest.param(b'{"lookups": ' + b"[" * 20_000, "invalid_json", None, id="20,000 deep"),
    ],
)
def test_a_wrong_body_is_refused_without_an_index(
    client: httpx.Client, body: bytes, code: str, place: str | None
) -> None:
    answer = client.post(LOOKUP, content=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (CONTRACT[code], code)
    assert "lookup" not in problem
    assert problem.get("field") == place


@pytest.mark.parametrize("media", [OCTETS, NPY, NPZ, "text/plain"])
def test_only_json_is_taken(client: httpx.Client, media: str) -> None:
    answer = client.post(LOOKUP, content=b'{"lookups": []}', headers={"content-type": media})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("accept", [OCTETS, NPY, NPZ, "text/html", "application/json;q=0"])
def test_only_json_is_given(client: httpx.Client, accept: str) -> None:
    answer = multi(client, GOOD, accept=accept)
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize("name", ["pooling", "x"])
def test_a_query_parameter_is_refused(client: httpx.Client, name: str) -> None:
    answer = client.post(LOOKUP, json={"lookups": []}, params={name: "sum"})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_request", name)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post_is_allowed(client: httpx.Client, method: str) -> None:
    answer = client.request(method, LOOKUP)
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")


# Limits, over all lookups together


@pytest.mark.parametrize(
    ("items", "limit"),
    [
        pytest.param([{"table": "plain", "ids": [5] * 34}] * 3, "EMBEDDING_MAX_IDS", id="ids"),
        pytest.param([{"table": "padded", "tokens": ["river"] * 51}] * 2, "EMBEDDING_MAX_IDS", id="tokens"),
        pytest.param(
            [{"table": "plain", "ids": [5], "length": 900, "encoding": "base64"}] * 2,
            "EMBEDDING_MAX_RESPONSE_BYTES",
            id="bytes of the vectors",
        ),
        pytest.param(
            [{"table": "plain", "ids": [5], "length": 500}] * 3, "EMBEDDING_MAX_RESPONSE_BYTES", id="bytes as text"
        ),
        pytest.param([{"table": "plain", "ids": [5] * 10}] * 2000, "EMBEDDING_MAX_BODY_BYTES", id="body"),
    ],
)
def test_limits_are_of_all_lookups_together(narrow: httpx.Client, items: list[dict[str, Any]], limit: str) -> None:
    assert multi(narrow, items[0]).status_code == 200
    answer = multi(narrow, *items)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert answer.json()["limit"] == limit


def test_as_many_ids_as_allowed_are_looked_up(narrow: httpx.Client) -> None:
    assert multi(narrow, *[{"table": "plain", "ids": [5] * 25}] * 4).status_code == 200


# One snapshot


def test_all_results_of_a_table_are_of_one_version_while_it_is_replaced(tmp_path: Path, path: Path_) -> None:
    store = TableStore(tmp_path)
    for version in (1, 2):
        publish(store, "moving", ROWS * version)
    service, watcher = service_over(tmp_path, backend=backend_of(path))
    body = {"lookups": [{"table": "moving", "ids": [5]}] * 20}
    with reachable(service, path) as url, httpx.Client(base_url=url) as client:
        done = threading.Event()

        def swap() -> None:
            version = 2
            while not done.is_set():
                version = 3 - version
                store.activate("moving", version)
                watcher.refresh()

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            answers = [client.post(LOOKUP, json=body).json()["results"] for _ in range(100)]
        finally:
            done.set()
            swapper.join()
    for results in answers:
        (version,) = {result["version"] for result in results}
        wanted = (ROWS[5] * np.float32(version)).tobytes()
        assert {np.array(result["vectors"], dtype=np.float32).tobytes() for result in results} == {wanted}


def test_more_lookups_than_ids_are_refused(narrow: httpx.Client) -> None:
    answer = multi(narrow, *[{"table": "plain", "ids": []}] * 101)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


def test_a_label_named_twice_is_one_version_while_it_moves(tmp_path: Path, path: Path_) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", [[1.0]])
    publish(store, "words", [[2.0]])
    store.set_label("words", "stable", 1)
    item = {"table": "words", "label": "stable", "ids": [0]}

    def move() -> None:
        for number in range(60):
            store.set_label("words", "stable", 1 + number % 2)

    with serving(tmp_path, path) as client, ThreadPoolExecutor() as pool:
        moves = pool.submit(move)
        seen = []
        while not moves.done():
            results = multi(client, item, item, item).json()["results"]
            seen.append([result["version"] for result in results])
        moves.result()
    assert len(seen) > 0
    assert [versions for versions in seen if len(set(versions)) != 1] == []
