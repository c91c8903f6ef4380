"""The log of a real server: as JSON or for people, with the ids of requests, and nothing secret."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

TOKEN = "a-secret-of-the-operator"
LOOKUP = "/v1/tables/words/lookup"
ADMIN = "/v1/admin/tables/words"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    publish(store, "words", KERAS_ROWS * 2, KERAS_TOKENS, activate=False)
    return store


@contextmanager
def logging_as(store: TableStore, form: str, *options: str) -> Iterator[Running]:
    settings = {"ADMIN_TOKEN": TOKEN, "LOG_FORMAT": form}
    with running(store.root, "--workers", "2", "--log-level", "debug", *options, settings=settings) as server:
        yield server


def records(server: Running) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in server.log.read_text().splitlines()]


def activate(server: Running, request_id: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "x-request-id": request_id}
    assert httpx.post(f"{server.url}{ADMIN}/activate", json={"version": 2}, headers=headers).status_code == 200


def test_every_line_is_an_object(store: TableStore) -> None:
    with logging_as(store, "json") as server:
        activate(server, "req-1")
        server.stop()
        found = records(server)
    assert all(set(record) >= {"time", "level", "logger", "process", "message"} for record in found)
    (audit,) = [record for record in found if record["logger"] == "service.audit"]
    assert audit["request_id"] == "req-1"
    assert audit["audit"] == {"by": "admin", "change": "activate", "table": "words", "from": 1, "to": 2}
    assert {record["level"] for record in found} <= {"DEBUG", "INFO", "WARNING"}


def test_an_error_is_one_line(store: TableStore) -> None:
    (store.root / "words" / "1" / "vectors.npy").write_bytes(b"damaged")
    with logging_as(store, "json") as server:
        found = until(lambda: [record for record in records(server) if record["level"] == "ERROR"])
    assert "words" in found[0]["message"]


def test_requests_are_not_logged_unless_that_is_wanted(store: TableStore) -> None:
    with logging_as(store, "console") as server:
        for _ in range(10):
            httpx.post(server.url + LOOKUP, json={"ids": [5]})
        httpx.get(server.url + "/v1/tables")
        server.stop()
        assert "/v1/tables" not in server.log.read_text()


def test_the_access_log_has_every_request(store: TableStore) -> None:
    with logging_as(store, "json", "--access-log") as server:
        with httpx.Client(base_url=server.url) as client:
            ids = [client.post(LOOKUP, json={"ids": [each]}, headers={"x-request-id": f"r{each}"}) for each in range(7)]
            client.post(LOOKUP, json={"ids": [99]})
            client.get("/v1/tables?token=hush")
        assert [answer.status_code for answer in ids] == [200] * 7
        activate(server, "adm")
        server.stop()
        found = [record for record in records(server) if record["logger"] == "service.access"]
    lookups = [record for record in found if record["path"] == LOOKUP]
    assert sorted(record["request_id"] for record in lookups if record["status"] == 200) == [f"r{n}" for n in range(7)]
    assert [record["status"] for record in lookups if record["status"] != 200] == [422]
    assert all(record["method"] == "POST" and record["client"] == "127.0.0.1" for record in lookups)
    assert all(0 < record["seconds"] < 10 and record["bytes"] > 20 for record in lookups)
    assert {record["path"] for record in found} == {LOOKUP, "/v1/tables", f"{ADMIN}/activate"}
    assert {record["request_id"] for record in found if record["path"].endswith("activate")} == {"adm"}


def test_a_path_cannot_forge_a_line(store: TableStore) -> None:
    with logging_as(store, "console", "--access-log") as server:
        httpx.get(server.url + "/v1/x%0A2026-01-01%2000:00:00,000%20INFO%20forged")
        server.stop()
        text = server.log.read_text()
    assert "forged" in text
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01 00:00:00")]


def test_nothing_secret_is_logged(store: TableStore) -> None:
    with logging_as(store, "json", "--access-log") as server:
        activate(server, "adm")
        for token in (f"{TOKEN}-nearly", "guess-me"):
            headers = {"authorization": f"Bearer {token}"}
            assert httpx.get(server.url + ADMIN, headers=headers).status_code == 401
        httpx.get(f"{server.url}/v1/tables?token={TOKEN}")
        server.stop()
        text = server.log.read_text()
    for secret in (TOKEN, "guess-me", "Bearer"):
        assert secret not in text
