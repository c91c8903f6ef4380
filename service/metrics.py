"""Counters of all workers in one piece of shared memory, and their Prometheus text.

Each worker adds to a region of its own, so that no lock is taken and no update is lost; a scrape sums over the
regions. A replaced worker goes on with the region of the one before it, so that counters never go back.
"""

import mmap
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_RECORD: Final = 256  # bytes: a float64 value, the length of the key, the key
_KEY_AT: Final = 10
_RECORDS: Final = 2048  # per worker; series beyond go to the overflow series of their counter
_REGION: Final = _RECORD * _RECORDS

_COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "embedding_requests": ("Requests answered, by table, endpoint and status.", ("table", "endpoint", "status")),
    "embedding_ids": ("Ids and tokens looked up, by table.", ("table",)),
    "embedding_oov_requests": ("Requests refused for ids outside the table, by table.", ("table",)),
}


class SharedCounters:
    """The memory for `workers` processes; made before they are forked."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, workers * _REGION)

    def region(self, worker: int) -> memoryview:
        """The bytes that belong to one worker."""
        return memoryview(self._memory)[worker * _REGION : (worker + 1) * _REGION]

    def sums(self, counter: str) -> dict[tuple[str, ...], float]:
        """What all workers have counted of one counter, by the values of its labels."""
        return {tuple(labels): value for name, labels, value in self._all() if name == counter}

    def _all(self) -> Iterator[tuple[str, list[str], float]]:
        sums: dict[str, float] = {}
        for worker in range(self.workers):
            for key, value in _records(self.region(worker)):
                sums[key] = sums.get(key, 0.0) + value
        for key, value in sums.items():
            name, *labels = key.split("\t")
            yield name, labels, value


class Counters:
    """The counters of this process. Not for use from several threads."""

    def __init__(self, shared: SharedCounters, worker: int) -> None:
        self.shared = shared
        self.move_to(worker)

    def move_to(self, worker: int) -> None:
        """Counts in the region of this worker from now on: what a process does once it has been forked."""
        self._region = self.shared.region(worker)
        self.values = self._region.cast("d")
        """What has been counted, by `index`."""
        self._at: dict[tuple[str, tuple[str, ...]], int] = {}
        self._slots = {key: slot for slot, (key, _) in enumerate(_records(self._region))}

    def add(self, counter: str, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Adds to one series. `labels` are the values for the counter's label names, in their order."""
        at = self._at.get((counter, labels))
        self.values[self.index(counter, labels) if at is None else at] += amount

    def index(self, counter: str, labels: tuple[str, ...]) -> int:
        """Where in `values` this series is counted."""
        at = self._at.get((counter, labels))
        if at is None:
            key = "\t".join((counter, *labels))
            slot = self._slots.get(key)
            slot = self._new_slot(key) if slot is None else slot
            at = self._at[counter, labels] = slot * (_RECORD // 8)
        return at

    def _new_slot(self, key: str) -> int:
        slot = len(self._slots)
        data = key.encode()
        if slot >= _RECORDS - len(_COUNTERS) or len(data) > _RECORD - _KEY_AT:
            counter = key.partition("\t")[0]
            key = "\t".join((counter, *("other" for _ in _COUNTERS[counter][1])))
            if key in self._slots:
                return self._slots[key]
            data = key.encode()
        at = slot * _RECORD
        self._region[at + _KEY_AT : at + _KEY_AT + len(data)] = data
        # The length last: a reader takes the record for written once it is not zero.
        struct.pack_into("=H", self._region, at + 8, len(data))
        self._slots[key] = slot
        return slot


def _records(region: memoryview) -> Iterator[tuple[str, float]]:
    for at in range(0, len(region), _RECORD):
        value, length = struct.unpack_from("=dH", region, at)
        if length == 0:
            return
        yield bytes(region[at + _KEY_AT : at + _KEY_AT + length]).decode(), value


class _SharedCollector(Collector):
    """Sums the regions of all workers when it is asked to."""

    def __init__(self, shared: SharedCounters) -> None:
        self._shared = shared

    def collect(self) -> Iterable[Metric]:
        for name, (text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=labels)
            for values, value in self._shared.sums(name).items():
                family.add_metric(values, value)
            yield family
        workers = GaugeMetricFamily("embedding_workers", "Worker processes that were configured.")
        workers.add_metric([], self._shared.workers)
        yield workers


def exposition(shared: SharedCounters) -> bytes:
    """The text format of Prometheus, summed over the workers."""
    registry = CollectorRegistry()
    registry.register(_SharedCollector(shared))
    return generate_latest(registry)
