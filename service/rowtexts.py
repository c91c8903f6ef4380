"""The JSON text of rows, rendered once and kept: it never changes while its version lives.

It is written by orjson: every float32 as the shortest text that reads back the same. Texts lie one behind the other in
memory that is only ever added to, so that answers can be sent from there, and while they are sent.
"""

import mmap
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np
import orjson

from service.backends import Backend, pages
from service.scattered import Iovecs, Scattered, address_of
from service.types import IdArray, RowArray

_HALVES: Final = 2  # the older half of the texts makes room for new ones, all at once
_INDEX: Final = 16  # bytes for each row of the table
_STEP: Final = 32  # rows rendered while others wait for the interpreter: about 0.2 ms
_PAUSE: Final = 0.0005  # seconds between two steps, in which the processor is free for who waits for it


class Memory:
    """Anonymous memory that is given back in small steps."""

    def __init__(self, size: int) -> None:
        self.mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without huge pages
            self.mapping.madvise(mmap.MADV_HUGEPAGE)

    def release(self) -> None:
        """Gives the pages back; called once, when nobody reads them any more."""
        pages.discard(self.mapping)


class _Half:
    """`size` bytes for texts, one behind the other, and the rows whose they are."""

    __slots__ = ("__weakref__", "address", "memory", "rows", "size", "used")

    def __init__(self, size: int) -> None:
        self.memory = Memory(size)
        self.address = address_of(np.frombuffer(self.memory.mapping, dtype=np.uint8))
        self.size = size
        self.used = 0
        self.rows: list[IdArray] = []

    def put(self, rows: IdArray, text: bytes) -> int:
        """Where the text begins from now on; there must be room for it."""
        start = self.used
        self.memory.mapping[start : start + len(text)] = text
        self.used += len(text)
        self.rows.append(rows)
        return self.address + start


class RowTexts:
    """The texts of one version's rows, in at most `most_bytes`. For one thread at a time, but for `close`.

    `watch` is told of memory and of its owner, at whose end it is to be released.
    """

    def __init__(self, backend: Backend, most_bytes: int, watch: Callable[[object, Memory], None]) -> None:
        self._backend = backend
        self._watch = watch
        self._blank = _rendered(np.zeros((1, backend.embedding_dim), dtype=np.float32))
        row = 16 * backend.embedding_dim + _INDEX  # "-0.000012345679" and a comma are the longest number
        self.most_bytes = min(most_bytes, _HALVES * backend.num_embeddings * row)
        """Bytes that texts may take; what all rows need at most, if that is less."""
        self._kept = self._empty(self.most_bytes)

    def _empty(self, most_bytes: int) -> "_Kept":
        return _Kept(self._backend.num_embeddings, most_bytes, self._watch)

    @property
    def rows(self) -> IdArray:
        """The rows whose texts are kept."""
        return np.flatnonzero(self._kept.where[:, 1]) if self._kept.is_open else np.empty(0, dtype=np.int64)

    def of(self, ids: IdArray) -> Scattered:
        """The text of each row behind a comma, in one piece; what is not kept is rendered, and kept from now on."""
        if len(ids) == 0:
            return Scattered(np.empty((0, 2), dtype=np.int64), 0, ())
        return self.find(ids) or self._filled(ids)

    def find(self, ids: IdArray) -> Scattered | None:
        """The same if all of them are kept, and there are any; else None."""
        kept = self._kept
        held = kept.halves
        iovecs = kept.find(ids)
        lengths = iovecs[:, 1]
        if len(lengths) == 0 or lengths.item(lengths.argmin()) == 0:  # the fastest way to ask for a zero
            return None
        return Scattered(iovecs, int(np.add.reduce(lengths)), held)

    def blank(self) -> Scattered:
        """The text of a row of zeros, as `of` gives others."""
        text, _ = self._blank
        return Scattered(np.array([[address_of(text), len(text)]], dtype=np.int64), len(text), text)

    def warm(self, before: "RowTexts") -> None:
        """Renders what another version's texts hold, in small steps, so that the first answers need not."""
        ids = before.rows
        ids = ids[ids < self._backend.num_embeddings]
        for first in range(0, len(ids), _STEP):
            self.of(ids[first : first + _STEP])
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Keeps nothing any more; what is asked for from now on is rendered each time."""
        self._kept = self._empty(0)

    def _filled(self, ids: IdArray) -> Scattered:
        kept = self._kept
        held = kept.halves
        iovecs = kept.find(ids)
        missing = np.flatnonzero(iovecs[:, 1] == 0)
        rows, places = np.unique(ids[missing], return_inverse=True)
        text, lengths = _rendered(self._backend.gather(rows))
        address = kept.put(rows, text, lengths)
        begins = np.cumsum(lengths) - lengths
        found = np.stack((begins + (address_of(text) if address is None else address), lengths), axis=1)
        iovecs[missing] = found.take(places, axis=0)
        return Scattered(iovecs, int(np.add.reduce(iovecs[:, 1])), (held, kept.halves, text))


class _Kept:
    """Where the texts of rows are: (address, length) by row, zeros for none, in two halves of memory."""

    __slots__ = ("_most", "_watch", "halves", "is_open", "where")

    def __init__(self, rows: int, most_bytes: int, watch: Callable[[object, Memory], None]) -> None:
        self._most = max(0, most_bytes - _INDEX * rows) // _HALVES
        self._watch = watch
        self.is_open = self._most > 0
        self.where: Iovecs = np.zeros((rows if self.is_open else 0, 2), dtype=np.int64)
        self.halves: tuple[_Half, ...] = ()

    def find(self, ids: IdArray) -> Iovecs:
        return self.where.take(ids, axis=0) if self.is_open else np.zeros((len(ids), 2), dtype=np.int64)

    def put(self, rows: IdArray, text: bytes, lengths: IdArray) -> int | None:
        """Where the text of these rows begins from now on; None if it is not kept, being too long."""
        if len(text) > self._most:
            return None
        if not self.halves or self.halves[-1].used + len(text) > self.halves[-1].size:
            self._turn()
        address = self.halves[-1].put(rows, text)
        self.where[rows, 0] = np.cumsum(lengths) - lengths + address
        self.where[rows, 1] = lengths
        return address

    def _turn(self) -> None:
        """Begins a new half, and lets go of the one before the last."""
        half = _Half(self._most)
        self._watch(half, half.memory)
        *dropped, last = self.halves or (half,)
        for old in dropped:
            for rows in old.rows:
                mine = rows[(self.where[rows, 0] >= old.address) & (self.where[rows, 0] < old.address + old.size)]
                self.where[mine] = 0
        self.halves = (half,) if last is half else (last, half)


def _rendered(rows: RowArray) -> tuple[bytes, IdArray]:
    """The rows as `,[…],[…]`, and the length of each with its comma."""
    text = b"," + orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    lengths = np.fromiter(map(len, text.split(b"],")), dtype=np.int64, count=len(rows)) + 2
    lengths[0] -= 1  # its comma was not split off
    lengths[-1] -= 1  # nor was its bracket
    return text, lengths
