"""What a lookup is, but for its ids: worked out once for all requests that begin with the same head.

What is left to do is to read and check the ids, to gather, and to count. Whatever is out of the ordinary, an id that is
not in the table as much as another version of it, is left to the usual way.
"""

import weakref
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import orjson
import pybase64

from service import npyfile
from service.api.answer import Buffer, Ready, Stream, head_text
from service.api.encodings import octets
from service.api.json_body import plain_ids
from service.api.json_text import PIECE
from service.api.limits import Limits
from service.api.media import JSON, NPY, OCTETS
from service.api.options import DEFAULT_SCALARS
from service.api.question import FOUND, Question, answer_headers
from service.api.row_encodings import base64_end, base64_start, row_body
from service.api.row_texts import end_of, slices, start_of
from service.metrics import Counters
from service.registry import LoadedTable, TableRegistry
from service.rowtexts import BETWEEN
from service.table import EmbeddingTable
from service.types import DEFAULT_OPTIONS, IdArray, IdBatch, LookupRequest, Selection

_INT64: Final = np.dtype("<i8")
_MOST_FORMS: Final = 256


Encode: TypeAlias = Callable[[EmbeddingTable, bytes, int], "tuple[Ready, int] | None"]
"""The answer to the body that begins at a place in a packet, and how many ids it has; None for the usual way."""


class Prepared:
    """Lookups in one version of a table, which it does not keep alive."""

    __slots__ = ("_counters", "_encode", "_ids", "_loaded", "_registry", "_requests", "_table")

    def __init__(self, loaded: LoadedTable, registry: TableRegistry, counters: Counters, encode: Encode) -> None:
        self._loaded = weakref.ref(loaded)
        self._table = loaded.table.identity.name
        self._registry = registry
        self._counters = counters
        self._encode = encode
        self._requests = counters.index("embedding_requests", (self._table, "lookup", "200"))
        self._ids = counters.index("embedding_ids", (self._table,))

    def now(self, packet: bytes, start: int) -> Ready | None:
        """The answer to the body that begins at `start`; None where it has to be found on the usual way."""
        entry, loaded = self._registry.entries.get(self._table), self._loaded()
        if entry is None or loaded is None or entry.loaded is not loaded:
            return None
        found = self._encode(loaded.table, packet, start)
        if found is None:
            return None
        answer, ids = found
        values = self._counters.values
        values[self._requests] += 1.0
        values[self._ids] += ids
        return answer


def encoder_for(question: Question, sent: str, body: bytes, limits: Limits) -> Encode | None:
    """For lookups like one that is just answered, whose `body` was of the type `sent`: int64 ids, or JSON."""
    is_plain, is_large = question.request.options is DEFAULT_OPTIONS, question.is_large()
    if sent == JSON and question.media == JSON and is_plain:
        if is_large and not (question.is_text() and question.table.texts is not None):
            return None  # only what is kept takes so little time that it needs no turns
        return _Json(question, limits).encode
    if question.media in (OCTETS, NPY) and (is_plain or not is_large):
        head = b"" if sent == OCTETS else npyfile.int64_head(body) if sent == NPY else None
        raw = None if head is None else _Raw(question, head)
        return None if raw is None or raw.length > limits.max_response_bytes else raw.encode
    return None


