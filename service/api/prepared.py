"""What a raw lookup is, but for its ids: worked out once for all requests that begin with the same head.

The number of ids follows from the length of the body, and from it all that the answer's head says. What is left to do
is to check the ids, to gather, and to count.
"""

import weakref
from typing import Final, NamedTuple

import numpy as np

from service import npyfile
from service.api.answer import Buffer, Headers
from service.api.encodings import octets
from service.api.media import NPY
from service.api.question import Question, answer_headers
from service.metrics import Counters
from service.registry import LoadedTable, TableRegistry
from service.types import DEFAULT_OPTIONS, IdBatch, LookupRequest

_INT64: Final = np.dtype("<i8")


class Prepared(NamedTuple):
    """A lookup in one version of a table. `prefix` stands before the vectors, `length` bytes are the body in all."""

    loaded: "weakref.ref[LoadedTable]"
    table: str
    request: LookupRequest
    headers: Headers
    prefix: bytes
    length: int
    requests: int
    ids: int


def prepare(question: Question, loaded: LoadedTable, counters: Counters) -> Prepared:
    """From a question that has been answered, with raw int64 ids, whose answer carries vectors as bytes."""
    table, request = question.table, question.request
    name, shape, dtype = table.identity.name, table.result_shape(request), request.options.dtype
    prefix = npyfile.header_bytes(shape, dtype) if question.media == NPY else b""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return Prepared(
        weakref.ref(loaded),
        name,
        request._replace(batch=IdBatch(np.empty(0, dtype=np.int64), request.batch.layout)),
        answer_headers(question.media, table.identity, shape, dtype),
        prefix,
        len(prefix) + size,
        counters.index("embedding_requests", (name, "lookup", "200")),
        counters.index("embedding_ids", (name,)),
    )


def vectors_now(
    prepared: Prepared, registry: TableRegistry, counters: Counters, packet: bytes, start: int
) -> Buffer | None:
    """The vectors for the ids that begin at `start`; None where the table is another one now, or an id is not in it."""
    entry, loaded = registry.entries.get(prepared.table), prepared.loaded()
    if entry is None or loaded is None or entry.loaded is not loaded:
        return None
    table, request = loaded.table, prepared.request
    ids = np.frombuffer(packet, _INT64, -1, start)
    if not table.has_all(ids):
        return None
    if request.options is DEFAULT_OPTIONS:
        vectors = octets(table.backend.gather(ids))
    else:
        batch = IdBatch(ids, request.batch.layout)
        vectors = octets(table.lookup(LookupRequest(batch, options=request.options)).vectors)
    values = counters.values
    values[prepared.requests] += 1.0
    values[prepared.ids] += len(ids)
    return vectors
