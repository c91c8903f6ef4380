"""JSON answers made of the kept texts of rows: what stands around and between them."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul
from typing import Final

from service.api.answer import Stream
from service.api.encodings import mask_and_end, object_head
from service.rowtexts import BETWEEN, Found
from service.table import EmbeddingTable
from service.types import Selection

_SLICE: Final = 1 << 20
"""Bytes of a slice, about: half of it takes a tenth more time in all, and twice as much takes no less."""


def text_body(table: EmbeddingTable, selection: Selection, found: Found) -> Stream:
    """The answer of a selection whose rows, of which there are some, have the texts that were found."""
    shape, rows = selection.shape, len(found.texts)
    start, end = start_of(table, shape), end_of(selection)
    ends = sum(rows // span - 1 for span in _spans(shape))
    length = len(start) + found.size + len(BETWEEN) * (rows - 1) + 2 * ends + len(end)
    return Stream(length, slices(start, found, end) if len(shape) == 1 else _nested(start, found, shape, end))


def start_of(table: EmbeddingTable, shape: tuple[int, ...]) -> bytes:
    """What stands before the text of the first row, for ids of this shape."""
    head = object_head(table.identity.name, table.identity.version, (*shape, table.embedding_dim), "float32")
    return head + b"[" * (len(shape) + 1)


def end_of(selection: Selection) -> bytes:
    """What stands behind the text of the last row."""
    return b"]" * (len(selection.shape) + 1) + mask_and_end(selection)


def slices(start: bytes, found: Found, end: bytes) -> Iterator[bytes]:
    """The texts of one sequence, and what stands around them."""
    rows, step = len(found.texts), _rows_of_a_slice(found)
    for first in range(0, rows, step):
        part = found.texts[first : first + step].tolist()
        if first == 0:
            part[0] = start + part[0]
        if first + step < rows:
            part.append(b"")
        else:
            part[-1] += end
        yield BETWEEN.join(part)


def _nested(start: bytes, found: Found, shape: Sequence[int], end: bytes) -> Iterator[bytes]:
    """The texts of sequences of sequences, and what stands around and between them."""
    pieces, size = [start], 0
    for piece in _sequences(found, shape):
        pieces.append(piece)
        size += len(piece)
        if size > _SLICE:
            yield b"".join(pieces)
            pieces, size = [], 0
    pieces.append(end)
    yield b"".join(pieces)


def _sequences(found: Found, shape: Sequence[int]) -> Iterator[bytes]:
    length, spans, step = shape[-1], _spans(shape), _rows_of_a_slice(found)
    for first in range(0, len(found.texts), length):
        if first:
            closed = 1 + sum(first % span == 0 for span in spans)
            yield b"]" * closed + b"," + b"[" * closed
        for at in range(first, first + length, step):
            if at > first:
                yield BETWEEN
            yield BETWEEN.join(found.texts[at : min(at + step, first + length)].tolist())


def _spans(shape: Sequence[int]) -> list[int]:
    """How many rows the sequences of each axis have but for the first axis, which is the whole."""
    return list(accumulate(reversed(shape[1:]), mul))


def _rows_of_a_slice(found: Found) -> int:
    slices_of_it = max(1, -(-found.size // _SLICE))
    return max(1, -(-len(found.texts) // slices_of_it))
