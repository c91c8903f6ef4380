"""The steward's end of the barrier: its questions to all workers, which the supervisor passes on."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.barrier import WorkerState
from service.errors import CannotPrepare, ServiceError, WorkersSilent
from service.registry import TableState
from service.server.control import Channel, Kind, Message

_COMMIT_SECONDS: Final = 10.0  # for an assignment: a worker that takes longer hangs, and is replaced
_ABANDON_SECONDS: Final = 1.0  # who is late lets go as soon as it hears of it; a change need not wait for that
_STATES_SECONDS: Final = 2.0
_AT_ONCE: Final = 10  # tables whose states fit into one message


@dataclass(frozen=True, slots=True)
class _Said:
    """What came back: answers by worker, the workers that did not answer in time, and those that died over it."""

    answers: Mapping[int, Mapping[str, Any]]
    silent: Sequence[int]
    died: Sequence[int]


@dataclass(slots=True)
class _Asked:
    """A question under way."""

    done: "asyncio.Future[_Said]"
    answers: dict[int, Mapping[str, Any]] = field(default_factory=dict)


class AskedWorkers:
    """The barrier over the workers of a supervisor. To be used in the event loop that it is made in."""

    def __init__(self, channel: Channel, prepare_seconds: float) -> None:
        self._channel = channel
        self._prepare_seconds = prepare_seconds
        # From where no earlier steward was: a late answer to one of its questions must not count for ours.
        self._numbers = itertools.count(time.monotonic_ns())
        self._asked: dict[int, _Asked] = {}
        self._change = ""

    def on_message(self, message: Message) -> None:
        """Takes what the supervisor says."""
        asked = self._asked.get(message.question)
        if asked is None:
            return
        content = message.content
        if message.kind == "answer":
            asked.answers[content["worker"]] = content["content"]
        elif message.kind == "done" and not asked.done.done():
            asked.done.set_result(_Said(asked.answers, content["silent"], content["died"]))

    async def prepare(self, targets: Mapping[str, int]) -> None:
        self._change = uuid.uuid4().hex
        try:
            if not await self._prepared(targets):
                return
            # A worker has died. Its successor is asked once more: if this version is what kills it, nobody gets it.
            died = await self._prepared(targets)
            if died:
                raise CannotPrepare(died[0], "it died twice while it loaded")
        except ServiceError:
            await self.abandon()
            raise

    async def _prepared(self, targets: Mapping[str, int]) -> Sequence[int]:
        """The workers that died; raises CannotPrepare, WorkersSilent."""
        said = await self._ask("prepare", {"change": self._change, "targets": targets}, self._prepare_seconds)
        for worker, answer in sorted(said.answers.items()):
            if answer["reason"]:
                raise CannotPrepare(worker, answer["reason"])
        if said.silent:
            raise WorkersSilent(said.silent, self._prepare_seconds)
        return said.died

    async def commit(self, targets: Mapping[str, int]) -> int:
        asked = {"change": self._change, "targets": targets}
        return len((await self._ask("commit", asked, _COMMIT_SECONDS, kill=True)).answers)

    async def abandon(self) -> None:
        await self._ask("abandon", {"change": self._change}, _ABANDON_SECONDS)

    async def states(self, tables: Sequence[str]) -> dict[str, list[WorkerState]]:
        found: dict[str, list[WorkerState]] = {table: [] for table in tables}
        for first in range(0, len(tables), _AT_ONCE):
            some = tables[first : first + _AT_ONCE]
            said = await self._ask("states", {"tables": some}, _STATES_SECONDS)
            for worker, answer in sorted(said.answers.items()):
                for table, (state, version, reason) in zip(some, answer["states"], strict=True):
                    state_now = WorkerState(worker, answer["process"], TableState(state), version, reason)
                    found[table].append(state_now)
            for worker in said.silent:
                for table in some:
                    found[table].append(WorkerState(worker, None, TableState.UNAVAILABLE, None, "it does not answer"))
        return found

    async def _ask(self, kind: Kind, content: Mapping[str, Any], seconds: float, *, kill: bool = False) -> _Said:
        number = next(self._numbers)
        asked = self._asked[number] = _Asked(asyncio.get_running_loop().create_future())
        try:
            question = {"kind": kind, "content": content, "seconds": seconds, "kill": kill}
            self._channel.send(Message("ask", number, question))
            return await asked.done
        finally:
            del self._asked[number]
