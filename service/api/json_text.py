"""JSON text written piece by piece under a limit, so that an answer that is too long is never made as a whole."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.limits import Limits

_PIECE: Final = 1 << 18
"""Elements of an array that are written at once."""


class JsonText:
    """The pieces of one JSON text. Arrays are written by orjson: a float32 as the shortest text that reads back."""

    __slots__ = ("_limits", "_pieces", "_size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Appends `piece`; raises RequestTooLarge beyond the limit."""
        self._size += len(piece)
        self._limits.check_answer(self._size)
        self._pieces.append(piece)

    def write_object_head(self, head: Mapping[str, object]) -> None:
        """Appends an object with its end left open."""
        self.write(orjson.dumps(head)[:-1])

    def write_array(self, array: NDArray[Any]) -> None:
        """Appends an array of any number of axes."""
        if array.ndim == 1 or array.size <= _PIECE:
            self.write(orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY))
            return
        each = array[0].size
        step = max(1, _PIECE // each)
        for first in range(0, len(array), step):
            self.write(b"," if first else b"[")
            if step == 1:
                self.write_array(array[first])
            else:
                text = orjson.dumps(array[first : first + step], option=orjson.OPT_SERIALIZE_NUMPY)
                self.write(text[1:-1])
        self.write(b"]")

    def joined(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)
