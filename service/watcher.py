"""Makes the registry follow the store, and takes part in its changes: prepares versions aside, puts them in force.

All disk work runs on one thread per watcher, so that the event loop never waits. It reads the store's content, never
time stamps, and takes no lock: this also follows changes that another host makes over a shared file system.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Final

from service.backends import NUMPY, Fetching
from service.errors import Conflict, ServiceError
from service.opened import OpenedVersions
from service.registry import Entry, LoadedTable, TableRegistry, TableState, failed
from service.store import UNLOADED, TableStore
from service.systemerrors import reason_of
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
        fetching: Fetching = NUMPY,
        poll_seconds: float = 0.5,
        keep_loaded: int = 0,
        text_bytes: int = 0,
    ) -> None:
        self.store = store
        self.registry = registry
        self.opened = OpenedVersions(store, fetching, keep_loaded, text_bytes)
        self._poll_seconds = poll_seconds
        self._retry_at: dict[TableVersion, float] = {}
        self._changing = Lock()
        self._commits: Counter[str] = Counter()
        self._preparing: str | None = None
        self._prepared: dict[str, LoadedTable] = {}
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(self, first_look: asyncio.Event | None = None) -> None:
        """Follows the store until cancelled; sets `first_look` after the first pass over it."""
        while True:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._refresh_or_log)
            if first_look is not None:
                first_look.set()
            await asyncio.sleep(self._poll_seconds)

    def close(self) -> None:
        """Lets go of the threads; a version that is being loaded is not waited for."""
        self._disk.shutdown(wait=False, cancel_futures=True)
        self.opened.close()

    # A change of all workers: prepared aside while the old versions serve, then put in force by one assignment

    async def prepare(self, change: str, targets: Mapping[str, int]) -> None:
        """Opens, checks and warms these versions aside, for `commit` with the same name of a change.

        Raises what opening raises, ServiceError or OSError; then nothing is kept. A newer change takes the place of
        one that was neither committed nor abandoned.
        """
        if self._preparing == change and self._prepared.keys() == targets.keys():
            return
        self._preparing, self._prepared = change, {}
        loaded = await asyncio.get_running_loop().run_in_executor(self._disk, self._load_all, targets)
        if self._preparing == change:
            self._prepared = loaded

    def commit(self, change: str, targets: Mapping[str, int]) -> bool:
        """Serves what was prepared from now on, all of it by one assignment; False if it was not prepared here."""
        if self._preparing != change or self._prepared.keys() != targets.keys():
            return False
        loaded, self._preparing, self._prepared = self._prepared, None, {}
        entries = [Entry(name, targets[name], TableState.READY, table) for name, table in loaded.items()]
        with self._changing:
            self._commits.update(targets.keys())
            self._swap(entries)
        return True

    def abandon(self, change: str | None = None) -> None:
        """Lets go of what was prepared for this change, or for any."""
        if change in (None, self._preparing):
            self._preparing, self._prepared = None, {}

    async def follow(self) -> None:
        """Looks at the store now, also at versions that could not be loaded a moment ago."""
        await asyncio.get_running_loop().run_in_executor(self._disk, self._look_again)

    def serves(self, targets: Mapping[str, int]) -> bool:
        """Whether every lookup from now on gets these versions, or is told that there are none."""
        entries = [self.registry.entries.get(name) for name in targets]
        loaded = [entry.loaded.table.identity for entry in entries if entry is not None and entry.loaded is not None]
        return all(identity.version == targets[identity.name] for identity in loaded)

    def _load_all(self, targets: Mapping[str, int]) -> dict[str, LoadedTable]:
        return {name: self._open(TableVersion(name, version)) for name, version in targets.items()}

    def _open(self, version: TableVersion) -> LoadedTable:
        """What serves already, if it is this version; else a newly opened one."""
        entry = self.registry.entries.get(version.name)
        if entry is not None and entry.loaded is not None and self._is_still(entry.loaded, version.version):
            return entry.loaded
        return self.opened.load_active(version, None if entry is None else _table_of(entry))

    def _look_again(self) -> None:
        self._retry_at.clear()
        self.refresh()

    # Following

    def _refresh_or_log(self) -> None:
        try:
            self.refresh()
        except Exception:  # noqa: BLE001  (what is loaded serves on, and the next look may succeed)
            _log.exception("the store cannot be read")

    def refresh(self) -> None:
        """One pass over the store. Blocks; a table that cannot be loaded becomes UNAVAILABLE, nothing else.

        What is served already changes in one step at the end, so that tables which were switched together change
        together; what was not served yet is served as soon as it is loaded.
        """
        if self.registry.entries and not self.store.root.is_dir():
            _log.warning("the store %s is out of reach; what is loaded serves on", self.store.root)
            return
        commits = self._commits.copy()  # before the store is read: what is committed later is newer than what is read
        names = self.store.tables()
        for gone in self.registry.entries.keys() - set(names):
            self.registry.drop(gone)
            self.opened.forget_texts(gone)
        active = self.store.active_versions(names)
        changed = []
        for name in names:
            entry = self.registry.entries.get(name) or Entry(name, None, TableState.AVAILABLE)
            followed = self._followed(entry, active[name], commits)
            if entry.loaded is None:
                self._put([followed], commits)
            elif followed != entry:
                changed.append(followed)
        self._put(changed, commits)
        self.registry.settled = True
        self.opened.forget_deleted()

    def _followed(self, entry: Entry, active: int | Conflict | None, commits: Mapping[str, int]) -> Entry:
        """What `entry` should be when this version is active."""
        if isinstance(active, Conflict):
            return failed(entry, None, str(active))
        if active == UNLOADED:
            return Entry(entry.name, None, TableState.AVAILABLE, reason="it was unloaded")
        if active is None:
            idle = Entry(entry.name, None, TableState.AVAILABLE, reason="no version is active")
            return idle if entry.loaded is None else failed(entry, None, "the store names no active version")
        if entry.loaded is not None and self._is_still(entry.loaded, active):
            return Entry(entry.name, active, TableState.READY, entry.loaded)
        return self._loaded(entry, TableVersion(entry.name, active), commits)

    def _is_still(self, loaded: LoadedTable, active: int) -> bool:
        """Whether the active version is the one that is loaded, and not another folder in its place."""
        if loaded.table.identity.version != active:
            return False
        try:
            return self.store.version(loaded.table.identity).identity() == loaded.folder
        except (ServiceError, OSError):  # it has vanished below us: what is mapped serves on
            return True

    def _loaded(self, entry: Entry, version: TableVersion, commits: Mapping[str, int]) -> Entry:
        if time.monotonic() < self._retry_at.get(version, 0.0):
            return entry
        if entry.loaded is None:
            self._put([Entry(entry.name, version.version, TableState.LOADING)], commits)
        try:
            # In the first look over the store nobody is served yet, and everybody waits for it.
            loaded = self.opened.load_active(version, _table_of(entry), gently=self.registry.settled)
        except Exception as error:  # noqa: BLE001  (one table must never take the others with it)
            return self._not_loaded(entry, version, error)
        self._retry_at.pop(version, None)
        _log.info("%s is served", version)
        return Entry(entry.name, version.version, TableState.READY, loaded)

    def _not_loaded(self, entry: Entry, version: TableVersion, error: Exception) -> Entry:
        with suppress(ServiceError, OSError):
            if self.store.active_version(version.name) != version.version:
                # It was replaced, and perhaps deleted, since we read that it is active.
                return self.registry.entries.get(version.name, entry)
        expected = isinstance(error, ServiceError | OSError)
        _log.error("%s cannot be loaded: %s", version, error, exc_info=None if expected else error)
        self._retry_at[version] = time.monotonic() + _RETRY_SECONDS
        return failed(entry, version.version, reason_of(error))

    def _put(self, entries: Sequence[Entry], commits: Mapping[str, int]) -> None:
        """Swaps in what differs, but not over what was committed since `commits` were counted."""
        with self._changing:
            self._swap([entry for entry in entries if self._commits[entry.name] == commits.get(entry.name, 0)])

    def _swap(self, entries: Sequence[Entry]) -> None:
        before = self.registry.entries
        changed = [entry for entry in entries if before.get(entry.name) != entry]
        if not changed:
            return
        self.registry.swap(*changed)
        for entry in changed:
            if entry.loaded is not None:
                self.opened.sinks.in_force(entry.name, entry.loaded.table.identity.version)
                self.opened.let_go(entry.loaded.table.identity)
            replaced = before[entry.name].loaded if entry.name in before else None
            if replaced is not None and replaced.table.identity.version != entry.active_version:
                self.opened.keep(replaced.table)
            if replaced is not None and replaced is not entry.loaded:
                self.opened.drop_texts(replaced.table)


def _table_of(entry: Entry) -> EmbeddingTable | None:
    return None if entry.loaded is None else entry.loaded.table
