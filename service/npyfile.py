"""The `.npy` container (NEP 1): headers read and written without trusting them, rows mapped without copying.

No pickle is ever loaded: a header is parsed by numpy's own safe reader, and object dtypes are refused.
"""

import ast
import io
import lzma
import math
import mmap
import os
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.types import RowDtype

MAGIC: Final = b"\x93NUMPY"
STORED: Final[dict[RowDtype, str]] = {"float32": "<f4", "float16": "<f2", "int8": "|i1"}
"""The dtypes of rows in the store, as headers write them."""
_VERSION_1: Final = MAGIC + b"\x01\x00"
_HEAD: Final = 10  # bytes of magic, version and length
_REPEATED: Final = 256  # bytes of a header that is remembered, with those
_PARSING: Final = Lock()  # threads of Python 3.11 and 3.12 that parse at once may get a SystemError (gh-106905)
_HEADER_LIMIT: Final = 10_000  # bytes; numpy's own bound for a header from an untrusted source
_PYTHON_2_LIMIT: Final = 256  # bytes; more than Python 2 wrote for an array of plain numbers
_HEADER_ERRORS: Final = (
    ValueError,
    SyntaxError,
    TypeError,
    IndexError,
    RecursionError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
)
ARCHIVE_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    IndexError,  # zipfile's own, for a member without a name
    MemoryError,  # LZMA's own, for a dictionary of gigabytes
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,  # zipfile's word for an encrypted member
    ValueError,
)
"""What reading a damaged zip may raise."""
AnyArray: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a header says, and the `offset` in bytes at which the data begin."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def data_bytes(self) -> int:
        """How long the data must be."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO, *, allow_objects: bool = False) -> NpyHeader:
    """Reads the header at the file's position; raises ValueError naming what is wrong with it.

    An array of objects is refused here already unless `allow_objects`: to list it; nothing reads its data.
    """
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy format version {version[0]}.{version[1]} is not supported")
    try:
        length_bytes = 2 if version == (1, 0) else 4
        header = _header_of(file, length_bytes)
        with _PARSING:
            _check_literal(header, length_bytes)
            shape, fortran_order, dtype = readers[version](io.BytesIO(header), max_header_size=_HEADER_LIMIT)
    except _HEADER_ERRORS:  # numpy's text may quote the header's code with addresses of objects in it
        raise ValueError("the npy header cannot be read") from None
    if dtype.hasobject and not allow_objects:
        raise ValueError("the array holds pickled Python objects, which are never loaded")
    if dtype.subdtype is not None:
        raise ValueError(f"the dtype {dtype} has axes of its own")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"the npy header has the impossible shape {shape}")
    return NpyHeader(shape, fortran_order, dtype, file.tell())


def _header_of(file: BinaryIO, length_bytes: int) -> bytes:
    """Its length and as much of it as may be parsed; nobody waits for a disk while another thread parses."""
    length = file.read(length_bytes)
    return length + file.read(min(int.from_bytes(length, "little"), _HEADER_LIMIT + 1))


def _check_literal(header: bytes, length_bytes: int) -> None:
    """Raises one of `_HEADER_ERRORS` for a long header that is no literal.

    numpy takes such a header for one of Python 2, and before Python 3.12 its tokenizer needs time that grows with the
    square of the length: 38 seconds for 10,000 bytes.
    """
    text = header[length_bytes:][:_HEADER_LIMIT].rstrip()
    if len(text) > _PYTHON_2_LIMIT:
        ast.literal_eval(text.decode("latin1"))


@lru_cache(maxsize=256)
def _parsed(head: bytes) -> NpyHeader:
    """Clients send the same header again and again, and to parse it takes 150 us."""
    return read_header(io.BytesIO(head))


def parse(data: bytes | memoryview) -> AnyArray:
    """The array in `data`, as a read-only view of it; raises ValueError if it is not exactly one array."""
    length = _HEAD + int.from_bytes(data[8:_HEAD], "little")
    if data[:8] == _VERSION_1 and length <= min(len(data), _REPEATED):
        header = _parsed(bytes(data[:length]))
    else:
        header = read_header(io.BytesIO(data))
    found = len(data) - header.offset
    if found != header.data_bytes:
        raise ValueError(f"the header promises {header.data_bytes} bytes of data, there are {found}")
    return _array(header, np.frombuffer(data, dtype=np.uint8, offset=header.offset))


def int64_head(data: bytes) -> bytes | None:
    """The header of an array in `data` that is known to be well-formed, if it is one of C-ordered int64; else None."""
    length = _HEAD + int.from_bytes(data[8:_HEAD], "little")
    if data[:8] != _VERSION_1 or length > min(len(data), _REPEATED):
        return None
    header = _parsed(data[:length])
    return None if header.fortran_order or header.dtype != np.dtype("<i8") else data[:length]


def map_array(path: Path) -> tuple[mmap.mmap, AnyArray]:
    """Maps the array in a file, read-only; raises ValueError if the file is not exactly one array."""
    with path.open("rb") as file:
        header = read_header(file)
        found = os.fstat(file.fileno()).st_size - header.offset
        if found != header.data_bytes:
            raise ValueError(f"the header promises {header.data_bytes} bytes of data, there are {found}")
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # A plain ndarray: `take` through the np.memmap subclass is half as slow again.
    return mapping, _array(header, np.frombuffer(mapping, dtype=np.uint8, offset=header.offset))


def map_rows(path: Path, dtype: RowDtype = "float32") -> tuple[mmap.mmap, AnyArray]:
    """Maps a C-ordered little-endian matrix of at least one row and column, as the store has them."""
    mapping, array = map_array(path)
    if array.dtype != np.dtype(STORED[dtype]) or array.ndim != 2 or array.size == 0 or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype.str} of shape {array.shape} is not a C-ordered {dtype} matrix")
    return mapping, array


def map_vector(path: Path, dtype: Literal["<f4", "<f8"], length: int) -> tuple[mmap.mmap, AnyArray]:
    """Maps a little-endian vector of so many numbers, one for each row, as the store has them."""
    mapping, array = map_array(path)
    if array.dtype != np.dtype(dtype) or array.shape != (length,):
        raise ValueError(f"{array.dtype.str} of shape {array.shape} is not a vector of {length} {np.dtype(dtype).name}")
    return mapping, array


@lru_cache(maxsize=256)
def header_bytes(shape: tuple[int, ...], dtype: RowDtype = "float32") -> bytes:
    """The header of a C-ordered little-endian array; 128 bytes for every shape of one or two axes."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": STORED[dtype], "fortran_order": False, "shape": shape})
    return file.getvalue()


def dump(array: AnyArray) -> bytes:
    """`array` as the bytes of a `.npy` file."""
    file = io.BytesIO()
    npy.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _array(header: NpyHeader, data: NDArray[np.uint8]) -> AnyArray:
    array: AnyArray = np.ndarray(header.shape, header.dtype, data, order="F" if header.fortran_order else "C")
    array.flags.writeable = False
    return array


def offset_of(mapping: mmap.mmap, array: AnyArray) -> int:
    """At which byte of a file that is mapped an array in it begins."""
    return int(array.ctypes.data - np.frombuffer(mapping, dtype=np.uint8).ctypes.data)
