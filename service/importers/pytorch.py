"""PyTorch: what `torch.save` writes, as a zip or in the format before 1.6, read without torch and without unpickling.

The pickle only says where numbers lie (`torch_pickle`); they are read from there, block by block. Nothing it says is
believed before it was held against the file.
"""

import io
import math
import mmap
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import ImportFormatError
from service.imported import ImportedTable
from service.importers import torch_pickle
from service.importers.candidates import choose
from service.importers.matrix import AnyArray, Matrix, table_of
from service.importers.options import ImportOptions
from service.importers.torch_pickle import BFLOAT16, Dtype, Storage, Tensor, Unpickled
from service.npyfile import ARCHIVE_ERRORS

_ByteOrder: TypeAlias = Literal["<", ">"]
_MAGIC: Final = 0x1950A86A20F9469CFC6C  # of the format before 1.6
_PROTOCOL: Final = 1001
_PICKLE_MAX: Final = 32 << 20  # bytes
_DEPTH_MAX: Final = 64
_NAME_MAX: Final = 1_000  # characters
_TENSORS_MAX: Final = 100_000
_CRC_PIECE: Final = 8 << 20  # bytes
_LOCAL_HEADER: Final = 30  # bytes, before the name


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bytes of a storage lie in the file; `crc` where the format has one."""

    offset: int
    nbytes: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    value: object
    places: Mapping[str, _Place]
    byte_order: _ByteOrder = "<"


def read(path: Path, options: ImportOptions) -> ImportedTable:
    """The table in a state dict or a checkpoint that holds one; with several the one that `options.tensor` names."""
    try:
        with path.open("rb") as file:
            content = _legacy(file) if file.read(2) != b"PK" else _zipped(file)
            named = _tensors(content.value)
    except ImportFormatError:
        raise
    except (*ARCHIVE_ERRORS, MemoryError) as error:
        raise ImportFormatError(str(path), str(error)) from None
    found = [_matrix(path, content, name, tensor) for name, tensor in named.items()]
    if options.tensor is None:
        first = dict(zip(reversed(named.values()), reversed(found), strict=True))  # of tied tensors
        found = list(reversed(first.values()))
    matrix = choose(path, found, options.tensor)
    table = table_of(path, matrix, options)
    return table if matrix.stored_as is None else replace(table, source={**table.source, "dtype": matrix.stored_as})


# The two containers


def _zipped(file: BinaryIO) -> _Content:
    with zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.partition("/")[2] == "data.pkl"]
        if len(members) != 1:
            raise ValueError(f"the archive has {len(members)} members named data.pkl; torch writes one")
        prefix = members[0].filename.removesuffix("data.pkl")
        unpickled = torch_pickle.load(io.BytesIO(_member(file, archive, members[0])))
        order = archive.NameToInfo.get(f"{prefix}byteorder")
        order_name = b"little" if order is None else _member(file, archive, order)
        if order_name not in (b"little", b"big"):
            raise ValueError(f"the member byteorder says {order_name[:20]!r}")
        places = {key: _stored(file, archive, prefix, storage) for key, storage in unpickled.storages.items()}
    return _Content(unpickled.value, places, "<" if order_name == b"little" else ">")


def _member(file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    place = _place(file, archive, info)
    if place.nbytes > _PICKLE_MAX:
        raise ValueError(f"the member {info.filename!r} has more than {_PICKLE_MAX:,} bytes")
    file.seek(place.offset)
    data = file.read(place.nbytes)
    if place.crc not in (None, zlib.crc32(data)):
        raise ValueError(f"the member {info.filename!r} is damaged: its CRC-32 is not the archive's")
    return data


def _stored(file: BinaryIO, archive: zipfile.ZipFile, prefix: str, storage: Storage) -> _Place:
    info = archive.NameToInfo.get(f"{prefix}data/{storage.key}")
    if info is None:
        raise ValueError(f"there is no member {f'data/{storage.key}'[:_NAME_MAX]!r}, where a tensor lies")
    place = _place(file, archive, info)
    if place.nbytes != storage.nbytes:
        raise ValueError(f"the member {info.filename!r} has {place.nbytes} bytes, the pickle says {storage.nbytes}")
    return place


def _place(file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Place:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise ValueError(f"the member {info.filename!r} is compressed or encrypted; torch never writes that")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) != _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise ValueError(f"the member {info.filename!r} is not where the archive says")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    offset = info.header_offset + _LOCAL_HEADER + names
    if offset + info.file_size > archive.start_dir:
        raise ValueError(f"the member {info.filename!r} goes on behind the members of the archive")
    return _Place(offset, info.file_size, info.CRC or None)  # 0: torch was told to compute none


def _legacy(file: BinaryIO) -> _Content:
    """Five pickles, then each storage in the order of the last of them: its length in eight bytes, its numbers."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = io.BytesIO(file.read(_PICKLE_MAX))
    if torch_pickle.load(head).value != _MAGIC:
        raise ValueError("the file does not begin as torch's files do")
    version = torch_pickle.load(head).value
    if version != _PROTOCOL:
        raise ValueError("the version of the format is not 1001")
    torch_pickle.load(head)  # the saver's own byte order and sizes: the storages are little-endian on every machine
    unpickled = torch_pickle.load(head)
    keys = torch_pickle.load(head).value
    return _Content(unpickled.value, _in_sequence(file, head.tell(), end, unpickled, keys))


