"""Table metadata, and what is said where nothing is served."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store import TableStore
from tests.api.samples import CONTRACT, DIM, EXTREME, ROWS
from tests.api.wire import JSON, PROBLEM
from tests.world import Path_, backend_of, publish, serving

NAMES = ["default-mask", "default-unk", "default-zeros", "extreme", "idle", "large", "padded", "plain", "versions"]
PROMISED = {
    "name",
    "active_version",
    "num_embeddings",
    "embedding_dim",
    "dtype",
    "padding_id",
    "unk_id",
    "has_vocabulary",
    "backend",
    "state",
    "reason",
}
PADDED = {
    "name": "padded",
    "version": 1,
    "active_version": 1,
    "num_embeddings": 7,
    "embedding_dim": DIM,
    "dtype": "float32",
    "padding_id": 0,
    "unk_id": 1,
    "on_oov": "error",
    "has_vocabulary": True,
    "state": "READY",
    "reason": None,
}


def get(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    content: dict[str, Any] = answer.json()
    return content


def test_every_table_of_the_store_is_listed_by_name(client: httpx.Client) -> None:
    tables = get(client, "/v1/tables")["tables"]
    assert [table["name"] for table in tables] == NAMES
    assert all(table.keys() >= PROMISED for table in tables)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_described_as_in_the_list(client: httpx.Client, name: str) -> None:
    (listed,) = (table for table in get(client, "/v1/tables")["tables"] if table["name"] == name)
    assert get(client, f"/v1/tables/{name}") == listed


@pytest.mark.parametrize("address", ["/v1/tables/padded", "/v1/tables/padded/versions/1"])
def test_a_table_with_everything_is_described_in_full(client: httpx.Client, path: Path_, address: str) -> None:
    content = get(client, address)
    assert content["backend"] == backend_of(path)
    assert {key: content[key] for key in PADDED} == PADDED


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/v1/tables/plain", {"has_vocabulary": False, "padding_id": None, "unk_id": None, "num_embeddings": 7}),
        ("/v1/tables/extreme", {"num_embeddings": len(EXTREME), "embedding_dim": 4}),
        ("/v1/tables/default-mask", {"on_oov": "mask", "unk_id": 1}),
        ("/v1/tables/versions", {"version": 2, "active_version": 2, "state": "READY"}),
        ("/v1/tables/versions/versions/2", {"version": 2, "active_version": 2, "state": "READY"}),
        ("/v1/tables/versions/versions/1", {"version": 1, "active_version": 2, "num_embeddings": 7}),
        ("/v1/tables/idle", {"version": None, "active_version": None, "state": "AVAILABLE", "num_embeddings": None}),
        ("/v1/tables/idle/versions/1", {"version": 1, "active_version": None, "num_embeddings": 7}),
    ],
)
def test_a_description_says_what_is_known(client: httpx.Client, address: str, expected: dict[str, object]) -> None:
    content = get(client, address)
    assert {key: content[key] for key in expected} == expected


def test_a_table_without_an_active_version_says_so(client: httpx.Client) -> None:
    assert "active" in get(client, "/v1/tables/idle")["reason"]


def test_a_version_is_available_until_it_is_kept_open(tmp_path: Path, path: Path_) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", ROWS)
    publish(store, "words", ROWS * 2)
    with serving(tmp_path, path, keep_loaded=1) as client:
        assert get(client, "/v1/tables/words/versions/1")["state"] == "AVAILABLE"
        assert client.post("/v1/tables/words/versions/1/lookup", json={"ids": [5]}).status_code == 200
        assert get(client, "/v1/tables/words/versions/1")["state"] == "READY"
        assert get(client, "/v1/tables/words")["version"] == 2


def test_a_store_without_tables_has_an_empty_list(tmp_path: Path, path: Path_) -> None:
    with serving(tmp_path, path) as client:
        assert get(client, "/v1/tables") == {"tables": []}


def test_a_damaged_version_is_unavailable_with_its_reason(tmp_path: Path, path: Path_) -> None:
    damage(tmp_path)
    with serving(tmp_path, path) as client:
        for address in ("/v1/tables/broken", "/v1/tables/broken/versions/1"):
            content = get(client, address)
            assert (content["state"], content["num_embeddings"]) == ("UNAVAILABLE", None)
            assert "vectors.npy" in content["reason"]
        assert get(client, "/v1/tables/whole")["state"] == "READY"


def damage(root: Path) -> None:
    """Two tables, `broken` with a cut file and `whole`."""
    store = TableStore(root)
    publish(store, "broken", ROWS)
    publish(store, "whole", ROWS)
    vectors = root / "broken" / "1" / "vectors.npy"
    cut = vectors.read_bytes()[:-4]
    vectors.unlink()
    vectors.write_bytes(cut)


# Where nothing is


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("/v1/tables/nope", "table_not_found"),
        ("/v1/tables/PADDED", "table_not_found"),
        ("/v1/tables/%2e%2e", "table_not_found"),
        ("/v1/tables/%00", "table_not_found"),
        ("/v1/tables/nope/versions/1", "table_not_found"),
        ("/v1/tables/padded/versions/2", "version_not_found"),
        ("/v1/tables/padded/versions/0", "version_not_found"),
        ("/v1/tables/padded/versions/-1", "version_not_found"),
        ("/v1/tables/padded/versions/01", "version_not_found"),
        ("/v1/tables/padded/versions/1.0", "version_not_found"),
        ("/v1/tables/padded/versions/abc", "version_not_found"),
        (f"/v1/tables/padded/versions/{2**70}", "version_not_found"),
        ("/", "not_found"),
        ("/v1", "not_found"),
        ("/v1/tables/", "not_found"),
        ("/v1/tables/padded/", "not_found"),
        ("/v1/tables/padded/versions", "not_found"),
        ("/v1/tables/padded/labels/stable", "not_found"),
        ("/v1/nope", "not_found"),
        ("/v1/tables%0A", "not_found"),
        ("/favicon.ico", "not_found"),
        ("/%ff", "not_found"),
    ],
)
def test_an_unknown_address_is_a_problem_with_its_code(client: httpx.Client, address: str, code: str) -> None:
    answer = client.get(address)
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("POST", "/v1/tables", "GET"),
        ("DELETE", "/v1/tables/padded", "GET"),
        ("PUT", "/v1/tables/padded/versions/1", "GET"),
        ("GET", "/v1/tables/padded/lookup", "POST"),
        ("PUT", "/v1/tables/padded/versions/1/lookup", "POST"),
        ("DELETE", "/v1/tables/versions/labels/stable/lookup", "POST"),
        ("OPTIONS", "/v1/tables/padded/lookup", "POST"),
        ("PATCH", "/v1/tables/nope/lookup", "POST"),
    ],
)
def test_another_method_is_refused_and_the_right_one_named(
    client: httpx.Client, method: str, address: str, allowed: str
) -> None:
    answer = client.request(method, address)
    assert (answer.status_code, answer.headers["content-type"]) == (405, PROBLEM)
    assert (answer.json()["code"], answer.headers["allow"]) == ("method_not_allowed", allowed)


@pytest.mark.parametrize(
    "address", ["/v1/tables", "/v1/tables/padded", "/v1/tables/padded/versions/1", "/v1/tables/nope", "/v1/nope"]
)
def test_a_query_parameter_is_refused_and_named(client: httpx.Client, address: str) -> None:
    answer = client.get(address, params={"verbose": "1"})
    assert (answer.status_code, answer.json()["code"]) == (CONTRACT["invalid_request"], "invalid_request")
    assert answer.json()["field"] == "verbose"
