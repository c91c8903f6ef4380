"""Makes the registry follow the store: loads what is active, opens older versions on demand.

All disk work runs on one thread per watcher, so the registry has one writer and the event loop never waits.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from service.errors import Conflict, LabelNotFound, NotReady, ServiceError, TableNotFound
from service.loader import load
from service.registry import Entry, LoadedTable, TableRegistry, TableState, failed
from service.store import TableStore
from service.table import EmbeddingTable
from service.types import TableVersion

_RETRY_SECONDS: Final = 10.0  # a version that could not be loaded is not read again at every poll
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Which rows a request names: a table's active version, one of its versions, or what a label names."""

    table: str
    version: int | None = None
    label: str | None = None


class StoreWatcher:
    """Follows one store for one registry. `keep_loaded` older versions per table stay open after their use."""

    def __init__(
        self,
        store: TableStore,
        registry: TableRegistry,
        *,
        backend: str = "numpy",
        poll_seconds: float = 0.5,
        keep_loaded: int = 0,
    ) -> None:
        self.store = store
        self.registry = registry
        self._backend = backend
        self._poll_seconds = poll_seconds
        self._keep_loaded = keep_loaded
        self._retry_at: dict[TableVersion, float] = {}
        self._open: WeakValueDictionary[TableVersion, EmbeddingTable] = WeakValueDictionary()
        self._folders: dict[TableVersion, tuple[int, int]] = {}
        self._kept: dict[str, OrderedDict[int, EmbeddingTable]] = {}
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    # Active versions

    async def run(self, first_look: asyncio.Event | None = None) -> None:
        """Follows the store until cancelled; sets `first_look` after the first pass over it."""
        while True:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._refresh_or_log)
            if first_look is not None:
                first_look.set()
            await asyncio.sleep(self._poll_seconds)

    def close(self) -> None:
        """Lets go of the thread; a version that is being loaded is not waited for."""
        self._disk.shutdown(wait=False, cancel_futures=True)

    def _refresh_or_log(self) -> None:
        try:
            self.refresh()
        except Exception:  # noqa: BLE001  (what is loaded serves on, and the next look may succeed)
            _log.exception("the store cannot be read")

    def refresh(self) -> None:
        """One pass over the store. Blocks; a table that cannot be loaded becomes UNAVAILABLE, nothing else."""
        if self.registry.entries and not self.store.root.is_dir():
            _log.warning("the store %s is out of reach; what is loaded serves on", self.store.root)
            return
        names = self.store.tables()
        for gone in self.registry.entries.keys() - set(names):
            self.registry.drop(gone)
        for name in names:
            self._follow(name)
        self.registry.settled = True

    def _follow(self, name: str) -> None:
        entry = self.registry.entries.get(name) or Entry(name, None, TableState.AVAILABLE)
        try:
            active = self.store.active_version(name)
        except (ServiceError, OSError) as error:
            self._put(failed(entry, None, str(error)))
            return
        if active is None:
            idle = Entry(name, None, TableState.AVAILABLE, reason="no version is active")
            self._put(idle if entry.loaded is None else failed(entry, None, "the store names no active version"))
        elif entry.loaded is not None and self._is_still(entry.loaded, active):
            self._put(Entry(name, active, TableState.READY, entry.loaded))
        else:
            self._load_active(entry, TableVersion(name, active))

    def _is_still(self, loaded: LoadedTable, active: int) -> bool:
        """Whether the active version is the one that is loaded, and not another folder in its place."""
        if loaded.table.identity.version != active:
            return False
        try:
            return self.store.version(loaded.table.identity).identity() == loaded.folder
        except (ServiceError, OSError):  # it has vanished below us: what is mapped serves on
            return True

    def _put(self, entry: Entry) -> None:
        if self.registry.entries.get(entry.name) != entry:
            self.registry.swap(entry)

    def _load_active(self, entry: Entry, version: TableVersion) -> None:
        if time.monotonic() < self._retry_at.get(version, 0.0):
            return
        if entry.loaded is None:
            self.registry.swap(Entry(entry.name, version.version, TableState.LOADING))
        try:
            loaded = self._load(version)
        except Exception as error:  # noqa: BLE001  (one table must never take the others with it)
            expected = isinstance(error, ServiceError | OSError)
            _log.error("%s cannot be loaded: %s", version, error, exc_info=None if expected else error)
            self._retry_at[version] = time.monotonic() + _RETRY_SECONDS
            self.registry.swap(failed(entry, version.version, str(error)))
        else:
            self._retry_at.pop(version, None)
            self.registry.swap(Entry(entry.name, version.version, TableState.READY, loaded))
            _log.info("%s is served", version)

    # Other versions

    async def resolve(self, targets: Iterable[Target], entries: Mapping[str, Entry]) -> dict[Target, EmbeddingTable]:
        """The table of every target, each version opened once; what `entries` serve is taken from there.

        All labels are read in one step, so that those of one table agree. Raises TableNotFound,
        VersionNotFound, LabelNotFound, and NotReady with the reason if a version cannot be loaded.
        """
        found = {target: _served(target, entries) for target in targets}
        if any(table is None for table in found.values()):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._disk, self._resolve, found, entries)
        return {target: table for target, table in found.items() if table is not None}

    def is_open(self, version: TableVersion) -> bool:
        """Whether the version is in memory, active or not."""
        return version in self._open

    def _resolve(
        self, found: Mapping[Target, EmbeddingTable | None], entries: Mapping[str, Entry]
    ) -> dict[Target, EmbeddingTable]:
        tables = {target.table for target, table in found.items() if table is None and target.label is not None}
        labels = {name: self.store.labels(name) for name in tables}
        return {
            target: table or self._of_version(_version_of(target, labels), entries) for target, table in found.items()
        }

    def _of_version(self, version: TableVersion, entries: Mapping[str, Entry]) -> EmbeddingTable:
        return _served(Target(version.name, version.version), entries) or self._open_older(version)

    def _open_older(self, version: TableVersion) -> EmbeddingTable:
        folder = self.store.version(version)  # it may have been deleted while it was kept open
        try:
            table = self._open.get(version)
            if table is None or self._folders.get(version) != folder.identity():
                table = self._load(version).table
        except (Conflict, OSError) as error:
            reason = str(error) if isinstance(error, Conflict) else "it cannot be read"
            raise NotReady(version.name, reason) from error
        self._keep(table)
        return table

    def _keep(self, table: EmbeddingTable) -> None:
        kept = self._kept.setdefault(table.identity.name, OrderedDict())
        kept[table.identity.version] = table
        kept.move_to_end(table.identity.version)
        while len(kept) > self._keep_loaded:
            kept.popitem(last=False)

    def _load(self, version: TableVersion) -> LoadedTable:
        loaded = load(self.store, version, self._backend)
        self._open[version] = loaded.table
        self._folders[version] = loaded.folder
        return loaded


def _served(target: Target, entries: Mapping[str, Entry]) -> EmbeddingTable | None:
    """What is served already, without a look at the disk; raises TableNotFound, and NotReady for an active version."""
    entry = entries.get(target.table)
    if entry is None:
        raise TableNotFound(target.table)
    if target.label is not None:
        return None
    if target.version is None:
        return entry.table()
    loaded = entry.loaded
    return loaded.table if loaded is not None and loaded.table.identity.version == target.version else None


def _version_of(target: Target, labels: Mapping[str, Mapping[str, int]]) -> TableVersion:
    if target.label is None:
        assert target.version is not None  # noqa: S101  (an active version is never looked for on disk)
        return TableVersion(target.table, target.version)
    if target.label not in labels[target.table]:
        raise LabelNotFound(target.table, target.label)
    return TableVersion(target.table, labels[target.table][target.label])
