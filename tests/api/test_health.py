"""Liveness and readiness: what is missing is named, and the rest serves on."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.app import create_service
from service.metrics import Counters, SharedCounters
from service.registry import TableRegistry
from service.settings import Settings
from service.store import TableStore
from service.watcher import StoreWatcher
from tests.api.samples import ROWS
from tests.api.test_tables import damage
from tests.api.wire import OCTETS, PROBLEM
from tests.world import Path_, backend_of, publish, reachable, service_over, serving


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, path: Path_) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("damaged")
    damage(root)
    with serving(root, path) as client:
        yield client


def test_a_server_is_alive_and_ready_when_every_active_table_is_loaded(client: httpx.Client) -> None:
    live, ready = client.get("/health/live"), client.get("/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "missing": []})


@pytest.mark.parametrize("address", ["/health/live", "/health/ready", "/health", "/metrics"])
def test_probes_may_ask_with_head(client: httpx.Client, address: str) -> None:
    answer = client.head(address)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("address", ["/health/live", "/health/ready", "/health", "/metrics"])
def test_probes_do_not_take_posts(client: httpx.Client, address: str) -> None:
    answer = client.post(address)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["content-type"] == PROBLEM


def test_a_damaged_table_makes_the_server_unready_and_is_named(damaged: httpx.Client) -> None:
    answer = damaged.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    (missing,) = answer.json()["missing"]
    assert (missing["table"], missing["state"]) == ("broken", "UNAVAILABLE")
    assert "vectors.npy" in missing["reason"]


def test_the_short_address_says_what_readiness_says(client: httpx.Client, damaged: httpx.Client) -> None:
    for asked, status in ((client, 200), (damaged, 503)):
        short, ready = asked.get("/health"), asked.get("/health/ready")
        assert (short.status_code, short.json()) == (status, ready.json())


def test_a_damaged_table_leaves_the_server_alive(damaged: httpx.Client) -> None:
    assert damaged.get("/health/live").status_code == 200


def test_a_damaged_table_answers_not_ready_with_the_reason(damaged: httpx.Client) -> None:
    answer = damaged.post("/v1/tables/broken/lookup", json={"ids": [5]})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["table"]) == (503, "not_ready", "broken")
    assert "vectors.npy" in problem["reason"]
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("target", ["versions/1", "labels/stable"])
def test_a_damaged_version_that_is_named_answers_not_ready(tmp_path: Path, path: Path_, target: str) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", ROWS)
    publish(store, "words", ROWS * 2)
    store.set_label("words", "stable", 1)
    (tmp_path / "words" / "1" / "manifest.json").write_text("{}")
    with serving(tmp_path, path) as client:
        answer = client.post(f"/v1/tables/words/{target}/lookup", json={"ids": [5]})
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert client.post("/v1/tables/words/lookup", json={"ids": [5]}).status_code == 200


def test_the_other_tables_serve_beside_a_damaged_one(damaged: httpx.Client) -> None:
    answer = damaged.post("/v1/tables/whole/lookup", json={"ids": [5, 2]}, headers={"accept": OCTETS})
    assert (answer.status_code, answer.content) == (200, ROWS[[5, 2]].tobytes())


def test_a_table_that_is_not_active_does_not_make_the_server_unready(tmp_path: Path, path: Path_) -> None:
    publish(TableStore(tmp_path), "idle", ROWS, activate=False)
    with serving(tmp_path, path) as client:
        assert client.get("/health/ready").status_code == 200


def test_a_server_without_tables_is_ready(tmp_path: Path, path: Path_) -> None:
    with serving(tmp_path, path) as client:
        assert client.get("/health/ready").status_code == 200


def test_a_server_that_has_not_looked_at_its_store_is_alive_and_not_ready(tmp_path: Path, path: Path_) -> None:
    registry = TableRegistry()
    watcher = StoreWatcher(TableStore(tmp_path), registry)
    settings = Settings(store=tmp_path)
    service = create_service(settings, registry, watcher, Counters(SharedCounters(1), 0))
    with reachable(service, path) as url, httpx.Client(base_url=url) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
        watcher.refresh()
        assert client.get("/health/ready").status_code == 200


def test_a_table_whose_next_version_is_damaged_serves_the_old_one(tmp_path: Path, path: Path_) -> None:
    store = TableStore(tmp_path)
    publish(store, "words", ROWS)
    service, watcher = service_over(tmp_path, backend=backend_of(path))
    with reachable(service, path) as url, httpx.Client(base_url=url) as client:
        publish(store, "words", ROWS * 2)
        (tmp_path / "words" / "2" / "manifest.json").write_text("{}")
        watcher.refresh()
        answer = client.post("/v1/tables/words/lookup", json={"ids": [5]}, headers={"accept": OCTETS})
        assert (answer.content, answer.headers["embedding-version"]) == (ROWS[[5]].tobytes(), "1")
        described = client.get("/v1/tables/words").json()
        assert (described["state"], described["version"], described["active_version"]) == ("READY", 1, 2)
        assert "manifest.json" in described["reason"]
