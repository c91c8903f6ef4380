"""What one process counts, by the series of its own region."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from threading import RLock
from time import monotonic
from typing import Final

from service.metrics.families import FAMILIES, OTHER, RETIRED, STORED
from service.metrics.shared import LONGEST_KEY, RECORDS, Region, SharedCounters

_LAST: Final = len(FAMILIES)
"""Records for the series of every family whose labels are all `other`: what finds no room anywhere."""
_SHARE_FOR_OTHER: Final = 16
"""One record of so many is for tables without series of their own, by endpoint and code."""
_MOST_VERSIONS: Final = 8
_MOST_RETIRED: Final = 16
_SWEEP_SECONDS: Final = 10.0  # at least, between two looks for tables that are gone: each takes milliseconds


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
        self._free = deque(sorted({*range(1, self._region.used)} - {*self._slots.values()}))
        """Records whose series have ended; the one that ended first is taken first."""
        self._reserved = max(_LAST, RECORDS // _SHARE_FOR_OTHER)
        self._sweep_at = 0.0
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
            self.numbers[at + bisect_left(buckets, value)] += 1
            self.numbers[at + len(buckets) + 1] += value

    def index(self, family: str, labels: tuple[str, ...]) -> int:
        """Where in `numbers` those of a series begin."""
        at = self._at.get((family, labels))
        if at is None:
            with self._lock:
                at = self._at[family, labels] = Region.at(self._slot(family, labels))
        return at

    def version(self, table: str, version: int) -> str:
        """The label value for a version of a table: eight have series of their own, the last that came into force."""
        label = str(version)
        known = self._versions.get(table, [])
        if label in known:
            return label
        if len(known) >= _MOST_VERSIONS:
            return OTHER
        self.introduce(table, version)
        return label

    def introduce(self, table: str, version: int) -> None:
        """A version has come into force: it has series of its own from now on, in the place of the oldest one's."""
        label = str(version)
        with self._lock:
            known = self._versions.setdefault(table, [])
            if label in known:
                known.remove(label)
            elif len(known) >= _MOST_VERSIONS:
                self._retire(table, known.pop(0))
            known.append(label)
            retired = _key(RETIRED, (table, label))
            self._end_series([retired] if retired in self._slots else [])

    def _retire(self, table: str, label: str) -> None:
        self._end_series(self._of_version(table, label))
        self.epoch += 1
        self.index(RETIRED, (table, label))
        retired = [key for key in self._slots if _family(key) == RETIRED and _labels(key)["table"] == table]
        self._end_series(retired[:-_MOST_RETIRED])

    def _of_version(self, table: str, version: str) -> list[bytes]:
        wanted = {"table": table, "version": version}.items()
        return [key for key in self._slots if wanted <= _labels(key).items()]

    def _note_version(self, key: bytes) -> None:
        labels = _labels(key)
        if _family(key) != RETIRED and labels.get("version", "") not in ("", OTHER):
            known = self._versions.setdefault(labels["table"], [])
            if labels["version"] not in known:
                known.append(labels["version"])

    def _slot(self, family: str, labels: tuple[str, ...]) -> int:
        """That of a series, or of the one for those that find no room."""
        key = _key(family, labels)
        for wanted, kept_free in ((key, self._reserved), (_of_others(family, labels), _LAST)):
            if wanted in self._slots:
                return self._slots[wanted]
            if len(wanted) <= LONGEST_KEY and self._has_room(kept_free):
                return self._new_slot(wanted)
        last = _key(family, (OTHER,) * len(labels))
        return self._slots[last] if last in self._slots else self._new_slot(last)

    def _new_slot(self, key: bytes) -> int:
        slot = self._free.popleft() if self._free else self._region.used
        self._region.write(slot, key)
        self._slots[key] = slot
        return slot

    def _has_room(self, kept_free: int) -> bool:
        most = RECORDS - 1 - kept_free
        if len(self._slots) < most:
            return True
        if monotonic() >= self._sweep_at:
            self._sweep_at = monotonic() + _SWEEP_SECONDS
            self._end_series([key for key in self._slots if not self._is_served(_labels(key).get("table"))])
            self._versions = {table: known for table, known in self._versions.items() if self._is_served(table)}
        return len(self._slots) < most

    def _is_served(self, table: str | None) -> bool:
        return table in (None, "", OTHER) or self.is_served(str(table))

    def _end_series(self, keys: list[bytes]) -> None:
        if not keys:
            return
        for key in keys:
            slot = self._slots.pop(key)
            self._region.erase(slot)
            self._free.append(slot)
        self._at.clear()
        self.epoch += 1


def _key(family: str, labels: tuple[str, ...]) -> bytes:
    return "\t".join((family, *labels)).encode()


def _of_others(family: str, labels: tuple[str, ...]) -> bytes:
    """The series for all tables that have none of their own: what else is said of them is one of a few."""
    names = STORED[family].labels
    found = (OTHER if name in ("table", "version") else value for name, value in zip(names, labels, strict=True))
    return _key(family, tuple(found))


def _family(key: bytes) -> str:
    return key.partition(b"\t")[0].decode()


def _labels(key: bytes) -> dict[str, str]:
    """The labels of a series by their names."""
    family, *values = key.decode().split("\t")
    return dict(zip(STORED[family].labels, values, strict=True))
