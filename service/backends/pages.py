"""Page tables of a mapping: filled ahead of the first lookup, emptied after the last, without the interpreter lock."""

import ctypes
import errno
import mmap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import numpy as np

_DONT_NEED: Final = 4  # MADV_DONTNEED
_HUGE: Final = 14  # MADV_HUGEPAGE
_POPULATE_READ: Final = 22  # MADV_POPULATE_READ, Linux 5.14; the mmap module does not name it
_SLICE: Final = 4 << 20  # bytes; a fraction of a millisecond
_LARGE_SLICE: Final = 32 << 20
_AT_ONCE: Final = 4  # slices; a disk reads several in the time of one
_PAUSE: Final = 0.0005  # seconds between slices, in which the processor is free for who waits for it

_Bytes: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint8]]

# ctypes releases the interpreter lock around the call; mmap.madvise holds it (24 ms for 2 GB, warm).
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def populate(mapping: mmap.mmap, *, gently: bool = True) -> None:
    """Faults every page of `mapping` in for reading, slice by slice; reads the file where it is not cached.

    What is not cached is read into huge pages where the file system can; see `durable.HashedFile` for what is written.
    Without `gently` as quickly as can be: 3 GB that are cached take 0.1 s, and 0.7 s with the pauses.
    """
    touched = np.frombuffer(mapping, dtype=np.uint8)
    _madvise(touched.ctypes.data, len(touched), _HUGE)
    if not gently:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pages") as threads:
            list(threads.map(_fault_in, _slices(touched, _LARGE_SLICE)))
        return
    for pages in _slices(touched, _SLICE):
        _fault_in(pages)
        time.sleep(_PAUSE)


def _slices(touched: _Bytes, length: int) -> Iterator[_Bytes]:
    return (touched[start : start + length] for start in range(0, len(touched), length))


def _fault_in(pages: _Bytes) -> None:
    if _madvise(pages.ctypes.data, len(pages), _POPULATE_READ) != 0:
        if ctypes.get_errno() == errno.EFAULT:
            raise OSError(errno.EFAULT, "a page of the mapped file could not be read")
        _touch(pages)


def discard(mapping: mmap.mmap) -> None:
    """Takes the pages of `mapping` out of this process, slice by slice; a page that is still read comes back.

    To unmap 2 GB at once takes 8.5 ms, in which no other thread of the process can map or fault in a page; what is
    left to unmap after this is empty.
    """
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    for start in range(0, len(mapping), _SLICE):
        _madvise(address + start, min(_SLICE, len(mapping) - start), _DONT_NEED)
        time.sleep(_PAUSE)


def _touch(pages: _Bytes) -> None:
    """Reads one byte of every page: what an older kernel, without the advice above, needs."""
    np.add.reduce(pages[:: mmap.PAGESIZE])
