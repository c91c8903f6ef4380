"""What this process serves: one immutable snapshot of loaded tables, replaced by assignment. No disk, no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock
from types import MappingProxyType

from service.errors import NotReady, TableNotFound
from service.manifest import Manifest
from service.table import EmbeddingTable


class TableState(StrEnum):
    """Where a table or one of its versions stands in this process."""

    AVAILABLE = "AVAILABLE"
    """On disk, not loaded."""
    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedTable:
    """A version in memory with what its manifest says and the name of the backend that holds it.

    `folder` tells its folder from another one that takes its place under the same number.
    """

    table: EmbeddingTable
    manifest: Manifest
    backend: str
    folder: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of the store as this process knows it.

    `active_version` is what the store says; `loaded` is what is served, None until a version could be loaded.
    """

    name: str
    active_version: int | None
    state: TableState
    loaded: LoadedTable | None = None
    reason: str | None = None

    def table(self) -> EmbeddingTable:
        """The table to look up in; raises NotReady with the reason why there is none."""
        if self.loaded is None:
            raise NotReady(self.name, self.reason or self.state.value)
        return self.loaded.table


class TableRegistry:
    """Readers take `entries` once and use only that; writers replace it as a whole, one after the other."""

    __slots__ = ("_writing", "entries", "settled")

    def __init__(self) -> None:
        self.entries: Mapping[str, Entry] = MappingProxyType({})
        self._writing = Lock()
        self.settled = False
        """True once every table of the store was loaded or found to be unloadable."""

    def get(self, name: str) -> EmbeddingTable:
        """The active table of this name; raises TableNotFound, NotReady."""
        entry = self.entries.get(name)
        if entry is None or entry.loaded is None:
            return self.entry(name).table()
        return entry.loaded.table

    def entry(self, name: str) -> Entry:
        """What is known of the table of this name; raises TableNotFound."""
        entry = self.entries.get(name)
        if entry is None:
            raise TableNotFound(name)
        return entry

    def swap(self, *entries: Entry) -> None:
        """Puts entries in the place of those of their names: all at once, by one assignment."""
        with self._writing:
            self.entries = MappingProxyType({**self.entries, **{entry.name: entry for entry in entries}})

    def drop(self, name: str) -> None:
        """Forgets a table that has left the store."""
        with self._writing:
            self.entries = MappingProxyType({key: entry for key, entry in self.entries.items() if key != name})

    def missing(self) -> list[Entry]:
        """Tables with an active version that are not served in any version; what readiness waits for."""
        return [entry for entry in self.entries.values() if entry.state in (TableState.LOADING, TableState.UNAVAILABLE)]


def failed(entry: Entry, active_version: int | None, reason: str) -> Entry:
    """`entry` after its active version could not be loaded: what was served before goes on being served."""
    state = TableState.READY if entry.loaded is not None else TableState.UNAVAILABLE
    return replace(entry, active_version=active_version, state=state, reason=reason)
