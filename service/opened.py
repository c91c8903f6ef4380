"""Versions in memory: the one place that opens them, and those beside the active one, opened when they are asked for.

Opening is disk work, and blocks: on the thread of this module for requests, on the watcher's for what is active.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from weakref import WeakValueDictionary

from service.backends import Backend, Fetching
from service.errors import Conflict, LabelNotFound, NotReady, ServiceError, TableNotFound
from service.loader import load
from service.reaper import Reaper
from service.registry import Entry, LoadedTable
from service.rowtexts import RowTexts
from service.store import TableStore
from service.table import EmbeddingTable
from service.textshares import TextShares
from service.types import TableVersion


@dataclass(frozen=True, slots=True)
class Sinks:
    """Who is told of what happens in tables, by their names: called from any thread.

    `outside` of ids that a table does not have and its rule answered, `texts` of rows whose text was kept and of those
    rendered, `loads` whether a version could be opened, `in_force` of one that is served from now on.
    """

    outside: Callable[[str, int], None] = lambda _table, _ids: None
    texts: Callable[[str, int, int], None] = lambda _table, _hits, _rendered: None
    loads: Callable[[str, bool], None] = lambda _table, _done: None
    in_force: Callable[[str, int], None] = lambda _table, _version: None


@dataclass(frozen=True, slots=True)
class Target:
    """Which rows a request names: a table's active version, one of its versions, or what a label names."""

    table: str
    version: int | None = None
    label: str | None = None


class OpenedVersions:
    """What this process has open. `keep_loaded` versions per table stay open after they were active or asked for.

    The pages of a version go back to the system when the last request that uses it ends, off the event loop.
    """

    def __init__(self, store: TableStore, fetching: Fetching, keep_loaded: int, text_bytes: int = 0) -> None:
        self._store = store
        self._text_shares = TextShares(text_bytes)
        self._fetching = fetching
        self._keep_loaded = keep_loaded
        self._reaper = Reaper()
        self._lock = Lock()
        self._open: WeakValueDictionary[TableVersion, EmbeddingTable] = WeakValueDictionary()
        self._folders: dict[TableVersion, tuple[int, int]] = {}
        self._kept: dict[str, OrderedDict[int, EmbeddingTable]] = {}
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="versions")
        self.sinks = Sinks()

    def close(self) -> None:
        """Lets go of the thread; a version that is being opened is not waited for."""
        self._disk.shutdown(wait=False, cancel_futures=True)

    def load(self, version: TableVersion) -> LoadedTable:
        """Checks and opens a version. Raises TableNotFound, VersionNotFound, DamagedVersion, OSError."""
        name = version.name
        with self._noted(name):
            return self._watched(load(self._store, version, self._fetching, saw_outside=partial(self._outside, name)))

    def load_active(self, version: TableVersion, before: EmbeddingTable | None, *, gently: bool = True) -> LoadedTable:
        """The same for one that is to be active, in the place of `before`: with the row texts that were kept there.

        Not `gently` where this process serves nothing yet.
        """
        make_texts, saw_outside = partial(self._texts, version.name), partial(self._outside, version.name)
        with self._noted(version.name):
            loaded = load(self._store, version, self._fetching, make_texts, saw_outside, gently=gently)
            texts = loaded.table.texts
            if texts is not None and before is not None and before.texts is not None:
                texts.warm(before.texts)
            return self._watched(loaded)

    @contextmanager
    def _noted(self, table: str) -> Iterator[None]:
        try:
            yield
        except (ServiceError, OSError):
            self.sinks.loads(table, False)
            raise
        self.sinks.loads(table, True)

    def _outside(self, table: str, ids: int) -> None:
        self.sinks.outside(table, ids)

    def _told(self, table: str, hits: int, rendered: int) -> None:
        self.sinks.texts(table, hits, rendered)

    def _watched(self, loaded: LoadedTable) -> LoadedTable:
        table = loaded.table
        self._reaper.watch(table, table.backend, *filter(None, [table.vocabulary]))
        with self._lock:
            self._open[table.identity] = table
            self._folders = {known: at for known, at in self._folders.items() if known in self._open}
            self._folders[table.identity] = loaded.folder
        return loaded

    def _texts(self, table: str, rows: Backend) -> RowTexts | None:
        share = self._text_shares.share(table)
        if share == 0:
            return None
        texts = RowTexts(rows, share, self._reaper.watch, partial(self._told, table))
        self._text_shares.take(table, texts.most_bytes)
        return texts

    def drop_texts(self, table: EmbeddingTable) -> None:
        """Its successor has its share of the memory for row texts, however long it is kept."""
        if table.texts is not None:
            table.texts.close()

    def forget_texts(self, table: str) -> None:
        """The table has left the store: others may have its share of the memory for row texts."""
        self._text_shares.give_back(table)

    @property
    def count(self) -> int:
        """How many versions are in memory."""
        return len(self._open)

    def open_tables(self) -> list[EmbeddingTable]:
        """All that is in memory now."""
        with self._lock:
            return list(self._open.values())

    def is_open(self, version: TableVersion) -> bool:
        """Whether the version is in memory, active or not."""
        return version in self._open

    def keep(self, table: EmbeddingTable) -> None:
        """Keeps a version open that is not active, or not any more, in the place of the one unused for longest."""
        if self._keep_loaded == 0:
            return
        with self._lock:
            kept = self._kept.setdefault(table.identity.name, OrderedDict())
            kept[table.identity.version] = table
            kept.move_to_end(table.identity.version)
            while len(kept) > self._keep_loaded:
                kept.popitem(last=False)

    def let_go(self, version: TableVersion) -> None:
        """Does not keep it any more: it is active, and has been opened for that."""
        with self._lock:
            if version.name in self._kept:
                self._kept[version.name].pop(version.version, None)

    def forget_deleted(self) -> None:
        """Lets go of kept versions that are not in the store any more, and of what took their place."""
        with self._lock:
            kept = [table for tables in self._kept.values() for table in tables.values()]
        for table in kept:
            if not self._is_in_store(table.identity):
                with self._lock:
                    self._kept[table.identity.name].pop(table.identity.version, None)

    def _is_in_store(self, version: TableVersion) -> bool:
        with suppress(LookupError, OSError):
            return self._store.version(version).identity() == self._folders.get(version)
        return False

    # What requests name

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

    def _resolve(
        self, found: Mapping[Target, EmbeddingTable | None], entries: Mapping[str, Entry]
    ) -> dict[Target, EmbeddingTable]:
        tables = {target.table for target, table in found.items() if table is None and target.label is not None}
        labels = {name: self._store.labels(name) for name in tables}
        return {
            target: table or self._of_version(_version_of(target, labels), entries) for target, table in found.items()
        }

    def _of_version(self, version: TableVersion, entries: Mapping[str, Entry]) -> EmbeddingTable:
        return _served(Target(version.name, version.version), entries) or self._older(version)

    def _older(self, version: TableVersion) -> EmbeddingTable:
        folder = self._store.version(version)  # it may have been deleted while it was kept open
        try:
            table = self._open.get(version)
            if table is None or self._folders.get(version) != folder.identity():
                table = self.load(version).table
        except (Conflict, OSError) as error:
            reason = str(error) if isinstance(error, Conflict) else "it cannot be read"
            raise NotReady(version.name, reason) from error
        self.keep(table)
        return table


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
