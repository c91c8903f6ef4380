"""Lookups that are answered together: those that are there as a whole when one round of the event loop ends."""

from asyncio import AbstractEventLoop
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from service.api.answer import Ready
from service.api.batching import Part, answers

_MOST: Final = 16
"""Requests that are answered before the first of them is sent."""


class Asking(Protocol):
    """A connection with a request that is there as a whole, `since` a time of `perf_counter`."""

    since: float

    def part(self) -> Part | None:
        """What of its request can be answered together with those of others; None where it is answered alone."""

    def answer(self, found: Ready | None) -> None:
        """Called once, with what was found together with others, if anything was. Must not raise."""


class Round:
    """The requests that have come in this round of an event loop."""

    __slots__ = ("__weakref__", "_asking")

    def __init__(self) -> None:
        self._asking: list[Asking] = []

    def add(self, connection: Asking, loop: AbstractEventLoop) -> None:
        """Has its request answered when all that has come by now is read."""
        if not self._asking:
            loop.call_soon(self._answer, loop)
        self._asking.append(connection)

    def _answer(self, loop: AbstractEventLoop) -> None:
        asking, self._asking = self._asking[:_MOST], self._asking[_MOST:]
        if self._asking:
            loop.call_soon(self._answer, loop)
        since = [connection.since for connection in asking]
        found = answers([connection.part() for connection in asking], since)
        for connection, answer in zip(asking, found, strict=True):
            connection.answer(answer)


_rounds: Final[WeakKeyDictionary[AbstractEventLoop, Round]] = WeakKeyDictionary()


def round_of(loop: AbstractEventLoop) -> Round:
    """The one of an event loop."""
    return _rounds.setdefault(loop, Round())
