"""What this process is doing now, put where all see it: a few times a second, and when metrics are asked for."""

from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import Final

import numpy as np

from service.api.admission import Admission
from service.metrics import Counters, TableGauges
from service.opened import OpenedVersions
from service.registry import Entry, TableRegistry
from service.table import EmbeddingTable

_SCALE: Final = 4  # bytes of the scale of an int8 row
_LOOK_SECONDS: Final = 5.0
"""After so long the tables are looked at again, whether or not they seem to be others."""


class ProcessGauges:
    """Those of one process. For the event loop. `connections` are its open ones, kept up to date by its server."""

    def __init__(
        self, registry: TableRegistry, opened: OpenedVersions, admission: Admission, counters: Counters
    ) -> None:
        self.connections = 0
        self._registry = registry
        self._opened = opened
        self._admission = admission
        self._counters = counters
        self._seen: tuple[Mapping[str, Entry], int] | None = None
        self._look_at = 0.0

    def put(self) -> None:
        """Puts them all; what is known of the tables only where it has changed."""
        gauges, number = self._counters.shared.gauges, self._counters.process
        gauges.put_numbers(number, self._admission.in_flight, self._admission.waiting, self.connections)
        entries, count = self._registry.entries, self._opened.count
        is_same = self._seen is not None and self._seen[0] is entries and self._seen[1] == count
        if not is_same or monotonic() >= self._look_at:
            gauges.put_tables(number, self._tables(entries))
            self._seen, self._look_at = (entries, count), monotonic() + _LOOK_SECONDS

    def _tables(self, entries: Mapping[str, Entry]) -> dict[str, TableGauges]:
        versions, mapped = Counter[str](), Counter[str]()
        for table in self._opened.open_tables():
            versions[table.identity.name] += 1
            mapped[table.identity.name] += _bytes_of(table)
        return {
            name: TableGauges(entry.active_version, _served(entry), versions[name], mapped[name])
            for name, entry in entries.items()
        }


def _served(entry: Entry) -> int | None:
    return None if entry.loaded is None else entry.loaded.table.identity.version


def _bytes_of(table: EmbeddingTable) -> int:
    """Bytes of the rows as they are stored."""
    row = table.embedding_dim * np.dtype(table.dtype).itemsize
    return table.num_embeddings * (row + _SCALE * (table.dtype == "int8"))
