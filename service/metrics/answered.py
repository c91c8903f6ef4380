"""Counting lookups that are answered from one version at one endpoint: on the hot path, for many of them at a time.

A lookup of 64 ids takes 11 us of processor time in all; what is done here is a few additions for each batch.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from service.metrics.counters import Counters
from service.metrics.families import FAMILIES, REQUEST_IDS, REQUEST_SECONDS, REQUESTS
from service.types import TableVersion

_SECONDS: Final = FAMILIES[REQUEST_SECONDS].buckets
_IDS: Final = FAMILIES[REQUEST_IDS].buckets
_SUM_OF_SECONDS: Final = len(_SECONDS) + 1
_SUM_OF_IDS: Final = len(_IDS) + 1


class Answered:
    """The series of such lookups. For the one thread of the event loop."""

    __slots__ = ("_code", "_counters", "_endpoint", "_epoch", "_ids", "_numbers", "_requests", "_seconds", "_table")

    def __init__(self, counters: Counters, endpoint: str, table: TableVersion, code: str = "200") -> None:
        self._code = code
        self._counters = counters
        self._endpoint = endpoint
        self._table = table
        self._find()

    def _find(self) -> None:
        counters, name, endpoint = self._counters, self._table.name, self._endpoint
        self._epoch = counters.epoch  # before they are found: to find one may end another
        version = counters.version(name, self._table.version)
        self._requests = counters.index(REQUESTS, (name, version, endpoint, self._code))
        self._seconds = counters.index(REQUEST_SECONDS, (name, endpoint))
        self._ids = counters.index(REQUEST_IDS, (name, endpoint))
        self._numbers = counters.numbers

    def count(self, lengths: Sequence[int]) -> None:
        """As many lookups as there are `lengths`, each of so many ids."""
        if self._epoch != self._counters.epoch:
            self._find()
        numbers, at, count = self._numbers, self._ids, len(lengths)
        numbers[self._requests] += count
        numbers[at + _SUM_OF_IDS] += sum(lengths)
        if count and lengths.count(lengths[0]) == count:
            numbers[at + bisect_left(_IDS, lengths[0])] += count
            return
        for length in lengths:
            numbers[at + bisect_left(_IDS, length)] += 1

    def took(self, seconds: Sequence[float]) -> None:
        """How long each of some lookups took, at least one, which were just counted."""
        numbers, at = self._numbers, self._seconds
        if len(seconds) == 1:
            numbers[at + _SUM_OF_SECONDS] += seconds[0]
            numbers[at + bisect_left(_SECONDS, seconds[0])] += 1
            return
        numbers[at + _SUM_OF_SECONDS] += sum(seconds)
        first, last = bisect_left(_SECONDS, min(seconds)), bisect_left(_SECONDS, max(seconds))
        if first == last:
            numbers[at + first] += len(seconds)
            return
        for each in seconds:
            numbers[at + bisect_left(_SECONDS, each)] += 1
