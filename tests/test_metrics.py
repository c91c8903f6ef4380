import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Counters, SharedCounters, exposition

REPOSITORY = Path(__file__).parents[1]
RECORDS = 2048


def series(shared: SharedCounters, counter: str) -> dict[tuple[str, ...], float]:
    """The series of one counter as a scraper reads them, by their label values."""
    text = exposition(shared).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        tuple(sample.labels[name] for name in ("table", "endpoint", "status") if name in sample.labels): sample.value
        for sample in families[counter].samples
        if sample.name.endswith("_total")
    }


def test_a_series_begins_at_what_is_added_first() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.add("embedding_ids", ("words",), 64)
    counters.add("embedding_ids", ("words",), 2)
    counters.add("embedding_ids", ("other",))
    assert series(shared, "embedding_ids") == {("words",): 66.0, ("other",): 1.0}


def test_series_of_different_counters_are_apart() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.add("embedding_ids", ("words",), 5)
    counters.add("embedding_oov_requests", ("words",))
    counters.add("embedding_requests", ("words", "lookup", "200"))
    assert series(shared, "embedding_ids") == {("words",): 5.0}
    assert series(shared, "embedding_oov_requests") == {("words",): 1.0}
    assert series(shared, "embedding_requests") == {("words", "lookup", "200"): 1.0}


def test_nothing_added_is_no_series() -> None:
    shared = SharedCounters(3)
    assert series(shared, "embedding_ids") == {}
    assert b"embedding_workers 3.0" in exposition(shared)


def test_a_scrape_sums_over_the_workers() -> None:
    shared = SharedCounters(3)
    for worker in range(3):
        Counters(shared, worker).add("embedding_ids", ("words",), 10**worker)
    assert series(shared, "embedding_ids") == {("words",): 111.0}


def test_workers_that_meet_series_in_another_order_are_summed_by_name() -> None:
    shared = SharedCounters(2)
    for worker, names in enumerate([("a", "b", "c"), ("c", "a")]):
        counters = Counters(shared, worker)
        for name in names:
            counters.add("embedding_ids", (name,))
    assert series(shared, "embedding_ids") == {("a",): 2.0, ("b",): 1.0, ("c",): 2.0}


def test_a_replaced_worker_goes_on_with_its_region() -> None:
    shared = SharedCounters(2)
    Counters(shared, 1).add("embedding_ids", ("a",), 5)
    Counters(shared, 0).add("embedding_ids", ("a",), 100)
    replaced = Counters(shared, 1)
    replaced.add("embedding_ids", ("b",), 7)
    replaced.add("embedding_ids", ("a",), 1)
    assert series(shared, "embedding_ids") == {("a",): 106.0, ("b",): 7.0}


@pytest.mark.parametrize("value", ['"', "\\", "\n", "é", "日本", "🙂", "", "a b", "{}", "a=b,c"], ids=ascii)
def test_label_values_are_escaped(value: str) -> None:
    shared = SharedCounters(1)
    Counters(shared, 0).add("embedding_ids", (value,))
    assert series(shared, "embedding_ids") == {(value,): 1.0}


def test_series_beyond_the_memory_go_to_the_overflow_series_and_none_is_lost() -> None:
    shared = SharedCounters(2)
    counters = Counters(shared, 0)
    for number in range(RECORDS + 100):
        counters.add("embedding_ids", (f"table{number}",))
        counters.add("embedding_requests", (f"table{number}", "lookup", "200"))
    ids, requests = series(shared, "embedding_ids"), series(shared, "embedding_requests")
    assert sum(ids.values()) == sum(requests.values()) == RECORDS + 100
    assert ids[("other",)] > 1
    assert requests[("other", "other", "other")] > 1
    assert ids[("table0",)] == 1
    counters.add("embedding_oov_requests", ("late",))
    assert series(shared, "embedding_oov_requests") == {("other",): 1.0}


def test_an_overflowing_worker_does_not_reach_into_the_next() -> None:
    shared = SharedCounters(2)
    Counters(shared, 1).add("embedding_ids", ("mine",), 3)
    counters = Counters(shared, 0)
    for number in range(RECORDS * 2):
        counters.add("embedding_ids", (f"table{number}",))
    assert series(shared, "embedding_ids")[("mine",)] == 3.0


def test_a_replaced_worker_goes_on_overflowing() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    for number in range(RECORDS):
        counters.add("embedding_ids", (f"table{number}",))
    over = series(shared, "embedding_ids")[("other",)]
    Counters(shared, 0).add("embedding_ids", ("new",), 5)
    assert series(shared, "embedding_ids")[("other",)] == over + 5


@pytest.mark.parametrize(
    "name", ["a" * 128, "a" * 300, "é" * 128, "🙂" * 100], ids=["128", "300", "256 bytes", "400 bytes"]
)
def test_a_name_of_any_length_is_counted(name: str) -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.add("embedding_ids", (name,), 2)
    counters.add("embedding_ids", (name,), 3)
    found = series(shared, "embedding_ids")
    assert found == ({(name,): 5.0} if len(name.encode()) <= 128 else {("other",): 5.0})


WORKERS, ADDS = 4, 20_000


def add_in_forks() -> None:
    """Forked workers add at once, then one is replaced; prints the sums. Run in a process of its own."""
    shared = SharedCounters(WORKERS)
    for workers in [range(WORKERS), range(1)]:
        children = [fork(shared, worker) for worker in workers]
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    sums = series(shared, "embedding_ids")
    sys.stdout.write(" ".join(f"{name}={value:.0f}" for (name,), value in sorted(sums.items())))


def fork(shared: SharedCounters, worker: int) -> int:
    child = os.fork()
    if child == 0:
        counters = Counters(shared, worker)
        for number in range(ADDS):
            counters.add("embedding_ids", ("ab"[number % 2],), worker + 1)
        os._exit(0)
    return child


def test_forked_workers_that_add_at_once_lose_nothing() -> None:
    command = [sys.executable, "-c", "from tests.test_metrics import add_in_forks; add_in_forks()"]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    each = ADDS // 2 * (sum(range(1, WORKERS + 1)) + 1)
    assert done.stdout == f"a={each} b={each}"
