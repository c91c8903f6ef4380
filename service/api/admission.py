"""How many lookups a worker has in flight: a limit, a short wait at it, and a refusal before any work is done."""

import asyncio
from collections import deque
from typing import Final

from service.errors import Overloaded

_PATIENCE: Final = 0.006
"""Seconds that a lookup waits for one before it to end: a burst is answered, and a refusal takes less than 10 ms."""
_WAITING: Final = 4
"""How many may wait for each that may be in flight; who comes later is refused at once."""


class Admission:
    """Counts lookups from their headers until their answers are sent. For one event loop."""

    __slots__ = ("_waiting", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def is_full(self) -> bool:
        """Whether a lookup that came now would have to wait."""
        return self.in_flight >= self.limit

    async def enter(self) -> None:
        """Counts a lookup; raises Overloaded if too many are in flight, and none of them ends soon."""
        if self.in_flight >= self.limit:
            await self._wait()
        else:
            self.in_flight += 1

    def leave(self) -> None:
        """Its answer is sent, or its client gone: the one that has waited longest takes its place."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
        self.in_flight -= 1

    async def _wait(self) -> None:
        if len(self._waiting) >= _WAITING * self.limit:
            raise Overloaded(self.limit)
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        timer = loop.call_later(_PATIENCE, _give_up, place, Overloaded(self.limit))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()
            raise
        finally:
            timer.cancel()
            while self._waiting and self._waiting[0].done():
                self._waiting.popleft()


def _give_up(place: "asyncio.Future[None]", error: Overloaded) -> None:
    if not place.done():
        place.set_exception(error)
