"""What one process counts, by the series of its own region."""

from bisect import bisect_left
from collections.abc import Callable
from threading import RLock
from typing import Final

from service.metrics.families import FAMILIES, OTHER
from service.metrics.shared import LONGEST_KEY, RECORDS, Region, SharedCounters

_RESERVED: Final = len(FAMILIES)
"""Records for the series `other` of every family, which take what finds no room."""
_MOST_VERSIONS: Final = 8


class Counters:
    """The counters and histograms of this process.

    `add` and `observe` may be called from any thread; `numbers` are for those that count on one thread alone.
    `is_served` says which tables are there: what is known of others makes room when there is none.
    """

    def __init__(self, shared: SharedCounters, process: int) -> None:
        self.shared = shared
        self.is_served: Callable[[str], bool] = lambda _: True
        self._lock = RLock()
        self.epoch = -1
        self.move_to(process)

    def move_to(self, process: int) -> None:
        """Counts in the region of this process from now on: what is done once it has been forked."""
        self.process = process
        self._region: Region = self.shared.region(process)
        self.numbers = self._region.numbers
        """What has been counted; a series has its first number at its `index`."""
        self.epoch += 1
        """Another one after each time that series have ended: an index that was asked for before may be another's."""
        self._at: dict[tuple[str, tuple[str, ...]], int] = {}
        self._slots = {key: slot for slot, key in self._region.named()}
        self._free = sorted({*range(1, self._region.used)} - {*self._slots.values()})
        self._versions: dict[str, list[str]] = {}
        for key in self._slots:
            self._note_version(key)

    def add(self, family: str, labels: tuple[str, ...] = (), amount: float = 1.0) -> None:
        """Adds to one counter. `labels` are the values for the family's label names, in their order."""
        with self._lock:
            self.numbers[self.index(family, labels)] += amount

    def begin(self, family: str, labels: tuple[str, ...] = ()) -> None:
        """Has a counter be there with 0, as long as nothing has happened: else its first event would not be a rise."""
        self.index(family, labels)

    def observe(self, family: str, labels: tuple[str, ...], value: float) -> None:
        """Counts one value in a histogram."""
        buckets = FAMILIES[family].buckets
        with self._lock:
            at = self.index(family, labels)
            self.numbers[at + bucket_of(buckets, value)] += 1
            self.numbers[at + len(buckets) + 1] += value

    def index(self, family: str, labels: tuple[str, ...]) -> int:
        """Where in `numbers` those of a series begin."""
        at = self._at.get((family, labels))
        if at is None:
            with self._lock:
                at = self._at[family, labels] = Region.at(self._slot("\t".join((family, *labels))))
        return at

    def version(self, table: str, version: int, *, in_force: bool = False) -> str:
        """The label value for a version of a table: eight have series of their own, the last that were in force."""
        label = str(version)
        known = self._versions.get(table, [])
        if label in known and not in_force:
            return label
        if len(known) < _MOST_VERSIONS or in_force:
            with self._lock:
                self._introduce(table, label)
            return label
        return OTHER

    def _introduce(self, table: str, label: str) -> None:
        known = self._versions.setdefault(table, [])
        if label in known:
            known.remove(label)
        elif len(known) >= _MOST_VERSIONS:
            self._end_series(self._of_version(table, known.pop(0)))
        known.append(label)

    def _of_version(self, table: str, version: str) -> list[bytes]:
        wanted = {"table": table, "version": version}.items()
        return [key for key in self._slots if wanted <= _labels(key).items()]

    def _note_version(self, key: bytes) -> None:
        labels = _labels(key)
        if labels.get("version", "") not in ("", OTHER):
            known = self._versions.setdefault(labels["table"], [])
            if labels["version"] not in known:
                known.append(labels["version"])

    def _slot(self, key: str) -> int:
        data = key.encode()
        slot = self._slots.get(data)
        return self._new_slot(key) if slot is None else slot

    def _new_slot(self, key: str) -> int:
        data = key.encode()
        if len(data) > LONGEST_KEY or not self._has_room():
            family = key.partition("\t")[0]
            data = "\t".join((family, *(OTHER for _ in FAMILIES[family].labels))).encode()
            if data in self._slots:
                return self._slots[data]
        slot = self._free.pop() if self._free else self._region.used
        self._region.write(slot, data)
        self._slots[data] = slot
        return slot

    def _has_room(self) -> bool:
        if len(self._slots) < RECORDS - 1 - _RESERVED:
            return True
        self._end_series([key for key in self._slots if not self._is_served(_labels(key).get("table"))])
        self._versions = {table: known for table, known in self._versions.items() if self._is_served(table)}
        return len(self._slots) < RECORDS - 1 - _RESERVED

    def _is_served(self, table: str | None) -> bool:
        return table in (None, "", OTHER) or self.is_served(str(table))

    def _end_series(self, keys: list[bytes]) -> None:
        for key in keys:
            slot = self._slots.pop(key)
            self._region.erase(slot)
            self._free.append(slot)
        self._at.clear()
        self.epoch += bool(keys)


def _labels(key: bytes) -> dict[str, str]:
    """The labels of a series by their names."""
    family, *values = key.decode().split("\t")
    return dict(zip(FAMILIES[family].labels, values, strict=True))


def bucket_of(buckets: tuple[float, ...], value: float) -> int:
    """The bucket that a value belongs to: the first whose upper bound it does not exceed."""
    return bisect_left(buckets, value)
