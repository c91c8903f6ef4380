"""Page tables of a mapping: filled ahead of the first lookup, emptied after the last, without the interpreter lock."""

import ctypes
import errno
import mmap
import time
from typing import Final

import numpy as np

_DONT_NEED: Final = 4  # MADV_DONTNEED
_POPULATE_READ: Final = 22  # MADV_POPULATE_READ, Linux 5.14; the mmap module does not name it
_SLICE: Final = 4 << 20  # bytes; a fraction of a millisecond
_PAUSE: Final = 0.0005  # seconds between slices, in which the processor is free for who waits for it

# ctypes releases the interpreter lock around the call; mmap.madvise holds it (24 ms for 2 GB, warm).
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def populate(mapping: mmap.mmap) -> None:
    """Faults every page of `mapping` in for reading, slice by slice; reads the file where it is not cached."""
    touched = np.frombuffer(mapping, dtype=np.uint8)
    address = touched.ctypes.data
    for start in range(0, len(touched), _SLICE):
        length = min(_SLICE, len(touched) - start)
        if _madvise(address + start, length, _POPULATE_READ) != 0:
            if ctypes.get_errno() == errno.EFAULT:
                raise OSError(errno.EFAULT, "a page of the mapped file could not be read")
            _touch(touched[start : start + length])
        time.sleep(_PAUSE)


def discard(mapping: mmap.mmap) -> None:
    """Takes the pages of `mapping` out of this process, slice by slice; a page that is still read comes back.

    To unmap 2 GB at once takes 8.5 ms, in which no other thread of the process can map or fault in a page; what is
    left to unmap after this is empty.
    """
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    for start in range(0, len(mapping), _SLICE):
        _madvise(address + start, min(_SLICE, len(mapping) - start), _DONT_NEED)
        time.sleep(_PAUSE)


def _touch(pages: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    """Reads one byte of every page: what an older kernel, without the advice above, needs."""
    np.add.reduce(pages[:: mmap.PAGESIZE])
