"""Answers whose vectors are rows as they are stored: gathered slice by slice, while they are sent.

A slice lies below the allocator's threshold for mappings of their own, so that none costs fresh page faults, takes some
0.6 ms to gather and to send, and is long enough that neither this process nor the system is asked more often than it
pays: each write wakes a client that has read what came before. 1 MB takes as long in two slices, or a twentieth more,
and half as much again in four.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

import pybase64

from service import npyfile
from service.api.answer import Buffer, Stream
from service.api.encodings import mask_and_end, object_head, octets
from service.api.media import JSON, NPY, OCTETS
from service.api.options import Encoding
from service.table import EmbeddingTable
from service.types import Selection

_SLICE: Final = 1 << 20  # bytes


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
        if self.head:
            yield self.head
        for first in range(0, self.rows, self.step):
            yield self.encode(first, min(first + self.step, self.rows))
        if self.tail:
            yield self.tail


RowEncoder: TypeAlias = Callable[[EmbeddingTable, Selection], RowBody]


def _octets(table: EmbeddingTable, selection: Selection) -> RowBody:
    each = 4 * table.embedding_dim
    rows = len(selection.ids)

    gather, ids = table.backend.gather, selection.ids

    def encode(first: int, end: int) -> Buffer:
        if selection.blank is None:
            return octets(gather(ids[first:end]))
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

    head, tail = base64_start(table, selection.shape), base64_end(selection)
    # Only at a multiple of three bytes does the text of one slice go on in the next.
    step = 3 * max(1, body.step // 4)
    return RowBody(head, encode, tail, body.rows, step, len(head) + -(-body.length // 3) * 4 + len(tail))


def whole_base64(table: EmbeddingTable, selection: Selection) -> tuple[Buffer, ...]:
    """The pieces of a JSON answer that carries bytes, for one that is not large."""
    text = pybase64.b64encode(octets(table.rows(selection)))
    return (base64_start(table, selection.shape), text, base64_end(selection))


def base64_start(table: EmbeddingTable, shape: tuple[int, ...]) -> bytes:
    """What stands before the text in base64, for ids of this shape."""
    return object_head(table.identity.name, table.identity.version, (*shape, table.embedding_dim), "float32") + b'"'


def base64_end(selection: Selection) -> bytes:
    """What stands behind it."""
    return b'"' + mask_and_end(selection)


_BINARY: Final[dict[str, RowEncoder]] = {OCTETS: _octets, NPY: _npy}


def row_body(table: EmbeddingTable, selection: Selection, media: str) -> RowBody:
    """The body of an answer that is rows as bytes, in one of the media types for that."""
    return _BINARY[media](table, selection)


def binary_body(table: EmbeddingTable, selection: Selection, media: str, encoding: Encoding) -> RowBody | None:
    """The body of an answer that carries rows as bytes; None for the others."""
    if media == JSON and encoding == "base64":
        return _base64(table, selection)
    return row_body(table, selection, media) if media in _BINARY else None
