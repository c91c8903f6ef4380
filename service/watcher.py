"""Makes the registry follow the store: loads what is active, opens older versions on demand.

All disk work runs on one thread per watcher, so the registry has one writer and the event loop never waits.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from weakref import WeakValueDictionary

from service.errors import Conflict, NotReady, ServiceError
from service.loader import load
from service.registry import Entry, LoadedTable, TableRegistry, TableState, failed
from service.store import TableStore
from service.table import EmbeddingTable
from service.types import TableVersion

_RETRY_SECONDS: Final = 10.0  # a version that could not be loaded is not read again at every poll
_log = logging.getLogger(__name__)


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
        self._open: WeakValueDictionary[TableVersion, LoadedTable] = WeakValueDictionary()
        self._kept: dict[str, OrderedDict[int, LoadedTable]] = {}
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
        elif entry.loaded is not None and entry.loaded.table.identity.version == active:
            self._put(Entry(name, active, TableState.READY, entry.loaded))
        else:
            self._load_active(entry, TableVersion(name, active))

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

    async def older(self, version: TableVersion) -> EmbeddingTable:
        """A version that need not be the active one, opened if it is not open.

        Raises TableNotFound, VersionNotFound, and NotReady with the reason if it cannot be loaded.
        """
        return await asyncio.get_running_loop().run_in_executor(self._disk, self._open_older, version)

    async def labelled(self, name: str, label: str) -> EmbeddingTable:
        """The version that a label names, as `older` gives it; raises LabelNotFound besides."""
        loop = asyncio.get_running_loop()
        version = await loop.run_in_executor(self._disk, self.store.labelled, name, label)
        return self.served(version) or await self.older(version)

    def served(self, version: TableVersion) -> EmbeddingTable | None:
        """The table of this version if it is the one that is served, else None."""
        entry = self.registry.entries.get(version.name)
        if entry is None or entry.loaded is None or entry.loaded.table.identity != version:
            return None
        return entry.loaded.table

    def is_open(self, version: TableVersion) -> bool:
        """Whether the version is in memory, active or not."""
        return self.served(version) is not None or version in self._open

    def _open_older(self, version: TableVersion) -> EmbeddingTable:
        self.store.version(version)  # it may have been deleted while it was kept open
        try:
            loaded = self._open.get(version) or self._load(version)
        except (Conflict, OSError) as error:
            raise NotReady(version.name, str(error)) from error
        self._keep(loaded)
        return loaded.table

    def _keep(self, loaded: LoadedTable) -> None:
        identity = loaded.table.identity
        kept = self._kept.setdefault(identity.name, OrderedDict())
        kept[identity.version] = loaded
        kept.move_to_end(identity.version)
        while len(kept) > self._keep_loaded:
            kept.popitem(last=False)

    def _load(self, version: TableVersion) -> LoadedTable:
        loaded = load(self.store, version, self._backend)
        self._open[version] = loaded
        return loaded
