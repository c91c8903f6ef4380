"""The memory for counters and histograms: a region for each process, and in it a record for each series.

A process writes to its own region only, so that no lock is taken and no update is lost. A replaced process goes on
with the region of the one before it, so that counters never go back.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from service.metrics.families import REQUESTS, RETIRED, STORED
from service.metrics.gauges import SharedGauges

RECORD: Final = 512
"""Bytes of a record: check sum of the key, length of the key, numbers (float64), the key."""
_HEAD: Final = struct.Struct("=IHxx")
NUMBERS_AT: Final = 8
_MOST_NUMBERS: Final = 20
_KEY_AT: Final = NUMBERS_AT + 8 * _MOST_NUMBERS
LONGEST_KEY: Final = RECORD - _KEY_AT
RECORDS: Final = 8192
"""Of a region, the first of which says how many are in use. What is never used takes no memory."""
_REGION: Final = RECORD * RECORDS
_TRIES: Final = 3

assert all(family.width <= _MOST_NUMBERS for family in STORED.values())  # noqa: S101


class Record(NamedTuple):
    """One series as it is read: its name, the values of its labels, its numbers."""

    family: str
    labels: tuple[str, ...]
    numbers: tuple[float, ...]


class Region:
    """The records of one process. One process writes, any may read."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.numbers = memory.cast("d")
        """All of it as float64; the numbers of a record are from `at` on."""

    @staticmethod
    def at(slot: int) -> int:
        """Where in `numbers` those of a record are."""
        return (slot * RECORD + NUMBERS_AT) // 8

    @property
    def used(self) -> int:
        """How many records were ever in use, the first one, which is none, included."""
        return int.from_bytes(self._memory[:8], "little") or 1

    def write(self, slot: int, key: bytes) -> None:
        """Begins a series with zeros. Who reads meanwhile sees the one before it, or none."""
        start = slot * RECORD
        self.erase(slot)
        self._memory[start + NUMBERS_AT : start + _KEY_AT] = bytes(_KEY_AT - NUMBERS_AT)
        self._memory[start + _KEY_AT : start + _KEY_AT + len(key)] = key
        _HEAD.pack_into(self._memory, start, zlib.crc32(key), len(key))
        if slot >= self.used:
            self._memory[:8] = (slot + 1).to_bytes(8, "little")

    def erase(self, slot: int) -> None:
        """Ends a series."""
        _HEAD.pack_into(self._memory, slot * RECORD, 0, 0)

    def named(self) -> Iterator[tuple[int, bytes]]:
        """Every record in use: its slot and its key."""
        for slot in range(1, self.used):
            key = self._key(slot)
            if key is not None:
                yield slot, key

    def records(self) -> Iterator[Record]:
        """Every series, as it is now."""
        for slot in range(1, self.used):
            record = self._record(slot)
            if record is not None:
                yield record

    def _key(self, slot: int) -> bytes | None:
        start = slot * RECORD
        check, length = _HEAD.unpack_from(self._memory, start)
        key = bytes(self._memory[start + _KEY_AT : start + _KEY_AT + length])
        return key if length and zlib.crc32(key) == check else None

    def _record(self, slot: int) -> Record | None:
        """The numbers belong to the key if that is the same before and after they were read."""
        for _ in range(_TRIES):
            key = self._key(slot)
            if key is None:
                continue
            family, *labels = key.decode().split("\t")
            at = self.at(slot)
            numbers = tuple(self.numbers[at : at + STORED[family].width])
            if self._key(slot) == key:
                return Record(family, tuple(labels), numbers)
        return None


class SharedCounters:
    """The memory for `workers` processes, the steward and the supervisor; made before they are forked."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.gauges = SharedGauges(workers)
        self._memory = mmap.mmap(-1, (workers + 2) * _REGION)

    @property
    def steward(self) -> int:
        """The region of the process that changes the store."""
        return self.workers

    @property
    def supervisor(self) -> int:
        """The region of the parent of all."""
        return self.workers + 1

    def region(self, process: int) -> Region:
        """What belongs to one process: workers have their numbers."""
        return Region(memoryview(self._memory)[process * _REGION : (process + 1) * _REGION])

    def sums(self, family: str) -> dict[tuple[str, ...], tuple[float, ...]]:
        """What all processes have counted of one family, by the values of its labels."""
        return self.all_sums().get(family, {})

    def all_sums(self) -> dict[str, dict[tuple[str, ...], tuple[float, ...]]]:
        """The same of every family that anything was counted of.

        A version that one process has retired is left out as a whole: a sum that falls, as one after the other does so,
        would be taken for a counter that began anew.
        """
        found: dict[str, dict[tuple[str, ...], tuple[float, ...]]] = {}
        for process in range(self.workers + 2):
            for family, labels, numbers in self.region(process).records():
                series = found.setdefault(family, {})
                before = series.get(labels)
                series[labels] = numbers if before is None else tuple(map(float.__add__, before, numbers))
        retired = found.pop(RETIRED, {})
        if retired and REQUESTS in found:
            found[REQUESTS] = {labels: sums for labels, sums in found[REQUESTS].items() if labels[:2] not in retired}
        return found
