"""The dashboard asks a real Prometheus beside a real server: no panel is empty."""

import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.deploy.expressions import of_dashboard
from tests.scraping import Scraping, needs_prometheus, scraping
from tests.world import KERAS_ROWS, publish

BEFORE_THE_TEST = "offset 1d"

pytestmark = needs_prometheus


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    store = TableStore(tmp_path / "store")
    for activate in (True, False):
        publish(store, "words", KERAS_ROWS, activate=activate)
    publish(store, "idle", KERAS_ROWS, activate=False)
    with running(store.root, "--workers", "2", settings={"ADMIN_TOKEN": "secret"}) as server:
        yield server


class Life:
    """What happens on a server: lookups of all kinds of ends, and swaps between two versions."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._version = count()

    def goes_on(self) -> None:
        for table in ("words", "idle", "stranger"):
            self._post(f"/v1/tables/{table}/lookup", {"ids": [5, 1]})
        self._post("/v1/tables/words/lookup", {"ids": [5, 7]})
        self._post("/v1/admin/tables/words/activate", {"version": 1 + next(self._version) % 2})

    def _post(self, path: str, body: object) -> None:
        self._client.post(path, json=body, headers={"Authorization": "Bearer secret"})


def test_no_panel_is_empty(server: Running, tmp_path: Path) -> None:
    asked = [expression for expression in of_dashboard() if BEFORE_THE_TEST not in expression.text]
    os.kill(server.workers()[0], signal.SIGKILL)
    until(lambda: len(server.workers()) == 2)
    with httpx.Client(base_url=server.url, timeout=30) as client, scraping(server, tmp_path) as prometheus:
        life = Life(client)

        def empty() -> list[str]:
            life.goes_on()
            return [found.place for found in asked if not answered(prometheus, found.text)]

        try:
            until(lambda: empty() == [], 60)
        except TimeoutError:
            assert empty() == []


def answered(prometheus: Scraping, expression: str) -> bool:
    chosen = expression.replace("$job", "embedding-service").replace("$instance", ".*").replace("$table", ".*")
    return bool(prometheus.data("query", query=chosen)["result"])
