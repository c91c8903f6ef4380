"""An ONNX file as a message without its numbers, which stay in the file. Needs the package onnx.

What a table is made of may be gigabytes, and decoding a message copies all of it. So the numbers are left out before
the message is decoded, and each tensor says in their place where in the file they lie.
"""

import mmap
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from service.errors import ImportFormatError
from service.protobuf import LENGTH_DELIMITED, Field, delimited, delimited_head, fields

Message: TypeAlias = Any
"""One of onnx' messages: the package makes their classes as it is imported, and is not installed everywhere."""

_LONGEST: Final = 2 << 30  # bytes; no protobuf message is longer
_INNER: Final = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph"},
}
"""The fields of onnx.proto on the way to a tensor: message, number, message."""
_RAW: Final = 9
_NUMBERS: Final = {4: "float_data", _RAW: "raw_data", 10: "double_data"}
"""The fields of a tensor whose bytes are its numbers as numpy has them."""
_PLACE: Final = struct.Struct("<Bqq")


class Place(NamedTuple):
    """Where numbers lie in the file: the name of their field, the first byte, and how many bytes there are."""

    field: str
    offset: int
    length: int


def read_model(path: Path) -> Message:
    """The model without its numbers; raises ImportFormatError."""
    try:
        onnx = import_module("onnx")
        errors = import_module("google.protobuf.message").Error
    except ImportError:
        reason = "reading ONNX needs a package: pip install 'embedding-table-service[onnx]'"
        raise ImportFormatError(str(path), reason) from None
    if path.stat().st_size > _LONGEST:
        raise ImportFormatError(str(path), "it is longer than an ONNX model can be")
    try:
        model = onnx.ModelProto.FromString(_without_numbers(path))
    except (errors, ValueError, RecursionError) as error:
        raise ImportFormatError(str(path), f"it is not an ONNX model: {error}") from None
    if not model.HasField("graph"):
        raise ImportFormatError(str(path), "the model has no graph")
    return model


def place_of(tensor: Message) -> Place | None:
    """Where the numbers of a tensor of `read_model` lie; None where they are in the message or in another file."""
    if not tensor.HasField("raw_data"):
        return None
    number, offset, length = _PLACE.unpack(tensor.raw_data)
    return Place(_NUMBERS[number], offset, length)


def _without_numbers(path: Path) -> bytes:
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return b"".join(_pieces(data, "model", 0, len(data)))


def _pieces(data: memoryview, message: str, start: int, end: int) -> Iterator[bytes | memoryview]:
    """The message at `data[start:end]`, with places for the numbers of its tensors."""
    for field in fields(data, start, end):
        replaced = _replaced(data, message, field)
        if replaced is not None:
            yield data[start : field.start]
            yield from replaced
            start = field.end
    yield data[start:end]


def _replaced(data: memoryview, message: str, field: Field) -> list[bytes | memoryview] | None:
    """What is written for a field instead of it; None if it stays."""
    if field.wire_type != LENGTH_DELIMITED:
        return None
    if message == "tensor" and field.number in _NUMBERS:
        return [delimited(_RAW, _PLACE.pack(field.number, field.value, field.end - field.value))]
    inner = _INNER.get(message, {}).get(field.number)
    if inner is None:
        return None
    pieces = list(_pieces(data, inner, field.value, field.end))
    return [delimited_head(field.number, sum(map(len, pieces))), *pieces]
