"""A real Prometheus beside a real server: it reads the metrics, adds up what was sent, and takes the rules."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from load_tests.bench.processes import free_port
from load_tests.running import Running, running, until
from service.store import TableStore
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

PROMETHEUS: Final = shutil.which("prometheus")
RULES: Final = Path(__file__).parent.parent.parent / "deploy" / "prometheus" / "rules.yml"
SENT: Final = 40
SECONDS: Final = 30.0

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")


class Scraping:
    """A Prometheus that runs, asked over its HTTP API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def is_ready(self) -> bool:
        """Whether it answers yet."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def data(self, path: str, **parameters: str) -> dict[str, Any]:
        """What the API answers."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def value(self, expression: str) -> float | None:
        """The value of an expression that gives one number; None while it gives none."""
        found = self.data("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def becomes(self, expression: str, value: float) -> None:
        """Waits until an expression has a value; raises TimeoutError with what it has instead."""
        try:
            until(lambda: self.value(expression) == value, SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{expression} is {self.value(expression)} and not {value}") from error


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    store = TableStore(tmp_path / "store")
    publish(store, "words", KERAS_ROWS, KERAS_TOKENS)
    with running(store.root, "--workers", "2") as server:
        yield server


@pytest.fixture
def prometheus(server: Running, tmp_path: Path) -> Iterator[Scraping]:
    with scraping(server, tmp_path) as found:
        yield found


@contextmanager
def scraping(server: Running, folder: Path) -> Iterator[Scraping]:
    """A Prometheus that reads a server, and computes the committed rules, every second; its files are in `folder`."""
    assert PROMETHEUS is not None
    configuration = folder / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(configured(server)))
    (folder / RULES.name).write_text(RULES.read_text().replace("interval: 1m", "interval: 1s"))
    address = f"127.0.0.1:{free_port()}"
    command = [PROMETHEUS, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
            found = Scraping(client)
            until(found.is_ready, SECONDS)
            yield found
    finally:
        process.kill()
        process.wait()


def configured(server: Running) -> dict[str, object]:
    targets = [{"targets": [urlsplit(server.url).netloc]}]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [RULES.name],
        "scrape_configs": [{"job_name": "embedding-service", "static_configs": targets}],
    }


def send(server: Running, number: int, ids: list[int]) -> None:
    for _ in range(number):
        httpx.post(f"{server.url}/v1/tables/words/lookup", json={"ids": ids})


def test_prometheus_adds_up_what_was_sent(server: Running, prometheus: Scraping) -> None:
    send(server, SENT, [5, 1])
    send(server, 1, [7])
    prometheus.becomes("up", 1)
    prometheus.becomes("sum(embedding_requests_total)", SENT + 1)
    prometheus.becomes('embedding_ids_total{table="words"}', 2 * SENT)
    (target,) = prometheus.data("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_prometheus_tells_answers_apart(server: Running, prometheus: Scraping) -> None:
    send(server, SENT, [5, 1])
    send(server, 1, [7])
    prometheus.becomes('embedding_requests_total{table="words", version="1", endpoint="lookup", code="200"}', SENT)
    prometheus.becomes('sum(embedding_requests_total{table="words", endpoint="lookup", code="422"})', 1)
    prometheus.becomes('embedding_oov_ids_total{table="words"}', 1)


def test_prometheus_reads_the_state_of_the_server(server: Running, prometheus: Scraping) -> None:
    prometheus.becomes("embedding_workers", 2)
    prometheus.becomes("embedding_workers_ready", 2)
    prometheus.becomes('embedding_active_version{table="words", version="1"}', 2)
    prometheus.becomes('embedding_table_ready{table="words"}', 1)
    prometheus.becomes("instance:embedding_in_flight:ratio", 0)


def test_the_rules_give_figures_and_no_alert(server: Running, prometheus: Scraping) -> None:
    prometheus.becomes("up", 1)
    until(lambda: growing(server, prometheus, 'job_table:embedding_requests:rate5m{table="words"} > 0'), SECONDS)
    until(lambda: {rule["health"] for rule in rules(prometheus)} == {"ok"}, SECONDS)
    assert [rule["lastError"] for rule in rules(prometheus) if rule.get("lastError")] == []
    assert [rule["name"] for rule in rules(prometheus) if rule.get("state") == "firing"] == []


def test_the_rules_give_quantiles_and_budgets(server: Running, prometheus: Scraping) -> None:
    until(lambda: growing(server, prometheus, 'job_table:embedding_request_seconds:p99_rate5m{table="words"}'), SECONDS)
    until(lambda: growing(server, prometheus, 'job_slo:embedding_budget_burn:rate1h{slo="latency"}'), SECONDS)
    prometheus.becomes('job_slo:embedding_budget_burn:rate1h{slo="availability"}', 0)


def growing(server: Running, prometheus: Scraping, expression: str) -> bool:
    send(server, 1, [5, 1])
    return prometheus.value(expression) is not None


def rules(prometheus: Scraping) -> list[dict[str, Any]]:
    return [rule for group in prometheus.data("rules")["groups"] for rule in group["rules"]]
