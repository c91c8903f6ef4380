import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Answered, Counters, SharedCounters, TableGauges, exposition
from service.metrics.families import FAMILIES
from service.types import TableVersion

REPOSITORY = Path(__file__).parents[1]
SHORT = 256
"""Records of a region in tests of what is beyond them."""


def series(shared: SharedCounters, counter: str) -> dict[tuple[str, ...], float]:
    """The series of one counter as a scraper reads them, by their label values."""
    text = exposition(shared).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        tuple(map(sample.labels.__getitem__, FAMILIES[counter].labels)): sample.value
        for sample in families[counter].samples
        if sample.name.endswith("_total")
    }


def test_a_series_begins_at_what_is_added_first() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.add("embedding_oov_ids", ("words",), 64)
    counters.add("embedding_oov_ids", ("words",), 2)
    counters.add("embedding_oov_ids", ("other",))
    assert series(shared, "embedding_oov_ids") == {("words",): 66.0, ("other",): 1.0}


def test_series_of_different_counters_are_apart() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.add("embedding_oov_ids", ("words",), 5)
    counters.add("embedding_swaps", ("words", "done"))
    counters.add("embedding_requests", ("words", "1", "lookup", "200"))
    assert series(shared, "embedding_oov_ids") == {("words",): 5.0}
    assert series(shared, "embedding_swaps") == {("words", "done"): 1.0}
    assert series(shared, "embedding_requests") == {("words", "1", "lookup", "200"): 1.0}


def test_nothing_added_is_no_series() -> None:
    shared = SharedCounters(3)
    assert series(shared, "embedding_oov_ids") == {}
    assert b"embedding_workers 3.0" in exposition(shared)


def test_a_scrape_sums_over_the_workers() -> None:
    shared = SharedCounters(3)
    for worker in range(3):
        Counters(shared, worker).add("embedding_oov_ids", ("words",), 10**worker)
    assert series(shared, "embedding_oov_ids") == {("words",): 111.0}


def test_workers_that_meet_series_in_another_order_are_summed_by_name() -> None:
    shared = SharedCounters(2)
    for worker, names in enumerate([("a", "b", "c"), ("c", "a")]):
        counters = Counters(shared, worker)
        for name in names:
            counters.add("embedding_oov_ids", (name,))
    assert series(shared, "embedding_oov_ids") == {("a",): 2.0, ("b",): 1.0, ("c",): 2.0}


def test_a_replaced_worker_goes_on_with_its_region() -> None:
    shared = SharedCounters(2)
    Counters(shared, 1).add("embedding_oov_ids", ("a",), 5)
    Counters(shared, 0).add("embedding_oov_ids", ("a",), 100)
    replaced = Counters(shared, 1)
    replaced.add("embedding_oov_ids", ("b",), 7)
    replaced.add("embedding_oov_ids", ("a",), 1)
    assert series(shared, "embedding_oov_ids") == {("a",): 106.0, ("b",): 7.0}


