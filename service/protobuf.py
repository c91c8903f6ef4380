"""The wire format of Protocol Buffers: finding a field without decoding the message, and writing fields.

The source is protobuf.dev's "Encoding". A leaf: it knows no message.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

VARINT: Final = 0
LENGTH_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}  # bytes of the wire types of one size
_LONGEST_VARINT: Final = 10  # bytes


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number and wire type, where its tag begins, its value begins, and it ends."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`, in their order; raises ValueError where it is none."""
    while start < end:
        tag, at = read_varint(data, start, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH_DELIMITED:
            length, value = read_varint(data, at, end)
            after = value + length
        elif wire_type == VARINT:
            value, after = at, read_varint(data, at, end)[1]
        elif wire_type in _FIXED:
            value, after = at, at + _FIXED[wire_type]
        else:
            raise ValueError(f"there is a field of the wire type {wire_type} at byte {start}")
        if number == 0 or tag >> 32:
            raise ValueError(f"there is no field of the number {number}, at byte {start}")
        if after > end:
            raise ValueError(f"the field {number} at byte {start} does not end within its message")
        yield Field(number, wire_type, start, value, after)
        start = after


def read_varint(data: memoryview, start: int, end: int) -> tuple[int, int]:
    """The number that is written at `start`, and where it ends; raises ValueError."""
    value = 0
    for place in range(start, min(end, start + _LONGEST_VARINT)):
        byte = data[place]
        value |= (byte & 0x7F) << 7 * (place - start)
        if byte < 0x80:
            return value, place + 1
    raise ValueError(f"the number at byte {start} does not end")


def varint(value: int) -> bytes:
    """A number of at least zero, as it is written."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def number(field: int, value: int) -> bytes:
    """The field of this number with an integer of at least zero, of one of the types int32, int64 and enum."""
    return varint(field << 3 | VARINT) + varint(value)


def delimited_head(number: int, length: int) -> bytes:
    """What stands before a text, bytes or a message of this length in the field of this number."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(length)


def delimited(number: int, value: bytes) -> bytes:
    """The field of this number with a value of bytes."""
    return delimited_head(number, len(value)) + value
