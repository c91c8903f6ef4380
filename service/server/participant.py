"""A worker's end of the barrier: what it does when the steward asks, and what it answers."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from service.barrier import state_of
from service.errors import ServiceError
from service.server.control import Channel, Message
from service.systemerrors import reason_of
from service.watcher import StoreWatcher

_LONGEST_REASON: Final = 300  # characters; the states of many tables go into one message
_log = logging.getLogger(__name__)


class Participant:
    """Answers every question of the supervisor once. Questions are worked on at the same time."""

    def __init__(self, watcher: StoreWatcher, number: int, channel: Channel, give_up: Callable[[], None]) -> None:
        self._watcher = watcher
        self._number = number
        self._channel = channel
        self._give_up = give_up
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]] = {
            "prepare": self._prepare,
            "commit": self._commit,
            "abandon": self._abandon,
            "follow": self._follow,
            "states": self._states,
        }

    def on_message(self, message: Message) -> None:
        """Begins with an answer."""
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        content = await self._handlers[message.kind](message.content)
        self._channel.send(Message("answer", message.question, content))

    async def _prepare(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Opens versions aside; `reason` says why it cannot."""
        try:
            await self._watcher.prepare(asked["change"], asked["targets"])
        except (ServiceError, OSError) as error:
            return {"reason": reason_of(error)[:_LONGEST_REASON]}
        except Exception as error:  # noqa: BLE001  (the steward must get an answer)
            _log.exception("%s cannot be prepared", asked["targets"])
            return {"reason": f"{type(error).__name__}: the log has the cause"}
        return {"reason": None}

    async def _commit(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Serves what was prepared. A worker that started after that finds it in the store."""
        if not self._watcher.commit(asked["change"], asked["targets"]):
            await self._watcher.follow()
            if not self._watcher.serves(asked["targets"]):
                _log.critical("%s are in force and cannot be loaded; this worker ends", asked["targets"])
                self._give_up()
        return {}

    async def _abandon(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        self._watcher.abandon(asked["change"])
        return {}

    async def _follow(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        """The steward has died in the middle of something: the store says what is in force."""
        self._watcher.abandon()
        await self._watcher.follow()
        return {}

    async def _states(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        process = os.getpid()
        states = [state_of(self._watcher.registry, table, self._number, process) for table in asked["tables"]]
        told = [(state.state, state.version, (state.reason or "")[:_LONGEST_REASON] or None) for state in states]
        return {"process": process, "states": told}
