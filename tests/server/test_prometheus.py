"""A real Prometheus beside a real server: it reads the metrics, adds up what was sent, and takes the rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from load_tests.running import Running, running, until
from service.store import TableStore
from tests.scraping import SECONDS, Scraping, needs_prometheus, scraping
from tests.world import KERAS_ROWS, KERAS_TOKENS, publish

SENT: Final = 40

pytestmark = needs_prometheus


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
