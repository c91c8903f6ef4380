"""Long work on an event loop, in pieces between which others have their turns."""

import asyncio
import time
from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

_TURN: Final = 0.0005
"""Seconds of work after which others are let before: as long as a few small lookups take."""


class _Queue:
    """Whose turn it is of all long work on one event loop: one has it in each round of the loop.

    However many large answers are being made, what is short, a small lookup or a question for the server's health,
    waits for one turn of them at most.
    """

    __slots__ = ("__weakref__", "_loop", "_taken", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Returns when it is the caller's turn, at once if nobody has had one in this round of the loop."""
        if not self._taken:
            self._taken = True
            self._loop.call_soon(self._next)
            return
        place: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(place)
        await place

    def _next(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # else whoever waited was cancelled
                place.set_result(None)
                self._loop.call_soon(self._next)
                return
        self._taken = False


_queues: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue]] = WeakKeyDictionary()


def _queue() -> _Queue:
    loop = asyncio.get_running_loop()
    found = _queues.get(loop)
    if found is None:
        found = _queues[loop] = _Queue(loop)
    return found


class Turns:
    """The turns of one long piece of work, the first of which begins where this is made or with `begin`."""

    __slots__ = ("_queue", "_since")

    def __init__(self) -> None:
        self._queue = _queue()
        self._since = time.perf_counter()

    async def begin(self) -> None:
        """Waits for a turn: at the beginning of the work, and after whatever it had to wait for."""
        await self._queue.turn()
        self._since = time.perf_counter()

    async def end(self) -> None:
        """To be called between pieces: lets others before, if it has been a while."""
        if time.perf_counter() - self._since > _TURN:
            await self.begin()
