"""The verbs that change the store while it is served: verified first, prepared in every worker, then put in force.

A change that fails before it is in force leaves every worker on the versions it serves. Changes are serialised here;
changes that other processes make are serialised by the store's locks. No HTTP.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from service.barrier import Barrier, WorkerState
from service.errors import InForce, InvalidRequest, ServiceError, TableNotFound, VersionNotFound
from service.imported import ImportedTable
from service.loader import load
from service.logs import AUDIT
from service.store import UNLOADED, Pruned, Switch, TableStore
from service.types import TableVersion

MOST_TABLES: Final = 256
"""In one activation: what the workers are told fits into one message."""

_log = logging.getLogger(__name__)
_audit = logging.getLogger(AUDIT)


@dataclass(frozen=True, slots=True)
class Activated:
    """What an activation did, in how many workers, and how long it took until all of them served it."""

    switches: tuple[Switch, ...]
    workers: int
    seconds: float


Switched: TypeAlias = Callable[[Collection[str], float | None], None]
"""Called with the tables whose versions were put in force and the seconds that it took, None where it has failed."""


class Steward:
    """Changes one store, and has the workers of one service follow. Its methods may be called at the same time.

    `by` is who asked for a change; it goes into the history and the audit log. `switched` is told of every attempt to
    put versions in force.
    """

    def __init__(self, store: TableStore, barrier: Barrier, switched: Switched = lambda *_: None) -> None:
        self.store = store
        self._switched = switched
        self._barrier = barrier
        self._turn = asyncio.Lock()
        self._imports = asyncio.Semaphore(2)

    # What is in force

    async def activate(self, targets: Mapping[str, int], by: str) -> Activated:
        """Puts these versions in force, in all tables and all workers or in none.

        Raises TableNotFound, VersionNotFound, DamagedVersion, CannotPrepare, WorkersSilent, InsufficientStorage.
        """
        _check_targets(targets)
        return await self._switch(targets, "activate", by)

    async def rollback(self, table: str, by: str) -> Activated:
        """Activates the version that was active before. Raises what `activate` raises, and Conflict for none."""
        target = await asyncio.to_thread(self.store.rollback_target, table)
        return await self._switch({table: target}, "rollback", by)

    async def unload(self, table: str, by: str) -> int:
        """Has no version of a table in force, in no worker on return; the one that was.

        Raises TableNotFound, Conflict where there is none, InsufficientStorage.
        """
        async with self._turn:
            version = await asyncio.to_thread(self.store.unload, table, f"unload by {by}")
            await self._barrier.commit({table: UNLOADED})
        _record(by, "unload", table, version, None)
        return version

    async def _switch(self, targets: Mapping[str, int], verb: str, by: str) -> Activated:
        """Verifies versions, has all workers prepare them, and puts them in force."""
        started = time.perf_counter()
        try:
            for table, version in targets.items():
                await asyncio.to_thread(self.store.verify, TableVersion(table, version))
            async with self._turn:
                switches, workers = await self._put_in_workers(targets, verb, by)
        except (TableNotFound, VersionNotFound):  # nothing was tried, and the names may be anything
            raise
        except InForce:
            self._switched(targets, time.perf_counter() - started)
            raise
        except BaseException:  # told, and raised on
            self._switched(targets, None)
            raise
        seconds = time.perf_counter() - started
        self._switched(targets, seconds)
        return Activated(switches, workers, seconds)

    async def _put_in_workers(self, targets: Mapping[str, int], verb: str, by: str) -> tuple[tuple[Switch, ...], int]:
        await self._barrier.prepare(targets)
        try:
            switches = await asyncio.to_thread(self._put_in_force, targets, f"{verb} by {by}", verb == "rollback")
        except InForce:
            await self._barrier.commit(targets)
            raise
        except BaseException:  # cleaned up after, and raised on
            await self._barrier.abandon()
            raise
        workers = await self._barrier.commit(targets)
        for switch in switches:
            _record(by, verb, switch.table, switch.previous_version, switch.active_version)
        return tuple(switches), workers

    def _put_in_force(self, targets: Mapping[str, int], by: str, back: bool) -> list[Switch]:
        try:
            return self.store.switch(targets, by, back=back)
        except OSError as error:
            if self.store.active_versions(list(targets)) == targets:
                raise InForce(f"{error}; the new versions are in force all the same, until a loss of power") from error
            raise

    # What names versions, and what there is

    async def set_label(self, table: str, label: str, version: int, by: str) -> None:
        """Has a label name a version that verifies and loads; not into a device, where the first who asks puts it.

        Raises what the store's verb raises, DamagedVersion."""
        previous = (await asyncio.to_thread(self.store.labels, table)).get(label)
        chosen = TableVersion(table, version)
        await asyncio.to_thread(load, self.store, chosen)
        await asyncio.to_thread(self.store.set_label, table, label, version)
        _record(by, f"label {label}", table, previous, version)

    async def delete_label(self, table: str, label: str, by: str) -> None:
        """Forgets a label. Raises TableNotFound, LabelNotFound."""
        previous = (await asyncio.to_thread(self.store.labels, table)).get(label)
        await asyncio.to_thread(self.store.delete_label, table, label)
        _record(by, f"unlabel {label}", table, previous, None)

    async def delete_version(self, table: str, version: int, by: str) -> None:
        """Removes a version that is neither active nor labelled. Raises VersionNotFound, Conflict."""
        await asyncio.to_thread(self.store.delete_version, table, version, f"delete by {by}")
        _record(by, "delete", table, version, None)

    async def prune(self, table: str, keep: int, older_than: timedelta, by: str) -> Pruned:
        """Removes versions by count and age, see the store's verb."""
        pruned = await asyncio.to_thread(self.store.prune, table, keep, older_than, f"prune by {by}")
        for version in pruned.versions:
            _record(by, "prune", table, version.version, None)
        return pruned

    # New versions

    async def publish(
        self, table: str, read: Callable[[], ImportedTable], by: str, *, activate: bool
    ) -> tuple[TableVersion, Activated | None]:
        """Publishes what `read` gives, two tables at a time at most; if asked to, activates it or takes it back."""
        async with self._imports:
            version = await asyncio.to_thread(lambda: self.store.publish(table, read(), by=f"publish by {by}"))
        _record(by, "publish", table, None, version.version)
        if not activate:
            return version, None
        try:
            return version, await self.activate({table: version.version}, by)
        except (ServiceError, OSError) as error:
            await self._take_back(version, by, error)
            raise

    async def _take_back(self, version: TableVersion, by: str, cause: Exception) -> None:
        """As far as it can be: on a full disk, or when somebody uses it already, it stays, and `cause` says so."""
        try:
            await self.delete_version(version.name, version.version, by)
        except (ServiceError, OSError):
            cause.args = (f"{cause}; {version} stays published",)

    # What is there

    async def states(self, tables: list[str]) -> dict[str, list[WorkerState]]:
        """What every worker serves of these tables."""
        return await self._barrier.states(tables)

    async def housekeep(self, seconds: float) -> None:
        """Gives back the disk space of deleted versions when their grace is over, until cancelled."""
        tidy = self.store.sweep  # once, when nothing of ours can be under way: what a dead steward left
        while True:
            try:
                await asyncio.to_thread(tidy)
                tidy = self.store.remove_all_deleted
            except OSError:  # the next look may succeed
                _log.exception("deleted versions cannot be removed")
            await asyncio.sleep(seconds)


def _check_targets(targets: Mapping[str, int]) -> None:
    if not targets:
        raise InvalidRequest("no table is named", field="tables")
    if len(targets) > MOST_TABLES:
        raise InvalidRequest(f"{len(targets)} tables, {MOST_TABLES} are the most in one activation", field="tables")


def _record(by: str, verb: str, table: str, before: int | None, after: int | None) -> None:
    """One line for each change: who, what, from where, to where."""
    said = {"by": by, "change": verb, "table": table, "from": before, "to": after}
    line = " ".join(f"{name}={_quoted(value)}" for name, value in said.items())
    _audit.info("audit: %s", line, extra={"audit": said})


def _quoted(value: object) -> str:
    """Without line ends and blanks of its own, so that nobody can forge a line or a field."""
    if value is None:
        return "-"
    text = str(value)
    return text if text.isascii() and text.isprintable() and not set(text) & set(' "=') else ascii(text)
