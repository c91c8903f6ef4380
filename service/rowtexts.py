"""The JSON text of rows, rendered once and kept: it never changes while its version lives.

It is written by orjson: every float32 as the shortest text that reads back the same. The text of a row is what stands
between its brackets, so that the texts of a sequence of rows are one `join`.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from service.backends import Backend
from service.types import IdArray, RowArray

BETWEEN: Final = b"],["
"""What stands between the texts of two rows of a sequence."""
_LONGEST: Final = 17  # bytes of a number and its comma: "-0.0000017673632,"
_ENTRY: Final = 4  # bytes of the index for each row of the table
_OBJECT: Final = 88  # bytes that a text takes beside its own, its slot among them
_PUT: Final = 224  # bytes that are noted of texts that come together
_FIRST_SLOTS: Final = 1 << 8
_MOST_SLOTS: Final = 1 << 20
_STEP: Final = 32  # rows rendered while others wait for the interpreter: about 0.2 ms
_DROPPED: Final = 1024  # texts let go of while others wait
_PAUSE: Final = 0.0005  # seconds between two steps, in which the processor is free for who waits for it


Texts: TypeAlias = NDArray[Any]
"""Of bytes objects, or of None where there is no text."""


class RowTexts:
    """The texts of one version's rows, in at most `most_bytes`. For one thread at a time, but for `close`.

    `watch` is told of what is kept and of its owner, at whose end it is to be released; `told` of the texts that
    answers are made of: how many were kept, and how many were rendered.
    """

    def __init__(
        self,
        backend: Backend,
        most_bytes: int,
        watch: Callable[[object, "Kept"], None],
        told: Callable[[int, int], None] = lambda _hits, _rendered: None,
    ) -> None:
        self._backend = backend
        self._told = told
        self.blank: bytes = _rendered(np.zeros((1, backend.embedding_dim), dtype=np.float32)).texts.item(0)
        """The text of a row of zeros."""
        row = _LONGEST * backend.embedding_dim + _OBJECT + _PUT + _ENTRY
        self.most_bytes = min(most_bytes, backend.num_embeddings * row)
        """Bytes that texts may take; what all rows need at most, if that is less."""
        kept = Kept(backend.num_embeddings, self.most_bytes)
        self._owner = _Owner(kept)
        watch(self._owner, kept)

    @property
    def rows(self) -> IdArray:
        """The rows whose texts are kept."""
        # Of an array of our own: nonzero raises where the one that it counts in changes meanwhile.
        return np.flatnonzero(self._owner.kept.slots != 0)

    def listed(self, ids: IdArray) -> list[bytes] | None:
        """The texts of these rows in their order; None if one of them is not kept."""
        owner = self._owner  # as long as it is held, nothing is released
        slots = owner.kept.slots_of(ids)
        if slots is None:
            return None
        self._told(len(ids), 0)
        texts: list[bytes] = owner.kept.texts.take(slots).tolist()
        return texts

    def find(self, ids: IdArray) -> "Found | None":
        """The texts of these rows, and how long they are; None if one of them is not kept."""
        owner = self._owner
        kept = owner.kept
        slots = kept.slots_of(ids)
        if slots is None:
            return None
        self._told(len(ids), 0)
        lengths = kept.lengths.take(slots)
        return Found(kept.texts.take(slots), int(np.add.reduce(lengths, dtype=np.int64)))

    def of(self, ids: IdArray) -> "Found":
        """The same; what is not kept is rendered, and kept from now on."""
        found = self.find(ids)
        if found is None:
            found, rendered = self._filled(ids)
            self._told(len(ids) - rendered, rendered)
        return found

    def _filled(self, ids: IdArray) -> tuple["Found", int]:
        """The texts of these rows, and how many of them were rendered for it."""
        owner = self._owner
        kept = owner.kept
        slots = kept.slots.take(ids) if len(kept.slots) else np.zeros(len(ids), dtype=np.int32)
        texts, lengths = kept.texts.take(slots), kept.lengths.take(slots)
        missing = np.flatnonzero(slots == 0)
        rows, places = np.unique(ids[missing], return_inverse=True)
        rendered = _rendered(self._backend.gather(rows))
        kept.put(rows, rendered)
        texts[missing] = rendered.texts.take(places)
        lengths[missing] = rendered.lengths.take(places)
        return Found(texts, int(np.add.reduce(lengths, dtype=np.int64))), len(missing)

    def warm(self, before: "RowTexts") -> None:
        """Renders what another version's texts hold, in small steps, so that the first answers need not."""
        ids = before.rows
        ids = ids[ids < self._backend.num_embeddings]
        for first in range(0, len(ids), _STEP):
            self._filled(ids[first : first + _STEP])
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Keeps nothing any more; what is asked for from now on is rendered each time."""
        self._owner = _Owner(Kept(self._backend.num_embeddings, 0))


class Found(NamedTuple):
    """The texts of rows in their order, an array of bytes objects, and how many bytes they have in all."""

    texts: Texts
    size: int


class _Rendered(NamedTuple):
    """Texts, and how many bytes each has."""

    texts: Texts
    lengths: NDArray[np.int32]


class Kept:
    """Texts by row in at most so many bytes, those of the index included. Those put in first make room for others.

    A row's text is in the slot that `slots` has for it, and how long it is in `lengths`; in slot 0 there is never one.
    What has an entry for each row is all zeros at first, and takes memory only where it is written to.
    """

    def __init__(self, rows: int, most_bytes: int) -> None:
        self._most = self._free = max(0, most_bytes - _ENTRY * rows)
        self.slots = np.zeros(rows if self._most else 0, dtype=np.int32)
        self.texts: Texts = np.empty(_FIRST_SLOTS, dtype=object)
        self.lengths = np.zeros(_FIRST_SLOTS, dtype=np.int32)
        self._empty = np.arange(1, _FIRST_SLOTS, dtype=np.int32)
        """Slots without a text."""
        self._puts: deque[tuple[IdArray, int]] = deque()

    def slots_of(self, rows: IdArray) -> NDArray[np.int32] | None:
        """Where the texts of these rows are; None if one of them has none."""
        if not len(self.slots):
            return None
        slots = self.slots.take(rows)
        return slots if len(rows) == 0 or slots.item(slots.argmin()) else None

    def put(self, rows: IdArray, rendered: _Rendered) -> None:
        """Keeps the texts of these rows, none of which has one, if there can be room for them."""
        size = int(np.add.reduce(rendered.lengths, dtype=np.int64)) + _OBJECT * len(rows) + _PUT
        if size > self._most or len(rows) >= _MOST_SLOTS:
            return
        while self._free < size:
            self._drop()
        slots = self._take_slots(len(rows))
        self.texts[slots] = rendered.texts
        self.lengths[slots] = rendered.lengths
        self.slots[rows] = slots
        self._puts.append((rows, size))
        self._free -= size

    def _take_slots(self, count: int) -> NDArray[np.int32]:
        while len(self._empty) < count:
            if len(self.texts) < _MOST_SLOTS:
                self._add_slots()
            else:
                self._drop()
        taken, self._empty = self._empty[:count], self._empty[count:]
        return taken

    def _add_slots(self) -> None:
        """Doubles their number; 5 ms for the last time."""
        before = len(self.texts)
        self.texts = np.concatenate((self.texts, np.empty(before, dtype=object)))
        self.lengths = np.concatenate((self.lengths, np.zeros(before, dtype=np.int32)))
        self._empty = np.concatenate((self._empty, np.arange(before, 2 * before, dtype=np.int32)))

    def _drop(self) -> int:
        """Drops the texts that were put in first; gives their number."""
        rows, size = self._puts.popleft()
        slots = self.slots.take(rows)
        self.slots[rows] = 0
        self.texts[slots] = None
        self._empty = np.concatenate((self._empty, slots))
        self._free += size
        return len(rows)

    def release(self) -> None:
        """Drops all texts, in small steps; called once, when nobody looks for them any more."""
        while self._puts:
            dropped = 0
            while self._puts and dropped < _DROPPED:
                dropped += self._drop()
            time.sleep(_PAUSE)


class _Owner:
    """Whoever holds this looks for texts in `kept`."""

    __slots__ = ("__weakref__", "kept")

    def __init__(self, kept: Kept) -> None:
        self.kept = kept


def _rendered(rows: RowArray) -> _Rendered:
    texts = np.empty(len(rows), dtype=object)
    texts[:] = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(BETWEEN)
    return _Rendered(texts, np.fromiter(map(len, texts), dtype=np.int32, count=len(texts)))
