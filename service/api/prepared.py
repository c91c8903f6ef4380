"""What a lookup is, but for its ids: worked out once for all requests that begin with the same head.

What is left to do is to read the ids, and to answer them together with those of others. Whatever is out of the
ordinary, an id that is not in the table as much as another version of it, is left to the usual way.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import pybase64

from service import npyfile
from service.api.answer import Buffer, Ready, Stream, head_text
from service.api.batching import Finish, Form, Part, Stacked, Way, Ways
from service.api.json_body import plain_ids
from service.api.json_text import PIECE
from service.api.limits import Limits
from service.api.media import JSON, NPY, OCTETS
from service.api.options import DEFAULT_SCALARS
from service.api.question import FOUND, Question, answer_headers
from service.api.row_encodings import base64_end, base64_start, row_body
from service.api.row_texts import end_of, slices, start_of
from service.rowtexts import BETWEEN
from service.table import EmbeddingTable
from service.types import DEFAULT_OPTIONS, IdArray, Selection

_INT64: Final = np.dtype("<i8")
_MOST_FORMS: Final = 256


Prepared: TypeAlias = Callable[[bytes, int], "Part | None"]
"""Reads the body that begins at a place in a packet; None for the usual way."""


def prepare(question: Question, sent: str, body: bytes, limits: Limits, ways: Ways) -> Prepared | None:
    """For lookups like one that is just answered, whose `body` was of the type `sent`: int64 ids, or JSON."""
    is_plain, is_large = question.request.options is DEFAULT_OPTIONS, question.is_large()
    if sent == JSON and question.media == JSON and is_plain:
        if is_large and not (question.is_text() and question.table.texts is not None):
            return None  # only what is kept takes so little time that it needs no turns
        return _Json(question, limits, ways).read
    if question.media in (OCTETS, NPY) and (is_plain or not is_large):
        head = b"" if sent == OCTETS else npyfile.int64_head(body) if sent == NPY else None
        raw = None if head is None else _Raw(question, head, ways)
        return None if raw is None or raw.length > limits.max_response_bytes else raw.read
    return None


class _Raw:
    """Ids in, bytes out: the number of ids follows from the head, and from it all that the answer's head says.

    The body begins with `sent`, the header of an array, if it is one.
    """

    def __init__(self, question: Question, sent: bytes, ways: Ways) -> None:
        self._sent = sent
        table, request = question.table, question.request
        shape, dtype = table.result_shape(request), request.options.dtype
        self._prefix = (npyfile.header_bytes(shape, dtype),) if question.media == NPY else ()
        self._head = head_text(200, answer_headers(question.media, table.identity, shape, dtype))
        self.length = sum(map(len, self._prefix)) + int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._media, self._shape = question.media, request.batch.layout.shape
        self._way, self._finish = self._way_of(question, ways)

    def _way_of(self, question: Question, ways: Ways) -> tuple[Way, Finish]:
        if question.request.options is not DEFAULT_OPTIONS:
            return Stacked(ways.version, question.request, question.numbers), self._of_vectors
        return (ways.each, self._of_ids) if question.is_large() else (ways.rows, self._of_vectors)

    def read(self, packet: bytes, start: int) -> Part | None:
        if self._sent:
            if not packet.startswith(self._sent, start):
                return None
            start += len(self._sent)
        return self._way, packet[start:], (len(packet) - start) // 8, self._finish

    def _of_vectors(self, _table: EmbeddingTable, vectors: Buffer) -> Ready:
        return Ready(self._head, self.length, (*self._prefix, vectors))

    def _of_ids(self, table: EmbeddingTable, ids: Buffer) -> Ready:
        selection = Selection(np.frombuffer(ids, _INT64), self._shape, None, None)
        return Ready(self._head, self.length, row_body(table, selection, self._media).stream())


class _Json:
    """One sequence of ids in, JSON out, with the numbers as kept text or as base64."""

    def __init__(self, question: Question, limits: Limits, ways: Ways) -> None:
        self._at_once = PIECE // question.table.embedding_dim
        self._most = min(FOUND, limits.max_ids)
        self._longest = limits.max_response_bytes
        self._ways = ways

    def read(self, packet: bytes, start: int) -> Part | None:
        plain = plain_ids(packet[start:], self._most)
        if plain is None:
            return None
        ids, scalars = plain
        is_text, count, sent = scalars is DEFAULT_SCALARS, len(ids), ids.data.cast("B")
        if count > self._at_once:
            return (self._ways.each, sent, count, self._of_many) if is_text else None
        if is_text:
            return self._ways.texts, sent, count, partial(self._of_text, ids)
        return self._ways.rows, sent, count, partial(self._of_rows, ids)

    def _of_text(self, ids: IdArray, table: EmbeddingTable, text: Buffer) -> Ready | None:
        form = self._form(table, ids, is_text=True)
        return self._ready(form, text)

    def _of_rows(self, ids: IdArray, table: EmbeddingTable, rows: Buffer) -> Ready | None:
        return self._ready(self._form(table, ids, is_text=False), pybase64.b64encode(rows))

    def _ready(self, form: Form, vectors: Buffer) -> Ready | None:
        start, end = form.start, form.end
        length = len(start) + len(vectors) + len(end)
        return Ready(form.head, length, (start, vectors, end)) if length <= self._longest else None

    def _of_many(self, table: EmbeddingTable, given: Buffer) -> Ready | None:
        ids = np.frombuffer(given, _INT64)
        found = None if table.texts is None else table.texts.find(ids)
        if found is None:
            return None
        form = self._form(table, ids, is_text=True)
        length = len(form.start) + found.size + len(BETWEEN) * (len(ids) - 1) + len(form.end)
        if length > self._longest:
            return None
        return Ready(form.head, length, Stream(length, slices(form.start, found, form.end)))

    def _form(self, table: EmbeddingTable, ids: IdArray, *, is_text: bool) -> Form:
        """What stands around the vectors of these ids."""
        form = self._ways.forms.get((len(ids), is_text)) or self._new_form(table, ids, is_text=is_text)
        return form if table.padding_id is None else form._replace(end=_end(table, ids, is_text=is_text))

    def _new_form(self, table: EmbeddingTable, ids: IdArray, *, is_text: bool) -> Form:
        shape, forms = (len(ids),), self._ways.forms
        start = start_of(table, shape) if is_text else base64_start(table, shape)
        end = _end(table, ids, is_text=is_text) if table.padding_id is None else b""
        head = head_text(200, answer_headers(JSON, table.identity, (*shape, table.embedding_dim), "float32"))
        if len(forms) >= _MOST_FORMS:
            forms.clear()
        form = forms[len(ids), is_text] = Form(head, start, end)
        return form


def _end(table: EmbeddingTable, ids: IdArray, *, is_text: bool) -> bytes:
    selection = Selection(ids, (len(ids),), None, table.padding_id)
    return end_of(selection) if is_text else base64_end(selection)
