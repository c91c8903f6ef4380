"""What each worker is doing now, in memory that all processes share: numbers, and what it knows of its tables as JSON.

A worker writes ten times a second, and when it is asked for its metrics. What a dead one wrote is wiped out.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import orjson

_HEAD: Final = struct.Struct("=4dII")
"""Whether the worker serves, lookups in flight, lookups that wait, connections; check sum and length of the rest."""
_REGION: Final = 1 << 20
_TRIES: Final = 3


class TableGauges(NamedTuple):
    """What a worker knows of one table: the version it serves (None for none), versions open, bytes mapped for them.

    `wanted` is the version that the store says is active.
    """

    wanted: int | None
    served: int | None
    versions: int
    mapped_bytes: int


class Gauges(NamedTuple):
    """What one worker is doing."""

    ready: bool
    in_flight: int
    waiting: int
    connections: int
    tables: Mapping[str, TableGauges]


class SharedGauges:
    """Those of `workers` processes. Each writes its own."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = memoryview(mmap.mmap(-1, workers * _REGION))

    def put_numbers(self, worker: int, in_flight: int, waiting: int, connections: int) -> None:
        """Says that this worker serves, and what it has to do."""
        struct.pack_into("=4d", self._memory, worker * _REGION, 1.0, in_flight, waiting, connections)

    def put_tables(self, worker: int, tables: Mapping[str, TableGauges]) -> None:
        """What a worker knows of its tables; as many of them as there is room for, some 10,000."""
        most = _REGION - _HEAD.size
        text = orjson.dumps({name: list(gauges) for name, gauges in tables.items()})
        while len(text) > most:
            tables = dict(list(tables.items())[: len(tables) // 2])
            text = orjson.dumps({name: list(gauges) for name, gauges in tables.items()})
        start = worker * _REGION
        self._memory[start + _HEAD.size : start + _HEAD.size + len(text)] = text
        struct.pack_into("=II", self._memory, start + 32, zlib.crc32(text), len(text))

    def clear(self, worker: int) -> None:
        """Wipes out what a worker wrote that has died."""
        _HEAD.pack_into(self._memory, worker * _REGION, 0.0, 0.0, 0.0, 0.0, 0, 0)

    def all(self) -> Iterator[Gauges]:
        """What each worker that serves is doing."""
        for worker in range(self._workers):
            found = self._of(worker)
            if found.ready:
                yield found

    def _of(self, worker: int) -> Gauges:
        start = worker * _REGION
        tables: Mapping[str, TableGauges] = {}
        for _ in range(_TRIES):  # it may be written meanwhile
            ready, in_flight, waiting, connections, check, length = _HEAD.unpack_from(self._memory, start)
            text = bytes(self._memory[start + _HEAD.size : start + _HEAD.size + length])
            if length and zlib.crc32(text) == check:
                tables = {name: TableGauges(*gauges) for name, gauges in orjson.loads(text).items()}
                break
        return Gauges(bool(ready), int(in_flight), int(waiting), int(connections), tables)
