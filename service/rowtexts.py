"""The JSON text of rows, rendered once and kept: it never changes while its version lives.

It is written by orjson: every float32 as the shortest text that reads back the same.
"""

import time
from collections.abc import Sequence
from itertools import islice
from typing import Final, cast

import numpy as np
import orjson

from service.backends import Backend
from service.types import IdArray, RowArray

_OVERHEAD: Final = 160
"""Bytes that a text takes beside its own: what the object, the allocator and its place in the dictionary need."""
_LONGEST_NUMBER: Final = 16  # bytes: "-0.000012345679" and a comma
_EVICTED: Final = 64  # texts that are dropped together; more would take longer, fewer would search longer
_STEP: Final = 32  # rows rendered, or 30 times as many dropped, while others wait for the interpreter: about 0.2 ms
_PAUSE: Final = 0.0005  # seconds between two steps, in which the processor is free for who waits for it


class Dropped:
    """Texts of a version that is gone, to be let go of in small steps: all at once takes 10 ms for 100,000."""

    def __init__(self, texts: dict[int, bytes]) -> None:
        self._texts = texts

    def release(self) -> None:
        """Lets go of them."""
        while self._texts:
            for _ in range(min(30 * _STEP, len(self._texts))):
                self._texts.popitem()
            time.sleep(_PAUSE)


class RowTexts:
    """The texts of one version's rows, `most_bytes` of them at most. For one thread at a time, but for `close`.

    The oldest make room for new ones.
    """

    def __init__(self, backend: Backend, most_bytes: int) -> None:
        self._backend = backend
        row = backend.embedding_dim * _LONGEST_NUMBER + _OVERHEAD
        self.most_bytes = min(most_bytes, backend.num_embeddings * row)
        """Bytes that texts may take; what all rows need at most, if that is less."""
        self._taken = 0
        self.kept: dict[int, bytes] = {}
        """Text by row, the oldest first."""
        (self.blank,) = _rendered(np.zeros((1, backend.embedding_dim), dtype=np.float32))

    def __len__(self) -> int:
        """How many texts are kept."""
        return len(self.kept)

    def of(self, ids: IdArray) -> tuple[list[bytes], int]:
        """The texts of rows, and their bytes in all; what is not kept is rendered, and kept from now on."""
        texts = list(map(self.kept.get, ids.tolist()))
        try:
            return cast("list[bytes]", texts), sum(map(len, texts))  # type: ignore[arg-type]
        except TypeError:  # of a text that is not there; to look for None in the list takes as long as all the rest
            whole = self._filled(texts, ids)
            return whole, sum(map(len, whole))

    def _filled(self, texts: list[bytes | None], ids: IdArray) -> list[bytes]:
        missing = [position for position, text in enumerate(texts) if text is None]
        rows, places = np.unique(ids[missing], return_inverse=True)
        rendered = self._render(rows)
        for position, place in zip(missing, places.tolist(), strict=True):
            texts[position] = rendered[place]
        return cast("list[bytes]", texts)

    def _render(self, ids: IdArray) -> list[bytes]:
        texts = _rendered(self._backend.gather(ids))
        self._keep(ids.tolist(), texts)
        return texts

    def warm(self, before: "RowTexts") -> None:
        """Renders what another version's texts hold, in small steps, so that the first answers need not."""
        known = np.fromiter(before.kept.copy(), dtype=np.int64)
        ids = known[known < self._backend.num_embeddings]
        for first in range(0, len(ids), _STEP):
            self._render(ids[first : first + _STEP])
            time.sleep(_PAUSE)

    def close(self) -> Dropped:
        """Keeps nothing any more; gives what is to be released off the event loop."""
        self.most_bytes, self._taken = 0, 0
        dropped, self.kept = self.kept, {}
        return Dropped(dropped)

    def _keep(self, ids: Sequence[int], texts: Sequence[bytes]) -> None:
        kept = self.kept
        for row, text in zip(ids, texts, strict=True):
            if row not in kept:
                kept[row] = text
                self._taken += len(text) + _OVERHEAD
        while self._taken > self.most_bytes and kept:
            for row in list(islice(kept, _EVICTED)):
                self._taken -= len(kept.pop(row)) + _OVERHEAD


def _rendered(rows: RowArray) -> list[bytes]:
    """Each row as a JSON array."""
    if len(rows) == 0:
        return []
    inner = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    return [b"[%b]" % text for text in inner]
