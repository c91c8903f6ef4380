"""The vectors of a lookup in forms that protocols share: as bytes, or as the text of one flat JSON array."""

import asyncio
from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import Final

import numpy as np
import orjson

from service.api.answer import Buffer, Stream
from service.api.encodings import octets
from service.api.json_text import PIECE, array_text, rows_text
from service.api.media import OCTETS
from service.api.row_encodings import row_body
from service.rowtexts import BETWEEN, RowTexts
from service.table import EmbeddingTable
from service.types import LookupRequest, LookupResult, MaskArray, Selection

_AT_ONCE: Final = 1 << 15
"""Numbers of an answer that is made without a turn of the event loop: 128 KB of float32."""


class Vectors:
    """What a lookup has found: `shape` and `dtype` of its vectors, and `mask_shape`, () where a pooled axis is gone."""

    __slots__ = ("_found", "_table", "dtype", "mask_shape", "shape")

    def __init__(self, table: EmbeddingTable, found: Selection | LookupResult) -> None:
        self._table = table
        self._found = found
        if isinstance(found, Selection):
            self.shape: tuple[int, ...] = (*found.shape, table.embedding_dim)
            self.dtype = "float32"
            self.mask_shape: tuple[int, ...] = found.shape
        else:
            self.shape, self.dtype = found.vectors.shape, found.dtype
            self.mask_shape = () if found.mask is None else found.mask.shape

    def mask(self) -> MaskArray | None:
        """Flat, in row-major order."""
        if isinstance(self._found, Selection):
            return self._found.counting()
        return None if self._found.mask is None else self._found.mask.reshape(-1)

    def octets(self) -> Stream:
        """Row-major little-endian bytes; rows as they are stored are gathered as they are sent."""
        if isinstance(self._found, Selection):
            return row_body(self._table, self._found, OCTETS).stream()
        whole = octets(self._found.vectors)
        return Stream(len(whole), iter((whole,)))

    def flat_text(self) -> Iterator[Buffer]:
        """All numbers as one JSON array, each as the shortest text that reads back the same."""
        if isinstance(self._found, LookupResult):
            yield from array_text(self._found.vectors.reshape(-1))
        elif len(self._found.ids) == 0:
            yield b"[]"
        else:
            yield from self._row_texts(self._found)

    def _row_texts(self, selection: Selection) -> Iterator[Buffer]:
        step = max(1, PIECE // self._table.embedding_dim)
        for first in range(0, len(selection.ids), step):
            part = selection.part(first, min(first + step, len(selection.ids)))
            yield b"," if first else b"["
            texts = self._table.texts
            if texts is None:
                yield orjson.dumps(self._table.rows(part).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
            else:
                yield b",".join(_texts(texts, part))
        yield b"]"

    def nested_text(self) -> Iterator[Buffer]:
        """All numbers as JSON arrays in arrays, as their shape has them."""
        found, table = self._found, self._table
        if isinstance(found, LookupResult):
            yield from array_text(found.vectors)
        elif len(found.ids) == 0:
            yield from array_text(table.result(found).vectors)
        elif table.texts is None:
            rows = lambda first, end: table.rows(found.part(first, end))  # noqa: E731
            yield from rows_text(rows, found.shape, table.embedding_dim)
        else:
            yield from _nested(table.texts, found, max(1, PIECE // table.embedding_dim))


def _nested(texts: RowTexts, selection: Selection, step: int) -> Iterator[Buffer]:
    """About `step` rows at a time: whole sequences, or a part of a longer one."""
    shape, rows = selection.shape, len(selection.ids)
    length, depth = shape[-1], len(shape) + 1
    spans = list(accumulate(reversed(shape[1:]), mul))
    yield b"[" * depth
    first = 0
    while first < rows:
        whole = first + step // length * length
        end = min(whole, rows) if length <= step else min(first + step, (first // length + 1) * length)
        yield from _sequences(_texts(texts, selection.part(first, end)), first, length, spans)
        first = end
    yield b"]" * depth


def _sequences(listed: list[bytes], first: int, length: int, spans: list[int]) -> Iterator[Buffer]:
    """The texts of rows, the first of which is at this position, with what stands before each sequence."""
    for at in range(0, len(listed), length):
        position = first + at
        if position % length:
            yield BETWEEN
        elif position:
            closed = 1 + sum(position % span == 0 for span in spans)
            yield b"]" * closed + b"," + b"[" * closed
        yield BETWEEN.join(listed[at : at + length])


def _texts(texts: RowTexts, selection: Selection) -> list[bytes]:
    found = (None if selection.blank is not None else texts.listed(selection.ids)) or texts.of(selection.ids).texts
    if isinstance(found, np.ndarray):
        if selection.blank is not None:
            found[selection.blank] = texts.blank
        listed: list[bytes] = found.tolist()
        return listed
    return found


def find(table: EmbeddingTable, request: LookupRequest) -> Vectors:
    """Looks up; raises what `EmbeddingTable.lookup` raises."""
    selection = table.select(request)
    return Vectors(table, table.lookup(request) if selection is None else selection)


async def find_in_turns(table: EmbeddingTable, request: LookupRequest) -> Vectors:
    """The same for a large lookup: numbers that are changed on their way are made beside the event loop."""
    selection = table.select(request)
    return Vectors(table, await asyncio.to_thread(table.lookup, request) if selection is None else selection)


def is_large(table: EmbeddingTable, request: LookupRequest, numbers: int, *, text: bool) -> bool:
    """Whether an answer of so many numbers takes so long that others should have their turns meanwhile."""
    most = PIECE if text else _AT_ONCE
    return numbers > most or request.batch.layout.total * table.embedding_dim > most
