"""Inferences that begin with the same head and the same JSON: read by comparing bytes, answered with those of others.

Clients write the same JSON for every request of one shape, so that nothing of it has to be parsed again.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import orjson

from service.api.answer import Buffer, Ready, Stream, head_text
from service.api.batching import Finish, Part, Stacked, Way, Ways
from service.api.json_body import plain_integers
from service.api.media import OCTETS
from service.api.prepared import Prepared
from service.api.row_encodings import row_body
from service.dialects.v2.answer import JSON_HEADERS, Work, entry_of, headers_of, said_of, start_of
from service.dialects.v2.inference import MASK, VECTORS
from service.dialects.v2.tensors import BOOL, DTYPES, FP16, FP32
from service.table import EmbeddingTable
from service.types import DEFAULT_OPTIONS, IdBatch, Selection

_INT64: Final = np.dtype("<i8")


def prepare(work: Work, sent: bytes, rest: int, ways: Ways) -> Prepared | None:
    """For requests like one that is just answered, whose body began with `sent` and went on with `rest` bytes.

    None where those are anything but int64 ids, or where the answer is not bytes.
    """
    request, inference = work.inference.request, work.inference
    if inference.id is not None or not inference.is_plain:  # each request has another id
        return None
    if not isinstance(request.batch, IdBatch) or request.batch.layout.ragged_lengths is not None:
        return None
    if request.mask is not None or request.weights is not None or not 0 < rest == 8 * request.batch.layout.total:
        return None
    if not all(wanted.binary for wanted in inference.wanted) or inference.wanted[0].name != VECTORS:
        return None
    if request.options is not DEFAULT_OPTIONS and (work.large or request.options.pooling == "none"):
        return None
    return _Repeated(work, sent, ways).read


def prepare_json(work: Work, body: bytes, ways: Ways) -> Prepared | None:
    """The same for a body that is JSON as a whole, with an answer in JSON."""
    request, inference = work.inference.request, work.inference
    if not inference.is_plain or request.options is not DEFAULT_OPTIONS or work.large or inference.id is not None:
        return None
    if any(wanted.binary for wanted in inference.wanted):
        return None
    found = _DATA.findall(body)
    if len(found) != 1 or inference.wanted[0].name != VECTORS or not request.batch.layout.total:
        return None
    if request.batch.layout.ragged_lengths is not None:
        return None
    return _RepeatedJson(work, body, ways).read


_DATA: Final = re.compile(rb'"data"\s*:\s*\[')


class _RepeatedJson:
    """Ids in, vectors and perhaps their mask out, as JSON: what stands before and behind the ids is always the same."""

    def __init__(self, work: Work, body: bytes, ways: Ways) -> None:
        table, inference = work.table, work.inference
        match = _DATA.search(body)
        assert match is not None  # noqa: S101  (it was found)
        self._prefix = body[: match.end()]
        self._suffix = body[body.index(b"]", match.end()) :]
        self._count = inference.request.batch.layout.total
        shape = table.result_shape(inference.request)
        identity = table.identity
        self._start = start_of(identity.name, identity.version, None) + said_of(VECTORS, FP32, shape) + b"["
        self._mask = b"," + said_of(MASK, BOOL, shape[:-1]) if len(inference.wanted) > 1 else None
        self._way = ways.texts
        self._longest = work.limits.max_response_bytes

    def read(self, packet: bytes, start: int) -> Part | None:
        if not packet.startswith(self._prefix, start) or not packet.endswith(self._suffix):
            return None
        ids = plain_integers(packet[start + len(self._prefix) : len(packet) - len(self._suffix)], self._count)
        return None if ids is None else (self._way, ids, self._count, partial(self._of_text, ids))

    def _of_text(self, ids: Buffer, table: EmbeddingTable, text: Buffer) -> Ready | None:
        end = self._end(ids, table)
        length = len(self._start) + len(text) + len(end)
        if length > self._longest:
            return None
        return Ready(_JSON_HEAD, length, (self._start, text, end))

    def _end(self, ids: Buffer, table: EmbeddingTable) -> bytes:
        if self._mask is None:
            return b"]}]}"
        if table.padding_id is None:
            return b"]}%b[%b]}]}" % (self._mask, b",".join([b"true"] * self._count))
        mask = np.frombuffer(ids, _INT64) != table.padding_id
        return b"]}%b%b}]}" % (self._mask, orjson.dumps(mask, option=orjson.OPT_SERIALIZE_NUMPY))


_JSON_HEAD: Final = head_text(200, JSON_HEADERS)


class _Repeated:
    """Ids in, vectors and perhaps their mask out, as bytes."""

    def __init__(self, work: Work, sent: bytes, ways: Ways) -> None:
        table, request, inference = work.table, work.inference.request, work.inference
        shape = table.result_shape(request)
        datatype = FP32 if request.options.dtype == "float32" else FP16
        outputs = [entry_of(VECTORS, datatype, shape)]
        outputs += [entry_of(MASK, BOOL, shape[:-1]) for wanted in inference.wanted if wanted.name == MASK]
        identity = table.identity
        self._sent = sent
        self._json = start_of(identity.name, identity.version, inference.id) + b",".join(outputs) + b"]}"
        self._head = head_text(200, headers_of(len(self._json)))
        self._shape = request.batch.layout.shape
        count = request.batch.layout.total
        self._masked = len(outputs) > 1
        self._all = b"\1" * count
        self._length = len(self._json) + DTYPES[datatype].itemsize * int(np.prod(shape)) + count * self._masked
        self._way, self._finish = self._way_of(work, ways)

    def _way_of(self, work: Work, ways: Ways) -> tuple[Way, Finish | None]:
        """None for answers in which the mask depends on the ids."""
        request = work.inference.request
        numbers = int(np.prod(work.table.result_shape(request)))
        if request.options is not DEFAULT_OPTIONS:
            return Stacked(ways.version, request, numbers), partial(self._of_vectors, b"")
        if work.large:
            return ways.each, self._of_ids
        depends = self._masked and work.table.padding_id is not None
        return ways.rows, None if depends else partial(self._of_vectors, b"")

    def read(self, packet: bytes, start: int) -> Part | None:
        if not packet.startswith(self._sent, start):
            return None
        ids = packet[start + len(self._sent) :]
        finish = partial(self._of_vectors, ids) if self._finish is None else self._finish
        return self._way, ids, len(ids) // 8, finish

    def _of_vectors(self, ids: Buffer, table: EmbeddingTable, vectors: Buffer) -> Ready:
        return Ready(self._head, self._length, (self._json, vectors, self._mask(table, ids)))

    def _of_ids(self, table: EmbeddingTable, ids: Buffer) -> Ready:
        selection = Selection(np.frombuffer(ids, _INT64), self._shape, None, None)
        mask = self._mask(table, ids)
        rows = row_body(table, selection, OCTETS).stream()

        def pieces() -> Iterator[Buffer]:
            yield self._json
            yield from rows.pieces
            yield mask

        return Ready(self._head, self._length, Stream(self._length, pieces()))

    def _mask(self, table: EmbeddingTable, ids: Buffer) -> Buffer:
        if not self._masked:
            return b""
        if table.padding_id is None:
            return self._all
        mask = np.frombuffer(ids, _INT64) != table.padding_id
        return mask.data.cast("B") if len(mask) else b""
