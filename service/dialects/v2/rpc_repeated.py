"""Inferences over gRPC that differ in their ids alone: read by comparing bytes, and answered without messages.

Protobuf writes fields in the order of their numbers, and the raw contents have the highest: a message is what was said
before, with other ids at its end, and so is its answer (https://protobuf.dev/programming-guides/encoding).
"""

import weakref
from typing import Final, NamedTuple

import numpy as np

from service.api.answer import Buffer
from service.api.encodings import octets
from service.dialects.v2.answer import Work
from service.dialects.v2.contents import head_of
from service.dialects.v2.inference import VECTORS
from service.dialects.v2.messages import Message
from service.errors import ServiceError
from service.layout import Layout
from service.registry import LoadedTable, TableRegistry
from service.table import EmbeddingTable
from service.types import DEFAULT_OPTIONS, IdBatch, LookupOptions, LookupRequest, TableVersion

_INT64: Final = np.dtype("<i8")
_RAW_INPUT: Final = b"\x3a"
"""The tag of `raw_input_contents`: field 7, a length and as many bytes."""
_RAW_OUTPUT: Final = b"\x32"
"""The tag of `raw_output_contents`: field 6, a length and as many bytes."""
_MOST: Final = 256


class Known(NamedTuple):
    """Messages that begin with `prefix`, and answers that begin with `head`, up to the bytes of the vectors."""

    prefix: bytes
    loaded: "weakref.ref[LoadedTable]"
    name: str
    layout: Layout
    options: LookupOptions
    head: bytes
    mask_head: bytes | None


class Remembered(dict[int, Known]):
    """By the length of the message; a bounded number."""

    def remember(self, sent: bytes, request: Message, work: Work, loaded: LoadedTable) -> None:
        """For messages like this one, which was just answered, if it can be answered so."""
        lookup, inference = work.inference.request, work.inference
        batch = lookup.batch
        names = [wanted.name for wanted in inference.wanted]
        if not isinstance(batch, IdBatch) or batch.layout.ragged_lengths is not None or work.large:
            return
        if inference.id is not None or not inference.is_plain or names[0] != VECTORS or not len(batch.values):
            return
        ids = batch.values.tobytes()
        end = _RAW_INPUT + _varint(len(ids)) + ids
        if list(request.raw_input_contents) != [ids] or not sent.endswith(end):  # in typed fields, or in another order
            return
        has_mask = len(names) > 1
        if has_mask and lookup.options is not DEFAULT_OPTIONS:  # it may be longer than the ids
            return
        shape, mask_shape = work.table.result_shape(lookup), batch.layout.shape
        head = head_of(work.table.identity, inference, shape, mask_shape, lookup.options.dtype)
        size = int(np.prod(shape)) * (4 if lookup.options.dtype == "float32" else 2)
        mask_head = _RAW_OUTPUT + _varint(len(batch.values)) if has_mask else None
        if len(self) >= _MOST:
            self.clear()
        self[len(sent)] = Known(
            sent[: len(sent) - len(ids)],
            weakref.ref(loaded),
            work.table.identity.name,
            batch.layout,
            lookup.options,
            head + _RAW_OUTPUT + _varint(size),
            mask_head,
        )

    def answer(self, sent: bytes, registry: TableRegistry) -> tuple[TableVersion, bytes, int] | None:
        """The table, the answer and how many ids it took; None where the usual way has to be gone."""
        known = self.get(len(sent))
        if known is None or not sent.startswith(known.prefix):
            return None
        entry, loaded = registry.entries.get(known.name), known.loaded()
        if entry is None or loaded is None or entry.loaded is not loaded:
            return None
        table, ids = loaded.table, sent[len(known.prefix) :]
        batch = IdBatch(np.frombuffer(ids, _INT64), known.layout)
        if not table.has_all(batch.values):
            return None
        try:
            vectors = octets(table.lookup(LookupRequest(batch, options=known.options)).vectors)
        except ServiceError:  # it happens again, and is told and counted, on the usual way
            return None
        pieces: tuple[Buffer, ...] = (known.head, vectors)
        if known.mask_head is not None:
            pieces = (*pieces, known.mask_head, _mask(table, batch))
        return table.identity, b"".join(pieces), len(batch.values)


def _mask(table: EmbeddingTable, batch: IdBatch) -> bytes:
    if table.padding_id is None:
        return b"\1" * len(batch.values)
    mask: bytes = (batch.values != table.padding_id).tobytes()
    return mask


def _varint(number: int) -> bytes:
    """An integer in groups of seven bits, the lowest first, each but the last with the eighth bit set."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
