"""HDF5 files read through h5py without trusting them: only data that lie in the file itself, only hard links."""

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np

from service.errors import ImportFormatError, ServiceError
from service.importers.matrix import AnyArray
from service.npyfile import ARCHIVE_ERRORS

_ERRORS: Final = (*ARCHIVE_ERRORS, KeyError, TypeError, AttributeError, MemoryError, RecursionError, struct.error)
_PIECE: Final = 1 << 20  # bytes
_MOST_OBJECTS: Final = 1_000_000
_MOST_INFLATED: Final = 1032  # times; the most that deflate can do
_LOCAL_HEADER: Final = struct.Struct("<26xHH")  # of a zip's member: the lengths of its name and its extra field
_HEAP: Final = b"GCOL\x01\0\0\0"
_HEAP_HEAD: Final = 16  # bytes; the signature and the size
_HEAP_OBJECT: Final = struct.Struct("<H6xQ")  # number (0 is what is free) and size


@dataclass(frozen=True, slots=True)
class Hdf5File:
    """An HDF5 file, or the one that is stored in a zip as `member`."""

    path: Path
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[Any]:  # h5py has no types
        """The open file; raises ImportFormatError, also for what goes wrong while it is open."""
        h5py = _h5py(self.path)
        try:
            with self._bytes() as file, h5py.File(file, "r") as hdf5:
                yield hdf5
        except ServiceError:
            raise
        except _ERRORS as error:
            raise self.refusal(f"it cannot be read as HDF5: {error}") from None

    def refusal(self, reason: str, place: str | None = None) -> ImportFormatError:
        """The error for a place in this file."""
        within = None if self.member is None else f"member {self.member!r}"
        return ImportFormatError(str(self.path), reason, ", ".join(filter(None, (within, place))) or None)

    def rows(self, dataset: str, step: int) -> Iterator[AnyArray]:
        """The rows of a dataset, `step` at a time."""
        with self.open() as hdf5:
            found = hdf5[dataset]
            for first in range(0, found.shape[0], step):
                yield np.asarray(found[first : first + step])

    @contextmanager
    def _bytes(self) -> Iterator[BinaryIO]:
        with self.path.open("rb") as file:
            if self.member is None:
                yield file
            else:
                with zipfile.ZipFile(file) as archive:
                    info = archive.getinfo(self.member)
                if info.compress_type != zipfile.ZIP_STORED:
                    raise self.refusal("the member is compressed; Keras stores it")
                file.seek(info.header_offset)
                start = file.tell() + _LOCAL_HEADER.size
                start += sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
                yield cast("BinaryIO", _Window(file, start, info.file_size))

    def check_heaps(self) -> None:
        """Raises ImportFormatError for a heap of texts on which the HDF5 library would never end.

        The layout is that of the "Global Heap" in the HDF5 File Format Specification.
        """
        with self.path.open("rb") as file:
            if not file.seek(0, io.SEEK_END):
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = data.find(_HEAP)
                while at >= 0:
                    if not _is_heap(data, at):
                        raise self.refusal("a heap of texts is damaged", f"byte {at}")
                    at = data.find(_HEAP, at + len(_HEAP))

    def check_sum(self) -> None:
        """Reads a member once from end to end: a zip knows the checksum, HDF5 does not."""
        if self.member is None:
            return
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                while member.read(_PIECE):
                    pass
        except (*ARCHIVE_ERRORS, KeyError) as error:
            raise self.refusal(f"it cannot be read: {error}") from None


def _is_heap(data: mmap.mmap, start: int) -> bool:
    """Whether its objects follow one another to its end."""
    if start + _HEAP_HEAD > len(data):
        return False
    end = start + int.from_bytes(data[start + 8 : start + _HEAP_HEAD], "little")
    at = start + _HEAP_HEAD
    while at + _HEAP_OBJECT.size <= min(end, len(data)):
        number, size = _HEAP_OBJECT.unpack(data[at : at + _HEAP_OBJECT.size])
        if number == 0:
            return bool(at + size == end)
        at += _HEAP_OBJECT.size + -(-size // 8) * 8
    return at <= end <= len(data)


class _Window(io.RawIOBase):
    """A stretch of a file as a file: h5py seeks much, and a zip's own reader goes back by starting again."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # typeshed's own type is private
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def walk(file: Hdf5File, root: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Every group and dataset below `root` with its path, each once; links to other places are not followed."""
    h5py = _h5py(file.path)
    waiting = [root]
    seen: set[Any] = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            found = group[name]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MOST_OBJECTS:
                raise file.refusal(f"there are more than {_MOST_OBJECTS} objects in the file")
            if isinstance(found, h5py.Group):
                waiting.append(found)
            yield found.name, found


def is_dataset(found: Any) -> bool:  # noqa: ANN401
    """Whether it is a dataset and not a group."""
    return hasattr(found, "shape")


def check_stored(file: Hdf5File, dataset: Any) -> None:  # noqa: ANN401
    """Raises ImportFormatError unless the numbers lie in this file, as many as the shape says."""
    place = f"dataset {dataset.name!r}"
    if dataset.external or dataset.is_virtual:
        raise file.refusal("its numbers lie in another file", place)
    wanted = math.prod(dataset.shape) * dataset.dtype.itemsize
    most = dataset.id.get_storage_size() * (1 if dataset.compression is None else _MOST_INFLATED)
    if most < wanted:
        raise file.refusal(f"{list(dataset.shape)} {dataset.dtype} are {wanted} bytes, there are {most}", place)


def texts(group: Any, name: str) -> list[str]:  # noqa: ANN401
    """A list of texts in an attribute, or in its pieces `name0`, `name1`, … where it was too long for one."""
    pieces = [name] if name in group.attrs else []
    while not pieces or pieces[-1] != name:
        piece = f"{name}{len(pieces)}"
        if piece not in group.attrs:
            break
        pieces.append(piece)
    values = [value for piece in pieces for value in np.ravel(group.attrs[piece]).tolist()]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _h5py(path: Path) -> Any:  # noqa: ANN401
    try:
        return import_module("h5py")
    except ImportError:
        reason = "reading it needs h5py: pip install 'embedding-table-service[keras]'"
        raise ImportFormatError(str(path), reason) from None