@pytest.mark.parametrize("value", ['"', "\\", "\n", "é", "日本", "🙂", "", "a b", "{}", "a=b,c"], ids=ascii)
def test_label_values_are_escaped(value: str) -> None:
    shared = SharedCounters(1)
    Counters(shared, 0).add("embedding_oov_ids", (value,))
    assert series(shared, "embedding_oov_ids") == {(value,): 1.0}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions have room for a few series only."""
    monkeypatch.setattr("service.metrics.counters.RECORDS", SHORT)


@pytest.mark.usefixtures("short")
def test_series_beyond_the_memory_go_to_the_overflow_series_and_none_is_lost() -> None:
    shared = SharedCounters(2)
    counters = Counters(shared, 0)
    for number in range(SHORT + 100):
        counters.add("embedding_oov_ids", (f"table{number}",))
        counters.add("embedding_requests", (f"table{number}", "1", "lookup", "200"))
    ids, requests = series(shared, "embedding_oov_ids"), series(shared, "embedding_requests")
    assert sum(ids.values()) == sum(requests.values()) == SHORT + 100
    assert ids[("other",)] > 1
    assert requests["other", "other", "lookup", "200"] > 1
    assert ids[("table0",)] == 1
    counters.add("embedding_swaps", ("late", "done"))
    assert series(shared, "embedding_swaps") == {("other", "done"): 1.0}


@pytest.mark.usefixtures("short")
def test_an_overflowing_worker_does_not_reach_into_the_next() -> None:
    shared = SharedCounters(2)
    Counters(shared, 1).add("embedding_oov_ids", ("mine",), 3)
    counters = Counters(shared, 0)
    for number in range(SHORT * 2):
        counters.add("embedding_oov_ids", (f"table{number}",))
    assert series(shared, "embedding_oov_ids")[("mine",)] == 3.0


@pytest.mark.usefixtures("short")
def test_a_replaced_worker_goes_on_overflowing() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    for number in range(SHORT):
        counters.add("embedding_oov_ids", (f"table{number}",))
    over = series(shared, "embedding_oov_ids")[("other",)]
    Counters(shared, 0).add("embedding_oov_ids", ("new",), 5)
    assert series(shared, "embedding_oov_ids")[("other",)] == over + 5


@pytest.mark.usefixtures("short")
def test_tables_that_are_gone_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    there = {"kept"}
    counters.is_served = there.__contains__
    monkeypatch.setattr("service.metrics.counters._SWEEP_SECONDS", 0.0)
    counters.add("embedding_oov_ids", ("kept",), 7)
    for number in range(SHORT * 10):
        there.add(f"table{number}")
        counters.add("embedding_oov_ids", (f"table{number}",), number)
        there.remove(f"table{number}")
    found = series(shared, "embedding_oov_ids")
    assert ("other",) not in found
    assert found[("kept",)] == 7
    assert found[(f"table{SHORT * 10 - 1}",)] == SHORT * 10 - 1
    assert len(found) < SHORT


def answered(counters: Counters, version: int, *, times: int = 1) -> None:
    """So many lookups of one id in a version that has come into force."""
    counters.introduce("words", version)
    Answered(counters, "lookup", TableVersion("words", version)).count((1,) * times)


def versions(shared: SharedCounters) -> dict[str, float]:
    """Lookups by version, of one table at one endpoint."""
    return {labels[1]: value for labels, value in series(shared, "embedding_requests").items()}


def test_the_last_eight_versions_in_force_have_series_of_their_own() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    for version in range(1, 101):
        answered(counters, version)
    assert versions(shared) == {str(version): 1.0 for version in range(93, 101)}
    assert len(list(shared.region(0).records())) < 40


def test_versions_that_are_asked_for_by_number_have_those_that_are_left() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    for version in range(1, 21):
        Answered(counters, "lookup", TableVersion("lookup", version)).count((1,))
    assert versions(shared) == {**{str(version): 1.0 for version in range(1, 9)}, "other": 12.0}


def test_a_version_that_is_retired_by_one_process_ends_for_all_at_once() -> None:
    shared = SharedCounters(3)
    workers = [Counters(shared, number) for number in range(3)]
    for version in range(1, 9):
        for worker in workers:
            answered(worker, version, times=10)
    assert versions(shared)["1"] == 30
    answered(workers[1], 9)
    assert "1" not in versions(shared)
    for worker in workers:
        answered(worker, 9)
    assert "1" not in versions(shared)
    assert versions(shared)["2"] == 30


def test_a_retired_version_that_comes_into_force_again_is_told_again() -> None:
    shared = SharedCounters(2)
    workers = [Counters(shared, number) for number in range(2)]
    for version in [*range(1, 10), 1]:
        for worker in workers:
            answered(worker, version)
    assert versions(shared)["1"] == 2
    assert "2" not in versions(shared)


def test_what_was_counted_where_a_series_has_ended_is_not_another_series() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.introduce("words", 1)
    old = Answered(counters, "lookup", TableVersion("words", 1))
    old.count((1,))
    for version in range(2, 10):
        answered(counters, version)
    old.count((1, 1))  # in flight at the swap
    assert versions(shared) == {**{str(version): 1.0 for version in range(2, 10)}, "other": 2.0}


def test_a_replaced_worker_knows_the_versions_that_were_counted() -> None:
    shared = SharedCounters(1)
    for version in range(1, 21):
        answered(Counters(shared, 0), version)
    assert len(versions(shared)) == 8


@pytest.mark.usefixtures("short")
def test_a_full_region_is_not_searched_again_for_every_count() -> None:
    counters = Counters(SharedCounters(1), 0)
    asked: list[str] = []
    counters.is_served = lambda table: not asked.append(table)  # type: ignore[func-returns-value]
    for number in range(SHORT * 20):
        counters.add("embedding_oov_ids", (f"table{number}",))
    assert len(asked) <= SHORT


@pytest.mark.usefixtures("short")
def test_what_overflows_keeps_its_endpoint_and_code() -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    for number in range(SHORT * 2):
        counters.add("embedding_oov_ids", (f"table{number}",))
    for number in range(3):
        counters.add("embedding_requests", (f"new{number}", "1", "lookup", "422"))
    assert series(shared, "embedding_requests") == {("other", "other", "lookup", "422"): 3.0}


@given(st.lists(st.lists(st.integers(0, 300_000), min_size=1, max_size=20), max_size=20))
def test_a_batch_is_counted_as_its_lookups_would_be(batches: list[list[int]]) -> None:
    shared = SharedCounters(2)
    together, alone = (Answered(Counters(shared, worker), "lookup", TableVersion("t", 1)) for worker in range(2))
    for lengths in batches:
        together.count(lengths)
        together.took([length / 1000 for length in lengths])
        for length in lengths:
            alone.count((length,))
            alone.took((length / 1000,))
    first, second = (list(shared.region(worker).records()) for worker in range(2))
    assert [record.family for record in first] == [record.family for record in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours.numbers == pytest.approx(theirs.numbers)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, "0.01"), (0.01, "0.01"), (0.011, "0.025"), (300, "300"), (301, "+Inf")]
)
def test_a_bucket_holds_what_does_not_exceed_its_bound(value: float, bucket: str) -> None:
    shared = SharedCounters(1)
    Counters(shared, 0).observe("embedding_swap_seconds", ("words",), value)
    text = exposition(shared).decode()
    (family,) = [found for found in text_string_to_metric_families(text) if found.name == "embedding_swap_seconds"]
    first = next(sample for sample in family.samples if sample.name.endswith("_bucket") and sample.value)
    assert first.labels["le"] == bucket


def test_buckets_are_cumulative_and_summed_over_processes() -> None:
    shared = SharedCounters(1)
    for process, value in ((0, 0.02), (shared.steward, 0.02), (shared.supervisor, 20.0)):
        Counters(shared, process).observe("embedding_swap_seconds", ("words",), value)
    lines = exposition(shared).decode().splitlines()
    assert 'embedding_swap_seconds_bucket{le="0.025",table="words"} 2.0' in lines
    assert 'embedding_swap_seconds_bucket{le="30",table="words"} 3.0' in lines
    assert 'embedding_swap_seconds_bucket{le="+Inf",table="words"} 3.0' in lines
    assert 'embedding_swap_seconds_count{table="words"} 3.0' in lines
    assert 'embedding_swap_seconds_sum{table="words"} 20.04' in lines


def test_the_gauges_of_a_worker_that_has_died_are_gone() -> None:
    shared = SharedCounters(2)
    for worker in range(2):
        shared.gauges.put_numbers(worker, in_flight=3, waiting=1, connections=10)
        shared.gauges.put_tables(worker, {"words": TableGauges(1, 1, 1, 100)})
    assert b"embedding_in_flight 6.0" in exposition(shared)
    shared.gauges.clear(1)
    text = exposition(shared)
    assert b"embedding_in_flight 3.0" in text
    assert b"embedding_workers_ready 1.0" in text
    assert b'embedding_active_version{table="words",version="1"} 1.0' in text


def test_a_table_is_ready_once_every_worker_serves_it() -> None:
    shared = SharedCounters(2)
    for worker, served in enumerate((3, None)):
        shared.gauges.put_numbers(worker, 0, 0, 0)
        shared.gauges.put_tables(worker, {"words": TableGauges(3, served, 1, 0), "idle": TableGauges(None, None, 0, 0)})
    assert b'embedding_table_ready{table="words"} 0.0' in exposition(shared)
    assert b'embedding_table_ready{table="idle"}' not in exposition(shared)
    shared.gauges.put_tables(1, {"words": TableGauges(3, 2, 1, 0)})
    text = exposition(shared)
    assert b'embedding_table_ready{table="words"} 1.0' in text
    assert b'embedding_active_version{table="words",version="2"} 1.0' in text
    assert b'embedding_active_version{table="words",version="3"} 1.0' in text


def test_tables_beyond_the_memory_for_gauges_are_left_out() -> None:
    shared = SharedCounters(1)
    shared.gauges.put_numbers(0, 0, 0, 0)
    shared.gauges.put_tables(0, {f"{number:0128}": TableGauges(1, 1, 1, 10**9) for number in range(10_000)})
    (worker,) = shared.gauges.all()
    assert 1000 < len(worker.tables) < 10_000


@pytest.mark.parametrize(
    "name", ["a" * 128, "a" * 400, "é" * 128, "🙂" * 100], ids=["128", "400", "256 bytes", "400 bytes"]
)
def test_a_name_of_any_length_is_counted(name: str) -> None:
    shared = SharedCounters(1)
    counters = Counters(shared, 0)
    counters.add("embedding_oov_ids", (name,), 2)
    counters.add("embedding_oov_ids", (name,), 3)
    found = series(shared, "embedding_oov_ids")
    assert found == ({(name,): 5.0} if len(name.encode()) <= 256 else {("other",): 5.0})


WORKERS, ADDS = 4, 20_000


def add_in_forks() -> None:
    """Forked workers add at once, then one is replaced; prints the sums. Run in a process of its own."""
    shared = SharedCounters(WORKERS)
    for workers in [range(WORKERS), range(1)]:
        children = [fork(shared, worker) for worker in workers]
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    sums = series(shared, "embedding_oov_ids")
    sys.stdout.write(" ".join(f"{name}={value:.0f}" for (name,), value in sorted(sums.items())))


def fork(shared: SharedCounters, worker: int) -> int:
    child = os.fork()
    if child == 0:
        counters = Counters(shared, worker)
        for number in range(ADDS):
            counters.add("embedding_oov_ids", ("ab"[number % 2],), worker + 1)
        os._exit(0)
    return child


def test_forked_workers_that_add_at_once_lose_nothing() -> None:
    command = [sys.executable, "-c", "from tests.test_metrics import add_in_forks; add_in_forks()"]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    each = ADDS // 2 * (sum(range(1, WORKERS + 1)) + 1)
    assert done.stdout == f"a={each} b={each}"
