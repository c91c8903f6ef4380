"""What is known of the versions that have answered, for a while: what a mask depends on."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from service.types import OovRule

KEPT_SECONDS: Final = 60.0
"""A version is immutable. A server that takes over an address may still have another content under its number."""
_MOST: Final = 1024


class Facts(NamedTuple):
    """What the mask depends on."""

    padding_id: int | None
    num_embeddings: int
    on_oov: OovRule


class KnownFacts:
    """Facts by table and version. They end with `KEPT_SECONDS`, and where another server may have come since.

    `turn` counts the times that one may have; `clock` gives seconds. Safe to use from several threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, int], tuple[Facts, int, float]] = {}

    def get(self, table: str, version: int, turn: int) -> Facts | None:
        """The facts of a version, None for one that must be asked for."""
        found = self._kept.get((table, version))
        if found is None:
            return None
        facts, known_in, ends = found
        return facts if known_in == turn and self._clock() < ends else None

    def keep(self, table: str, version: int, turn: int, facts: Facts) -> None:
        """Keeps what was asked for in this turn."""
        while len(self._kept) >= _MOST:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[table, version] = (facts, turn, self._clock() + KEPT_SECONDS)
