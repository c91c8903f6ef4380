"""JSON text in pieces, so that none takes long to write and an answer that is too long is never made as a whole."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.answer import Buffer
from service.api.limits import Limits
from service.api.turns import Turns

PIECE: Final = 1 << 14
"""Numbers that are written at once: half a millisecond."""

Fetch: TypeAlias = Callable[[int, int], NDArray[Any]]
"""The rows from one position to another, an array of shape (n, dim)."""


class JsonText:
    """The pieces of one JSON text under a limit."""

    __slots__ = ("_limits", "pieces", "size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.pieces: list[Buffer] = []
        self.size = 0

    def write(self, pieces: Iterable[Buffer]) -> None:
        """Appends all pieces; raises RequestTooLarge beyond the limit."""
        for piece in pieces:
            self._append(piece)

    async def write_in_turns(self, pieces: Iterable[Buffer]) -> None:
        """The same, while others have their turns of the event loop."""
        turns = Turns()
        for piece in pieces:
            self._append(piece)
            await turns.end()

    def _append(self, piece: Buffer) -> None:
        self.size += len(piece)
        self._limits.check_answer(self.size)
        self.pieces.append(piece)


def array_text(array: NDArray[Any]) -> Iterator[bytes]:
    """An array of any number of axes, by orjson: a float32 as the shortest text that reads back the same."""
    if array.size <= PIECE:
        yield _dumps(array)
    elif array.ndim == 1:
        for first in range(0, len(array), PIECE):
            yield (b"," if first else b"[") + _dumps(array[first : first + PIECE])[1:-1]
        yield b"]"
    else:
        yield from rows_text(lambda first, end: array[first:end], array.shape[:1], array[0].size)


def rows_text(fetch: Fetch, shape: tuple[int, ...], dim: int, start: int = 0) -> Iterator[bytes]:
    """An array of shape (*shape, dim), fetched bit by bit; its first row is that of position `start`."""
    inner = math.prod(shape[1:])
    if inner * dim > PIECE:
        yield from _one_by_one(fetch, shape, dim, start)
        return
    step = max(1, PIECE // max(1, inner * dim))
    for first in range(0, shape[0], step):
        end = min(first + step, shape[0])
        rows = fetch(start + first * inner, start + end * inner)
        yield (b"," if first else b"[") + _dumps(rows.reshape(end - first, *shape[1:], *rows.shape[1:]))[1:-1]
    yield b"]" if shape[0] else b"[]"


def _one_by_one(fetch: Fetch, shape: tuple[int, ...], dim: int, start: int) -> Iterator[bytes]:
    """Elements of the first axis that are too large to be written at once."""
    inner = math.prod(shape[1:])
    for index in range(shape[0]):
        yield b"," if index else b"["
        first = start + index * inner
        if len(shape) > 1:
            yield from rows_text(fetch, shape[1:], dim, first)
        else:
            yield from array_text(fetch(first, first + 1)[0])
    yield b"]"


def _dumps(array: NDArray[Any]) -> bytes:
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