class _Raw:
    """Ids in, bytes out: the number of ids follows from the head, and from it all that the answer's head says.

    The body begins with `sent`, the header of an array, if it is one.
    """

    def __init__(self, question: Question, sent: bytes) -> None:
        self._sent = sent
        table, request = question.table, question.request
        shape, dtype = table.result_shape(request), request.options.dtype
        self._request = request._replace(batch=IdBatch(np.empty(0, dtype=np.int64), request.batch.layout))
        self._prefix = npyfile.header_bytes(shape, dtype) if question.media == NPY else b""
        self._head = head_text(200, answer_headers(question.media, table.identity, shape, dtype))
        self.length = len(self._prefix) + int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._media = question.media
        self._is_large = question.is_large()

    def encode(self, table: EmbeddingTable, packet: bytes, start: int) -> tuple[Ready, int] | None:
        if self._sent and not packet.startswith(self._sent, start):
            return None
        ids = np.frombuffer(packet, _INT64, -1, start + len(self._sent))
        request = self._request
        if request.options is not DEFAULT_OPTIONS:
            batch = IdBatch(ids, request.batch.layout)
            vectors = octets(table.lookup(LookupRequest(batch, options=request.options)).vectors)
            return Ready(self._head, self.length, (self._prefix, vectors)), len(ids)
        if not table.has_all(ids):
            return None
        if self._is_large:
            selection = Selection(ids, request.batch.layout.shape, None, None)
            return Ready(self._head, self.length, row_body(table, selection, self._media).stream()), len(ids)
        vectors = octets(table.backend.gather(ids))
        return Ready(self._head, self.length, (self._prefix, vectors)), len(ids)


class _Form(NamedTuple):
    """What stands around the vectors of so many ids; `end` is None where the mask depends on the ids."""

    head: bytes
    start: bytes
    end: bytes | None


class _Json:
    """One sequence of ids in, JSON out, with the numbers as kept text or as base64."""

    def __init__(self, question: Question, limits: Limits) -> None:
        self._at_once = PIECE // question.table.embedding_dim
        self._most = min(FOUND, limits.max_ids)
        self._longest = limits.max_response_bytes
        self._forms: dict[tuple[int, bool], _Form] = {}

    def encode(self, table: EmbeddingTable, packet: bytes, start: int) -> tuple[Ready, int] | None:
        plain = plain_ids(packet[start:], self._most)
        if plain is None:
            return None
        ids, scalars = plain
        if not table.has_all(ids):
            return None
        count, is_text = len(ids), scalars is DEFAULT_SCALARS
        form = self._forms.get((count, is_text)) or self._form(table, ids, is_text=is_text)
        end = form.end or _end(table, ids, is_text=is_text)
        if count > self._at_once:
            return self._large(table, ids, form._replace(end=end)) if is_text else None
        vectors: Buffer | None
        if is_text:
            vectors = _rendered(table, ids) if table.texts is None else table.texts.joined(ids)
            if vectors is None:
                return None
        else:
            vectors = pybase64.b64encode(octets(table.backend.gather(ids)))
        length = len(form.start) + len(vectors) + len(end)
        if length > self._longest:
            return None
        return Ready(form.head, length, (form.start, vectors, end)), count

    def _large(self, table: EmbeddingTable, ids: IdArray, form: _Form) -> tuple[Ready, int] | None:
        found = None if table.texts is None else table.texts.find(ids)
        if found is None or form.end is None:
            return None
        length = len(form.start) + found.size + len(BETWEEN) * (len(ids) - 1) + len(form.end)
        if length > self._longest:
            return None
        return Ready(form.head, length, Stream(length, slices(form.start, found, form.end))), len(ids)

    def _form(self, table: EmbeddingTable, ids: IdArray, *, is_text: bool) -> _Form:
        shape = (len(ids),)
        start = start_of(table, shape) if is_text else base64_start(table, shape)
        end = _end(table, ids, is_text=is_text) if table.padding_id is None else None
        if len(self._forms) >= _MOST_FORMS:
            self._forms.clear()
        head = head_text(200, answer_headers(JSON, table.identity, (*shape, table.embedding_dim), "float32"))
        form = self._forms[len(ids), is_text] = _Form(head, start, end)
        return form


def _end(table: EmbeddingTable, ids: IdArray, *, is_text: bool) -> bytes:
    selection = Selection(ids, (len(ids),), None, table.padding_id)
    return end_of(selection) if is_text else base64_end(selection)


def _rendered(table: EmbeddingTable, ids: IdArray) -> Buffer:
    """The texts of rows of which none are kept, and what stands between them."""
    return memoryview(orjson.dumps(table.backend.gather(ids), option=orjson.OPT_SERIALIZE_NUMPY))[2:-2]
