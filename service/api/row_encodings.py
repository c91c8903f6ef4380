"""Answers whose vectors are rows as they are stored: gathered slice by slice, while they are sent.

A slice of about 120 KB lies below the allocator's threshold for mappings of their own, so that no slice costs fresh
page faults, and is short enough that other requests have their turns in between.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import pybase64

from service import npyfile
from service.api.answer import Buffer, Stream
from service.api.encodings import mask_and_end, object_head, octets
from service.api.media import JSON, NPY, OCTETS
from service.api.options import Encoding
from service.table import EmbeddingTable
from service.types import Selection

_SLICE: Final = 240_000  # bytes


class RowBody(NamedTuple):
    """A body: `head`, what `encode` makes of the rows from one position to another, `tail`; `length` bytes in all."""

    head: bytes
    encode: Callable[[int, int], Buffer]
    tail: bytes
    rows: int
    step: int
    length: int

    def whole(self) -> tuple[Buffer, ...]:
        """All of it at once."""
        return (self.head, self.encode(0, self.rows), self.tail)

    def stream(self) -> Stream:
        """The same in slices, each made when it is asked for."""
        return Stream(self.length, self._slices())

    def _slices(self) -> Iterator[Buffer]:
        yield self.head
        for first in range(0, self.rows, self.step):
            yield self.encode(first, min(first + self.step, self.rows))
        yield self.tail


RowEncoder: TypeAlias = Callable[[EmbeddingTable, Selection], RowBody]


def _octets(table: EmbeddingTable, selection: Selection) -> RowBody:
    each = 4 * table.embedding_dim
    rows = len(selection.ids)

    def encode(first: int, end: int) -> Buffer:
        return octets(table.rows(selection.part(first, end)))

    return RowBody(b"", encode, b"", rows, max(1, _SLICE // each), rows * each)


def _npy(table: EmbeddingTable, selection: Selection) -> RowBody:
    body = _octets(table, selection)
    head = npyfile.header_bytes((*selection.shape, table.embedding_dim))
    return body._replace(head=head, length=len(head) + body.length)


def _base64(table: EmbeddingTable, selection: Selection) -> RowBody:
    body = _octets(table, selection)

    def encode(first: int, end: int) -> Buffer:
        return pybase64.b64encode(body.encode(first, end))

    head = _object_head(table, selection) + b'"'
    tail = b'"' + mask_and_end(selection)
    # Only at a multiple of three bytes does the text of one slice go on in the next.
    step = 3 * max(1, body.step // 4)
    return RowBody(head, encode, tail, body.rows, step, len(head) + -(-body.length // 3) * 4 + len(tail))


def text_body(table: EmbeddingTable, selection: Selection, texts: Sequence[bytes], size: int) -> RowBody:
    """JSON made of the `texts` of all rows, `size` bytes in all."""
    shape = selection.shape
    head = _object_head(table, selection) + b"[" * len(shape)
    tail = b"]" * len(shape) + mask_and_end(selection)
    rows = len(texts)

    def encode(first: int, end: int) -> Buffer:
        return _joined(texts[first:end], first, shape)

    between = rows - 1 + sum(2 * (math.prod(shape[: axis + 1]) - 1) for axis in range(len(shape) - 1))
    step = max(1, _SLICE * rows // max(1, size))
    return RowBody(head, encode, tail, rows, step, len(head) + size + between + len(tail))


def whole_text(table: EmbeddingTable, selection: Selection, texts: Sequence[bytes], size: int) -> tuple[Buffer, ...]:
    """The pieces of the same body, for an answer that is not large."""
    if len(selection.shape) > 1:
        return text_body(table, selection, texts, size).whole()
    return (_object_head(table, selection) + b"[", b",".join(texts), b"]" + mask_and_end(selection))


def whole_base64(table: EmbeddingTable, selection: Selection) -> tuple[Buffer, ...]:
    """The pieces of a JSON answer that carries bytes, for one that is not large."""
    text = pybase64.b64encode(octets(table.rows(selection)))
    return (_object_head(table, selection) + b'"', text, b'"' + mask_and_end(selection))


def _joined(texts: Sequence[bytes], first: int, shape: tuple[int, ...]) -> bytes:
    """The texts with what stands between them, and before the one at index 0, which is that of position `first`."""
    before = b"" if first == 0 else _boundary(first, shape)
    if len(shape) == 1:
        return before + b",".join(texts)
    pieces = [before]
    inner = shape[-1]
    for start in range(-(first % inner), len(texts), inner):
        if start > 0:
            pieces.append(_boundary(first + start, shape))
        pieces.append(b",".join(texts[max(0, start) : start + inner]))
    return b"".join(pieces)


def _boundary(position: int, shape: tuple[int, ...]) -> bytes:
    """What stands before the row at `position`, which is not the first."""
    closed, inner = 0, 1
    for axis in reversed(shape[1:]):
        inner *= axis
        if position % inner:
            break
        closed += 1
    return b"]" * closed + b"," + b"[" * closed


def _object_head(table: EmbeddingTable, selection: Selection) -> bytes:
    identity = table.identity
    return object_head(identity.name, identity.version, (*selection.shape, table.embedding_dim), "float32")


_BINARY: Final[dict[str, RowEncoder]] = {OCTETS: _octets, NPY: _npy}


def binary_body(table: EmbeddingTable, selection: Selection, media: str, encoding: Encoding) -> RowBody | None:
    """The body of an answer that carries rows as bytes; None for the others."""
    if media == JSON and encoding == "base64":
        return _base64(table, selection)
    encode = _BINARY.get(media)
    return None if encode is None else encode(table, selection)
