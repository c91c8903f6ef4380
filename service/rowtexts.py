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

_MOST_PARTS: Final = 8
_LEAST_PART: Final = 512 << 10  # bytes; more than is rendered at once
_NEEDED: Final = 2  # times what all rows need is never used up
_ONES: Final = np.ones(256, dtype=np.int64)
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


class _Part:
    """`size` bytes for texts, one behind the other."""

    __slots__ = ("__weakref__", "address", "memory", "size", "used")

    def __init__(self, size: int) -> None:
        self.memory = Memory(size)
        self.address = address_of(np.frombuffer(self.memory.mapping, dtype=np.uint8))
        self.size = size
        self.used = 0

    def put(self, text: bytes) -> int:
        """Where the text begins from now on; there must be room for it."""
        start = self.used
        self.memory.mapping[start : start + len(text)] = text
        self.used += len(text)
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
        self.most_bytes = min(most_bytes, _NEEDED * backend.num_embeddings * row)
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
        held = kept.parts
        iovecs = kept.find(ids)
        lengths, rows = iovecs[:, 1], len(ids)
        if rows == 0 or lengths.item(lengths.argmin()) == 0:  # the fastest way to ask for a zero
            return None
        # The fastest way to a sum of a few, too.
        size = lengths.dot(_ONES[:rows]) if rows <= len(_ONES) else np.add.reduce(lengths)
        return Scattered(iovecs, int(size), held)

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
        held = kept.parts
        iovecs = kept.find(ids)
        missing = np.flatnonzero(iovecs[:, 1] == 0)
        rows, places = np.unique(ids[missing], return_inverse=True)
        text, lengths = _rendered(self._backend.gather(rows))
        address = kept.put(rows, text, lengths)
        begins = np.cumsum(lengths) - lengths
        found = np.stack((begins + (address_of(text) if address is None else address), lengths), axis=1)
        iovecs[missing] = found.take(places, axis=0)
        return Scattered(iovecs, int(np.add.reduce(iovecs[:, 1])), (held, kept.parts, text))


class _Kept:
    """Where the texts of rows are: (address, length) by row, zeros for none, in several parts of memory.

    Once there are all parts, the oldest is forgotten step by step as the newest is filled, so that nobody waits for it.
    """

    __slots__ = ("_forgotten", "_most_parts", "_size", "_watch", "is_open", "parts", "where")

    def __init__(self, rows: int, most_bytes: int, watch: Callable[[object, Memory], None]) -> None:
        size = max(0, most_bytes - _INDEX * rows)
        self._most_parts = max(2, min(_MOST_PARTS, size // _LEAST_PART))
        self._size = size // self._most_parts
        self._watch = watch
        self.is_open = self._size > 0
        self.where: Iovecs = np.zeros((rows if self.is_open else 0, 2), dtype=np.int64)
        self.parts: tuple[_Part, ...] = ()
        self._forgotten = 0
        """How many rows, the first of the table, have no text in the oldest part any more."""

    def find(self, ids: IdArray) -> Iovecs:
        return self.where.take(ids, axis=0) if self.is_open else np.zeros((len(ids), 2), dtype=np.int64)

    def put(self, rows: IdArray, text: bytes, lengths: IdArray) -> int | None:
        """Where the text of these rows begins from now on; None if it is not kept, being too long."""
        if len(text) > self._size:
            return None
        if not self.parts or self.parts[-1].used + len(text) > self._size:
            self._begin_part()
        newest = self.parts[-1]
        address = newest.put(text)
        self.where[rows, 0] = np.cumsum(lengths) - lengths + address
        self.where[rows, 1] = lengths
        if len(self.parts) == self._most_parts:
            self._forget(-(-len(self.where) * newest.used // self._size))
        return address

    def _begin_part(self) -> None:
        if len(self.parts) == self._most_parts:
            self._forget(len(self.where))
            self.parts = self.parts[1:]
        part = _Part(self._size)
        self._watch(part, part.memory)
        self.parts = (*self.parts, part)
        self._forgotten = 0

    def _forget(self, end: int) -> None:
        """Forgets which texts of rows before `end` are in the oldest part."""
        if end > self._forgotten:
            oldest, rows = self.parts[0], self.where[self._forgotten : end]
            rows[(rows[:, 0] >= oldest.address) & (rows[:, 0] < oldest.address + oldest.size)] = 0
            self._forgotten = end


def _rendered(rows: RowArray) -> tuple[bytes, IdArray]:
    """The rows as `,[…],[…]`, and the length of each with its comma."""
    text = b"," + orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    lengths = np.fromiter(map(len, text.split(b"],")), dtype=np.int64, count=len(rows)) + 2
    lengths[0] -= 1  # its comma was not split off
    lengths[-1] -= 1  # nor was its bracket
    return text, lengths
