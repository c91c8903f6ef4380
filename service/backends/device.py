"""Memory of devices, such as GPUs, that tables are put into: what is free, and what this process may take of it."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Final

from service.backends import Fetching
from service.backends.runtime import CUDA
from service.errors import DeviceFull

SCRATCH: Final = 256 << 20
"""Bytes that one table is gathered with, beside its rows: ids, vectors, and what a session keeps for itself."""


class DeviceMemory:
    """The memory of one device. `free` tells how many bytes nobody has; None where that cannot be told.

    A version is put there beside the one that it takes the place of, so that what is needed is free before it begins.
    """

    def __init__(self, name: str, most_bytes: int | None, free: Callable[[], int | None]) -> None:
        self._name = name
        self._most = most_bytes
        self._free = free
        self._taken = 0
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Counts a table of `size` bytes as there; raises DeviceFull if there is no room for it."""
        with self._lock:
            left = None if self._most is None else self._most - self._taken
            if left is not None and size > left:
                raise DeviceFull(self._name, size, max(0, left), "EMBEDDING_DEVICE_MEMORY_BYTES leaves")
            free = self._free()
            if free is not None and size + SCRATCH > free:
                raise DeviceFull(self._name, size + SCRATCH, free, "there are")
            self._taken += size

    def give_back(self, size: int) -> None:
        """A table of `size` bytes is not there any more."""
        with self._lock:
            self._taken -= size


@lru_cache
def memory_of(fetching: Fetching) -> DeviceMemory:
    """The memory of the device of the first provider; one account for all tables of this process."""
    provider, device = fetching.providers[0], fetching.device_id
    free = (lambda: cuda_free(device)) if provider == CUDA else (lambda: None)
    return DeviceMemory(f"device {device} of {provider}", fetching.device_bytes, free)


@contextmanager
def cuda_driver(device_id: int) -> Iterator[ctypes.CDLL | None]:
    """The CUDA Driver API with the primary context of a device, which ONNX Runtime uses too; None without a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        yield None
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), device_id):
        yield None
        return
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        yield None
        return
    try:
        driver.cuCtxPushCurrent_v2(context)
        yield driver
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
        driver.cuDevicePrimaryCtxRelease_v2(device)


def cuda_free(device_id: int) -> int | None:
    """Free bytes of a CUDA device, by its driver (`cuMemGetInfo`); None where it does not say."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with cuda_driver(device_id) as driver:
        if driver is None or driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)):
            return None
    return free.value
