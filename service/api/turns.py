"""Long work on an event loop, in pieces between which others have their turns."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

TURN: Final = 0.0005
"""Seconds of work after which others are let before: as long as a few small lookups take."""


class Queue:
    """Whose turn it is of all long work on one event loop: one has it in each round of the loop.

    However many large answers are being made, what is short, a small lookup or a question for the server's health,
    waits for one turn of them at most.
    """

    __slots__ = ("__weakref__", "_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[Callable[[], object]] = deque()

    def call(self, work: Callable[[], object]) -> None:
        """Calls `work` when it is its turn, at once if nobody has had one in this round of the loop."""
        if self._taken:
            self._waiting.append(work)
            return
        self._taken = True
        asyncio.get_running_loop().call_soon(self._next)
        work()

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call(partial(_give, place))
        await place

    def _next(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
            self._waiting.popleft()()
        else:
            self._taken = False


def _give(place: "asyncio.Future[None]") -> None:
    if not place.done():  # else its owner was cancelled
        place.set_result(None)


_queues: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Queue]] = WeakKeyDictionary()


def queue_of(loop: asyncio.AbstractEventLoop) -> Queue:
    """The one queue of an event loop."""
    found = _queues.get(loop)
    if found is None:
        found = _queues[loop] = Queue()
    return found


class Turns:
    """The turns of one long piece of work, the first of which begins where this is made or with `begin`."""

    __slots__ = ("_queue", "_since")

    def __init__(self) -> None:
        self._queue = queue_of(asyncio.get_running_loop())
        self._since = time.perf_counter()

    async def begin(self) -> None:
        """Waits for a turn: at the beginning of the work, and after whatever it had to wait for."""
        await self._queue.turn()
        self._since = time.perf_counter()

    async def end(self) -> None:
        """To be called between pieces: lets others before, if it has been a while."""
        if time.perf_counter() - self._since > TURN:
            await self.begin()
