"""How many lookups a worker has in flight: a limit, a short wait at it, and a refusal before any work is done."""

import asyncio
from typing import Final, Protocol

from service.errors import Overloaded

_PATIENCE: Final = 0.003
"""Seconds that a lookup waits for one before it to end: a burst is answered, and a refusal takes less than 10 ms."""
_WAITING: Final = 4
"""How many may wait for each that may be in flight; who comes later is refused at once."""
ADMITTED: Final = "embedding.admitted"
"""In the scope of a lookup that has its place among those in flight already, and gives it back at its end."""


class Waiter(Protocol):
    """A lookup that waits for a place. One of both is called, once, on the event loop; neither may raise."""

    def admitted(self) -> None:
        """It has a place, which it gives back with `Admission.leave`."""

    def refused(self) -> None:
        """It has none."""


class Admission:
    """Counts lookups from their headers until their answers are sent. For one event loop.

    Whoever comes while `in_flight` is below `limit` adds itself; the others `wait`.
    """

    __slots__ = ("_timer", "_waiting", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiting: dict[Waiter, float] = {}
        """Until when each waits, in the order in which they came."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Counts a lookup; raises Overloaded if too many are in flight, and none of them ends soon."""
        if self.in_flight < self.limit:
            self.in_flight += 1
            return
        place = _Place(self)
        self.wait(place)
        try:
            await place.given
        except asyncio.CancelledError:
            if not self.forget(place) and place.has_it():
                self.leave()
            raise

    def wait(self, waiter: Waiter) -> None:
        """Lines up for a place; raises Overloaded if too many wait already."""
        if len(self._waiting) >= _WAITING * self.limit:
            raise Overloaded(self.limit)
        loop = asyncio.get_running_loop()
        self._waiting[waiter] = loop.time() + _PATIENCE
        if self._timer is None:
            self._timer = loop.call_later(_PATIENCE, self._refuse_late)

    def forget(self, waiter: Waiter) -> bool:
        """Takes it out of the line; False if it was not in it any more."""
        return self._waiting.pop(waiter, None) is not None

    def leave(self) -> None:
        """Its answer is sent, or its client gone: the one that has waited longest takes its place."""
        for first in self._waiting:
            del self._waiting[first]
            first.admitted()
            return
        self.in_flight -= 1

    def _refuse_late(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [waiter for waiter, until in self._waiting.items() if until <= now]
        until = next((until for until in self._waiting.values() if until > now), None)
        self._timer = None if until is None else loop.call_later(until - now, self._refuse_late)
        for waiter in late:
            if self.forget(waiter):
                waiter.refused()


class _Place:
    """A waiter that can be awaited."""

    __slots__ = ("_admission", "given")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.given: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def admitted(self) -> None:
        if self.given.done():  # cancelled, and has not left the line yet
            self._admission.leave()
        else:
            self.given.set_result(None)

    def refused(self) -> None:
        if not self.given.done():
            self.given.set_exception(Overloaded(self._admission.limit))

    def has_it(self) -> bool:
        """Whether it was admitted."""
        return self.given.done() and not self.given.cancelled() and self.given.exception() is None
