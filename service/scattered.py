"""Bytes that lie in many places, as the system takes them: an array of addresses and lengths (`struct iovec`).

To send rows or their texts, nothing is copied in this process: the system reads each from where it lies.
"""

import ctypes
from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Iovecs: TypeAlias = NDArray[np.int64]
"""Of shape (n, 2): where each piece begins, and how many bytes it has; as wide as a pointer and a size_t."""

AVAILABLE: Final = ctypes.sizeof(ctypes.c_void_p) == 8 and hasattr(ctypes.CDLL(None), "writev")
_MOST: Final = 1024  # IOV_MAX of Linux
_EDGE: Final = 32 << 10
"""Bytes of what stands before and behind scattered pieces that are written with them."""

# Without letting go of the interpreter lock: it would take as long to get it back as the call takes.
_writev = ctypes.PyDLL(None).writev if AVAILABLE else None
if _writev is not None:
    _writev.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    _writev.restype = ctypes.c_ssize_t


def address_of(buffer: bytes | NDArray[np.generic]) -> int:
    """Where the bytes of a buffer begin, for as long as it lives."""
    array = np.frombuffer(buffer, dtype=np.uint8) if isinstance(buffer, bytes) else buffer
    return int(array.__array_interface__["data"][0])


class Scattered:
    """Pieces of memory in their order, `size` bytes in all; `held` keeps them alive."""

    __slots__ = ("held", "iovecs", "size")

    def __init__(self, iovecs: Iovecs, size: int, held: object) -> None:
        self.iovecs = iovecs
        self.size = size
        self.held = held

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return b"".join(ctypes.string_at(address, length) for address, length in self.iovecs.tolist())

    def without_first_byte(self) -> "Scattered":
        """Drops their first byte."""
        first = self.iovecs[0]
        first[0] += 1
        first[1] -= 1
        self.size -= 1
        return self

    def between(self, head: bytes, tail: bytes) -> "Scattered":
        """The same pieces with bytes before and behind them."""
        ends = np.array([[address_of(head), len(head)], [address_of(tail), len(tail)]], dtype=np.int64)
        iovecs = np.concatenate((ends[:1], self.iovecs, ends[1:]))
        return Scattered(iovecs, self.size + len(head) + len(tail), (self.held, head, tail))

    def parts(self, size: int) -> Iterator["Scattered"]:
        """The same in parts of about `size` bytes."""
        ends = np.cumsum(self.iovecs[:, 1])
        bounds = [*np.searchsorted(ends, np.arange(size, self.size, size)).tolist(), len(ends)]
        first = before = 0
        for end in bounds:
            if first < end:
                after = int(ends[end - 1])
                yield Scattered(self.iovecs[first:end], after - before, self.held)
                first, before = end, after


class Writer:
    """Hands scattered pieces to the system, from memory of its own. For one thread."""

    def __init__(self) -> None:
        self._edges = bytearray(_EDGE)
        self._edges_at = address_of(np.frombuffer(self._edges, dtype=np.uint8))
        self._iovecs: Iovecs = np.zeros((_MOST, 2), dtype=np.int64)
        self._iovecs[0, 0] = self._edges_at
        self._iovecs_at = address_of(self._iovecs)

    def takes(self, head: bytes | memoryview, pieces: Scattered, tail: bytes | memoryview) -> bool:
        """Whether `write` can write them at once."""
        return len(pieces.iovecs) <= _MOST - 2 and len(head) + len(tail) <= _EDGE

    def write(self, descriptor: int, head: bytes | memoryview, pieces: Scattered, tail: bytes | memoryview) -> int:
        """How many bytes the system takes without waiting; 0 also where it takes none for an error."""
        assert _writev is not None  # noqa: S101  (see AVAILABLE)
        before, count = len(head), len(pieces.iovecs)
        behind = before + len(tail)
        self._edges[:before] = head
        self._edges[before:behind] = tail
        iovecs = self._iovecs
        iovecs[0, 1] = before
        iovecs[1 : count + 1] = pieces.iovecs
        iovecs[count + 1, 0] = self._edges_at + before
        iovecs[count + 1, 1] = len(tail)
        return max(0, int(_writev(descriptor, self._iovecs_at, count + 2)))
