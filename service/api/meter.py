"""What the endpoints of one process tell the metrics: lookups answered and refused, whatever protocol they came by."""

from collections.abc import Mapping
from time import perf_counter
from typing import Final

from service.errors import OutOfVocabulary
from service.metrics import Answered, Counters
from service.metrics.families import LOADS, OOV_IDS, REQUEST_IDS, REQUEST_SECONDS, REQUESTS, ROW_TEXTS
from service.registry import TableRegistry
from service.types import TableVersion

_MOST: Final = 4096
_NOWHERE: Final = ("", "")
"""The table and the version of a lookup that has reached none, or several."""


class Meter:
    """Counts lookups. `since`, wherever it is asked for, is when the last byte of a request was there, by
    `perf_counter`. For the event loop, but for what is told of tables: `outside`, `texts` and `loads`.
    """

    def __init__(self, registry: TableRegistry, counters: Counters) -> None:
        self.counters = counters
        self._registry = registry
        self._answered: dict[tuple[str, TableVersion], Answered] = {}
        counters.is_served = self._is_served

    def _is_served(self, table: str) -> bool:
        return table in self._registry.entries

    def answered(self, endpoint: str, table: TableVersion, ids: int, since: float, code: str = "200") -> None:
        """A lookup of so many ids in one table, answered as asked; `code` is what the protocol calls that."""
        found = self._answered.get((endpoint, table))
        if found is None:
            if len(self._answered) >= _MOST:
                self._answered.clear()
            found = self._answered[endpoint, table] = Answered(self.counters, endpoint, table, code)
        found.count((ids,))
        found.took((perf_counter() - since,))

    def answered_several(self, endpoint: str, ids: Mapping[TableVersion, list[int]], since: float) -> None:
        """Lookups in several tables that came as one request; `ids` are how many each of them had."""
        for table, counts in ids.items():
            for count in counts:
                self.counters.observe(REQUEST_IDS, (table.name, endpoint), count)
        self.counters.add(REQUESTS, (*_NOWHERE, endpoint, "200"))
        self.counters.observe(REQUEST_SECONDS, ("", endpoint), perf_counter() - since)

    def refused(self, endpoint: str, table: str, code: str, error: Exception | None = None) -> None:
        """A lookup answered with an error, under the name of its table if that is served."""
        name = table if self._is_served(table) else ""  # bounds the metrics' memory
        version = ""
        found = getattr(error, "table", None)
        if name and isinstance(found, TableVersion):
            version = self.counters.version(name, found.version)
        self.counters.add(REQUESTS, (name, version, endpoint, code))

    def told(self, error: Exception) -> None:
        """An error that is told to a client."""
        if isinstance(error, OutOfVocabulary):
            self.outside(error.table.name, error.total)

    def outside(self, table: str, ids: int) -> None:
        """Ids or tokens that a table does not have."""
        self.counters.add(OOV_IDS, (table,), ids)

    def loads(self, table: str, done: bool) -> None:
        """A version of a table was opened, or could not be."""
        self.counters.begin(LOADS, (table, "failed"))
        self.counters.add(LOADS, (table, "loaded" if done else "failed"))

    def texts(self, table: str, hits: int, rendered: int) -> None:
        """Rows written as JSON: with texts that were kept, and with new ones."""
        if hits:
            self.counters.add(ROW_TEXTS, (table, "hit"), hits)
        if rendered:
            self.counters.add(ROW_TEXTS, (table, "rendered"), rendered)
