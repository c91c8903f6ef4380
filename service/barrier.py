"""What the processes of a service do together when tables change: the words for it, and a service of one process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.errors import CannotPrepare, ServiceError
from service.registry import Entry, TableRegistry, TableState
from service.systemerrors import reason_of
from service.watcher import StoreWatcher


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What one worker serves of one table; `version` is None for none, `process` where it does not answer."""

    worker: int
    process: int | None
    state: TableState
    version: int | None
    reason: str | None


class Barrier(Protocol):
    """All live workers, asked to do one thing together. One change at a time."""

    async def prepare(self, targets: Mapping[str, int]) -> None:
        """Has every worker open, check and warm these versions aside; if one cannot, none keeps anything.

        Raises CannotPrepare that names worker and reason, WorkersSilent.
        """

    async def commit(self, targets: Mapping[str, int]) -> int:
        """Has every worker serve what was prepared; how many do, on return. A worker that cannot is replaced.

        What was not prepared is taken from the store, UNLOADED too.
        """

    async def abandon(self) -> None:
        """Has every worker let go of what was prepared."""

    async def states(self, tables: Sequence[str]) -> dict[str, list[WorkerState]]:
        """What every worker serves of these tables."""


class OneProcess:
    """The barrier of a service whose only worker is this process."""

    def __init__(self, watcher: StoreWatcher, process: int) -> None:
        self._watcher = watcher
        self._process = process

    async def prepare(self, targets: Mapping[str, int]) -> None:
        try:
            await self._watcher.prepare("change", targets)
        except (ServiceError, OSError) as error:
            raise CannotPrepare(0, reason_of(error)) from error

    async def commit(self, targets: Mapping[str, int]) -> int:
        if not self._watcher.commit("change", targets):
            await self._watcher.follow()
        return 1

    async def abandon(self) -> None:
        self._watcher.abandon("change")

    async def states(self, tables: Sequence[str]) -> dict[str, list[WorkerState]]:
        return {name: [state_of(self._watcher.registry, name, 0, self._process)] for name in tables}


def state_of(registry: TableRegistry, table: str, worker: int, process: int) -> WorkerState:
    """What a worker with this registry serves of a table."""
    entry = registry.entries.get(table) or Entry(table, None, TableState.AVAILABLE, reason="not looked at yet")
    version = None if entry.loaded is None else entry.loaded.table.identity.version
    return WorkerState(worker, process, entry.state, version, entry.reason)
