"""What is left of the time of a call: for each wait of httpx, and for an answer that comes in many pieces."""

import time
from collections.abc import Iterator, Mapping

import httpx

_LEAST = 0.001
"""Seconds that a wait may take in any case: a transport takes none for no limit, or fails."""


def left(ends: float) -> float:
    """Seconds until `ends`, which is a time of `time.monotonic`."""
    return max(_LEAST, ends - time.monotonic())


def late() -> httpx.ReadTimeout:
    """The error for an answer that is not whole at the end of the time."""
    return httpx.ReadTimeout("the answer was not whole at the deadline")


class Timeouts(Mapping[str, float | None]):
    """The timeouts of httpx, none of them beyond `ends` at the moment when that wait begins."""

    __slots__ = ("_ends", "_most")

    def __init__(self, most: Mapping[str, float | None], ends: float) -> None:
        self._most = most
        self._ends = ends

    def __getitem__(self, name: str) -> float | None:
        most = self._most[name]
        return left(self._ends) if most is None else min(most, left(self._ends))

    def __iter__(self) -> Iterator[str]:
        return iter(self._most)

    def __len__(self) -> int:
        return len(self._most)


class Punctual(httpx.SyncByteStream):
    """The body of an answer; raises httpx.ReadTimeout at the first piece after `ends`."""

    def __init__(self, stream: httpx.SyncByteStream, ends: float) -> None:
        self._stream = stream
        self._ends = ends

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if time.monotonic() > self._ends:
                raise late()
            yield piece

    def close(self) -> None:
        self._stream.close()
