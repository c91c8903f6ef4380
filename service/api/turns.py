"""Long work on an event loop, in pieces between which others have their turns."""

import asyncio
import time
from typing import Final

_TURN: Final = 0.0005
"""Seconds of work after which others are let before: as long as a few small lookups take."""


class Turns:
    """The turns of one long piece of work."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def end(self) -> None:
        """To be called between pieces: lets others before, if it has been a while."""
        if time.perf_counter() - self._since > _TURN:
            await asyncio.sleep(0)
            self._since = time.perf_counter()
