"""glibc's allocator, told to keep the memory of one answer for the next."""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1  # mallopt(3)
_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 16 << 20
"""Bytes of free memory at the end of the heap that are not given back."""
_MAPPED: Final = 4 << 20
"""Bytes of an allocation that gets a mapping of its own, all of whose pages are fresh."""


def keep_freed_memory() -> None:
    """Takes the buffers of answers from memory that was used before; does nothing where the C library is not glibc.

    By default 128 KB at the end of the heap are given back at once, and every answer of 64 rows as JSON text faults
    the same pages in again: 17 us of text that is gathered become 45 us.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _MAPPED)
