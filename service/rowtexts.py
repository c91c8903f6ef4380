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
_ENTRY: Final = 12  # bytes of the index for each row of the table
_OBJECT: Final = 56  # bytes that a text takes beside its own
_STEP: Final = 32  # rows rendered while others wait for the interpreter: about 0.2 ms
_DROPPED: Final = 1024  # texts let go of while others wait
_PAUSE: Final = 0.0005  # seconds between two steps, in which the processor is free for who waits for it


Texts: TypeAlias = NDArray[Any]
"""Of bytes objects, or of None where there is no text."""


class RowTexts:
    """The texts of one version's rows, in at most `most_bytes`. For one thread at a time, but for `close`.

    `watch` is told of what is kept and of its owner, at whose end it is to be released.
    """

    def __init__(self, backend: Backend, most_bytes: int, watch: Callable[[object, "Kept"], None]) -> None:
        self._backend = backend
        self.blank: bytes = _rendered(np.zeros((1, backend.embedding_dim), dtype=np.float32)).texts.item(0)
        """The text of a row of zeros."""
        row = 16 * backend.embedding_dim + _OBJECT + _ENTRY  # "-0.000012345679" and a comma are the longest number
        self.most_bytes = min(most_bytes, backend.num_embeddings * row)
        """Bytes that texts may take; what all rows need at most, if that is less."""
        kept = Kept(backend.num_embeddings, self.most_bytes)
        self._owner = _Owner(kept)
        watch(self._owner, kept)

    @property
    def rows(self) -> IdArray:
        """The rows whose texts are kept."""
        return np.flatnonzero(self._owner.kept.lengths)

    def joined(self, ids: IdArray) -> bytes | None:
        """The texts of these rows as one sequence; None if one of them is not kept."""
        owner = self._owner  # as long as it is held, nothing is released
        try:
            return BETWEEN.join(owner.kept.texts.take(ids).tolist())
        except (TypeError, IndexError):  # nothing stands where there is no text, and nothing is there once it is closed
            return None

    def find(self, ids: IdArray) -> "Found | None":
        """The texts of these rows; None if one of them is not kept."""
        owner = self._owner
        kept = owner.kept
        if not len(kept.lengths):
            return None
        lengths = kept.lengths.take(ids)
        if len(ids) and lengths.item(lengths.argmin()) == 0:
            return None
        return Found(kept.texts.take(ids), int(np.add.reduce(lengths, dtype=np.int64)))

    def of(self, ids: IdArray) -> "Found":
        """The same; what is not kept is rendered, and kept from now on."""
        return self.find(ids) or self._filled(ids)

    def _filled(self, ids: IdArray) -> "Found":
        owner = self._owner
        kept = owner.kept
        if len(kept.lengths):
            texts, lengths = kept.texts.take(ids), kept.lengths.take(ids)
        else:
            texts, lengths = np.empty(len(ids), dtype=object), np.zeros(len(ids), dtype=np.int32)
        missing = np.flatnonzero(lengths == 0)
        rows, places = np.unique(ids[missing], return_inverse=True)
        rendered = _rendered(self._backend.gather(rows))
        kept.put(rows, rendered)
        texts[missing] = rendered.texts.take(places)
        lengths[missing] = rendered.lengths.take(places)
        return Found(texts, int(np.add.reduce(lengths, dtype=np.int64)))

    def warm(self, before: "RowTexts") -> None:
        """Renders what another version's texts hold, in small steps, so that the first answers need not."""
        ids = before.rows
        ids = ids[ids < self._backend.num_embeddings]
        for first in range(0, len(ids), _STEP):
            self.of(ids[first : first + _STEP])
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
    """Texts by row in at most so many bytes, those of the index included. Those put in first make room for others."""

    def __init__(self, rows: int, most_bytes: int) -> None:
        self._free = most_bytes - _ENTRY * rows
        indexed = rows if self._free > 0 else 0
        # Untouched entries take no memory; and an array of objects is nothing that the garbage collector looks through.
        self.texts: Texts = np.empty(indexed, dtype=object)
        self.lengths = np.zeros(indexed, dtype=np.int32)
        self._puts: deque[tuple[IdArray, int]] = deque()

    def put(self, rows: IdArray, rendered: _Rendered) -> None:
        """Keeps the texts of these rows, none of which has one, if there can be room for them."""
        size = int(np.add.reduce(rendered.lengths, dtype=np.int64)) + _OBJECT * len(rows)
        while self._free < size and self._puts:
            self._drop()
        if self._free < size or not len(self.texts):
            return
        self.texts[rows] = rendered.texts
        self.lengths[rows] = rendered.lengths
        self._puts.append((rows, size))
        self._free -= size

    def _drop(self) -> int:
        """Drops the texts that were put in first; gives their number."""
        rows, size = self._puts.popleft()
        self.lengths[rows] = 0
        self.texts[rows] = None
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
