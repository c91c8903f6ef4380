"""The text format of Prometheus, made of what all processes have in shared memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service import __version__
from service.metrics.families import DERIVED, FAMILIES, GAUGES, IDS, REQUEST_IDS, Family
from service.metrics.gauges import Gauges, TableGauges
from service.metrics.shared import SharedCounters

_Series = Mapping[tuple[str, ...], tuple[float, ...]]


class _Collected(Collector):
    def __init__(self, shared: SharedCounters, backend: str, places: int) -> None:
        self._shared = shared
        self._backend = backend
        self._places = places

    def collect(self) -> Iterable[Metric]:
        sums = self._shared.all_sums()
        for name, family in FAMILIES.items():
            yield (_histogram if family.buckets else _counter)(name, family, sums.get(name, {}))
        yield _ids(sums.get(REQUEST_IDS, {}))
        info = _gauges("embedding_build_info")
        info.add_metric((__version__, self._backend), 1)
        yield info
        workers = self._shared.workers
        yield _gauge("embedding_workers", workers)
        yield _gauge("embedding_in_flight_limit", workers * self._places)
        yield from _of_workers(list(self._shared.gauges.all()))


def exposition(shared: SharedCounters, *, backend: str = "numpy", places: int = 0) -> bytes:
    """All metrics of a server, summed over its processes; `places` are those for lookups in flight in one worker."""
    registry = CollectorRegistry()
    registry.register(_Collected(shared, backend, places))
    return generate_latest(registry)


def _counter(name: str, family: Family, series: _Series) -> Metric:
    found = CounterMetricFamily(name, family.text, labels=family.labels)
    for labels, (value,) in series.items():
        found.add_metric(labels, value)
    return found


def _histogram(name: str, family: Family, series: _Series) -> Metric:
    found = HistogramMetricFamily(name, family.text, labels=family.labels)
    bounds = [*(f"{bound:g}" if bound < 1e4 else f"{bound:.0f}" for bound in family.buckets), "+Inf"]
    for labels, (*counts, total) in series.items():
        found.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
    return found


def _ids(series: _Series) -> Metric:
    """By table, from the sums of the histogram that has them by endpoint as well."""
    sums: dict[str, float] = {}
    for (table, _), numbers in series.items():
        sums[table] = sums.get(table, 0.0) + numbers[-1]
    found = CounterMetricFamily(IDS, DERIVED[IDS].text, labels=DERIVED[IDS].labels)
    for table, total in sums.items():
        found.add_metric((table,), total)
    return found


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, GAUGES[name].text, value=value)


def _gauges(name: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, GAUGES[name].text, labels=GAUGES[name].labels)


def _of_workers(workers: Sequence[Gauges]) -> Iterator[Metric]:
    yield _gauge("embedding_workers_ready", len(workers))
    yield _gauge("embedding_in_flight", sum(worker.in_flight for worker in workers))
    yield _gauge("embedding_waiting", sum(worker.waiting for worker in workers))
    yield _gauge("embedding_connections", sum(worker.connections for worker in workers))
    tables: dict[str, list[TableGauges]] = {}
    for worker in workers:
        for name, gauges in worker.tables.items():
            tables.setdefault(name, []).append(gauges)
    yield from _of_tables(tables, len(workers))


def _of_tables(tables: Mapping[str, Sequence[TableGauges]], workers: int) -> Iterator[Metric]:
    active, ready = _gauges("embedding_active_version"), _gauges("embedding_table_ready")
    versions, mapped = _gauges("embedding_loaded_versions"), _gauges("embedding_mapped_bytes")
    for name, all_gauges in sorted(tables.items()):
        served = [gauges.served for gauges in all_gauges if gauges.served is not None]
        for version in sorted(set(served)):
            active.add_metric((name, str(version)), served.count(version))
        if any(gauges.wanted is not None for gauges in all_gauges):
            ready.add_metric((name,), float(len(served) == workers))
        versions.add_metric((name,), max(gauges.versions for gauges in all_gauges))
        mapped.add_metric((name,), max(gauges.mapped_bytes for gauges in all_gauges))
    yield from (active, ready, versions, mapped)