def _in_sequence(file: BinaryIO, offset: int, end: int, unpickled: Unpickled, keys: object) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for key in keys if isinstance(keys, list) else ():
        storage = unpickled.storages.get(key) if isinstance(key, str) else None
        if storage is None or storage.key in places:
            raise ValueError("a storage is listed that no tensor has, or twice")
        file.seek(offset)
        numel = int.from_bytes(file.read(8), "little")
        if numel != storage.numel:
            raise ValueError(f"a storage has {numel} numbers, the pickle says {storage.numel}")
        places[storage.key] = _Place(offset + 8, storage.nbytes)
        offset += 8 + storage.nbytes
        if offset > end:
            raise ValueError("the file ends within a storage")
    if len(places) != len(unpickled.storages):
        raise ValueError("a tensor's storage is not in the file")
    return places


# From the pickle's value to matrices


def _tensors(root: object) -> dict[str | None, Tensor]:
    """Every tensor under its name: the keys on the way to it, joined with dots. Shared containers count once."""
    found: dict[str | None, Tensor] = {}
    waiting: list[tuple[str | None, object, int]] = [(None, root, 0)]
    seen: set[int] = set()
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            found[_free(name, found)] = value
            if len(found) > _TENSORS_MAX:
                raise ValueError(f"there are more than {_TENSORS_MAX:,} tensors")
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if depth == _DEPTH_MAX:
                raise ValueError(f"containers are nested more than {_DEPTH_MAX} deep")
            waiting.extend(_children(name, value, depth + 1))
    return found


def _children(
    name: str | None, value: dict[Any, object] | Sequence[object], depth: int
) -> list[tuple[str | None, object, int]]:
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    children: list[tuple[str | None, object, int]] = []
    for key, child in reversed(items):  # a stack gives them back in their order
        if not isinstance(child, (Tensor, dict, list, tuple)):
            continue
        text = str(key)
        if len(text) + len(name or "") > _NAME_MAX:
            raise ValueError(f"a name is longer than {_NAME_MAX:,} characters")
        children.append((text if name is None else f"{name}.{text}", child, depth))
    return children


def _free(name: str | None, found: Mapping[str | None, Tensor]) -> str | None:
    if name in found:
        raise ValueError(f"two tensors have the name {name!r}")
    return name


def _matrix(path: Path, content: _Content, name: str | None, tensor: Tensor) -> Matrix:
    _check_bounds(path, name, tensor)
    stored = _stored_dtype(tensor.dtype, content.byte_order)
    if stored is None:
        return Matrix(tensor.size, np.dtype(np.void), _nothing, name, stored_as=tensor.dtype.name)
    place = content.places[tensor.storage.key]
    slices = partial(_slices, path, place, tensor, stored)
    if tensor.dtype == BFLOAT16:
        return Matrix(tensor.size, np.dtype(np.float32), slices, name, stored_as=BFLOAT16.name)
    return Matrix(tensor.size, stored.newbyteorder("="), slices, name)


def _stored_dtype(dtype: Dtype, byte_order: _ByteOrder) -> np.dtype[Any] | None:
    numpy = np.dtype(np.uint16) if dtype == BFLOAT16 else dtype.numpy
    return None if numpy is None else numpy.newbyteorder(byte_order)


def _check_bounds(path: Path, name: str | None, tensor: Tensor) -> None:
    """The view must lie in its storage and have no more numbers than that: none is so large by repeating itself."""
    if 0 in tensor.size:
        return
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True))
    room = tensor.storage.nbytes // tensor.dtype.itemsize
    if last >= room or math.prod(tensor.size) > room:
        reason = f"{list(tensor.size)} with strides {list(tensor.stride)} from {tensor.offset} does not fit into its"
        raise ImportFormatError(str(path), f"{reason} storage of {room} numbers", f"tensor {name!r}")


def _nothing(_step: int) -> Iterator[AnyArray]:
    return iter(())


def _slices(path: Path, place: _Place, tensor: Tensor, stored: np.dtype[Any], step: int) -> Iterator[AnyArray]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        if place.offset + place.nbytes > len(mapping):
            raise ImportFormatError(str(path), "the file has become shorter while it was read")
        _check_crc(path, mapping, place)
        for first in range(0, tensor.size[0], step):
            yield _rows(mapping, place, tensor, stored, first, min(first + step, tensor.size[0]))


def _rows(mapping: mmap.mmap, place: _Place, tensor: Tensor, stored: np.dtype[Any], first: int, end: int) -> AnyArray:
    """Rows as a copy of their own, so that nothing refers to the mapping."""
    item = stored.itemsize
    view: AnyArray = np.ndarray(
        (end - first, *tensor.size[1:]),
        stored,
        mapping,
        offset=place.offset + (tensor.offset + first * tensor.stride[0]) * item,
        strides=[stride * item if size > 1 else 0 for size, stride in zip(tensor.size, tensor.stride, strict=True)],
    )
    return _widened(view) if tensor.dtype == BFLOAT16 else view.astype(stored.newbyteorder("="), order="C")


def _widened(halves: AnyArray) -> NDArray[np.float32]:
    """bfloat16 is the upper half of float32."""
    return (halves.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)


def _check_crc(path: Path, mapping: mmap.mmap, place: _Place) -> None:
    if place.crc is None:
        return
    crc = 0
    for first in range(place.offset, place.offset + place.nbytes, _CRC_PIECE):
        crc = zlib.crc32(mapping[first : min(first + _CRC_PIECE, place.offset + place.nbytes)], crc)
    if crc != place.crc:
        raise ImportFormatError(str(path), "the numbers are damaged: their CRC-32 is not the archive's")
