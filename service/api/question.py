"""A lookup that has been read, and its answer: at once, or in pieces between which others have their turns."""

import asyncio
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from service.api.answer import Answer, Buffer, Headers, Stream
from service.api.encodings import ENCODERS, json_pieces, mask_and_end, object_head, octets
from service.api.json_text import PIECE, JsonText, rows_text
from service.api.limits import Limits
from service.api.media import JSON, OCTETS
from service.api.options import Scalars
from service.api.row_encodings import binary_body, whole_base64
from service.api.row_texts import text_body
from service.api.turns import Turns
from service.api.vectors import is_large
from service.rowtexts import Found, RowTexts, Texts
from service.table import EmbeddingTable
from service.types import LookupRequest, LookupResult, Selection, TableVersion

FOUND: Final = 4096
"""Texts that are looked for at once."""


class Question(NamedTuple):
    """In which table, what, and in which media type it is answered; `numbers` are those of the answer."""

    table: EmbeddingTable
    request: LookupRequest
    scalars: Scalars
    media: str
    numbers: int

    def is_text(self) -> bool:
        """Whether numbers are written as text."""
        return self.media == JSON and self.scalars.encoding == "float"

    def is_large(self) -> bool:
        """Whether the answer takes so long that others should have their turns meanwhile."""
        return is_large(self.table, self.request, self.numbers, text=self.is_text())


def answer_at_once(question: Question, limits: Limits) -> Answer:
    """The answer to a question that is not large; raises what `EmbeddingTable.lookup` raises, RequestTooLarge."""
    table, media = question.table, question.media
    selection = table.select(question.request)
    if selection is None:
        return _encoded(question, table.lookup(question.request), limits)
    if media == OCTETS:
        return Answer(200, _selected_headers(question, selection), (octets(table.rows(selection)),))
    if question.is_text() and table.texts is not None and len(selection.ids) > 0:
        body = text_body(table, selection, _texts(table.texts, selection))
        limits.check_answer(body.length)
        return Answer(200, _selected_headers(question, selection), tuple(body.pieces))
    if media == JSON and question.scalars.encoding == "base64":
        answer = Answer(200, _selected_headers(question, selection), whole_base64(table, selection))
        limits.check_answer(answer.length)
        return answer
    rows = binary_body(table, selection, media, question.scalars.encoding)
    if rows is None:
        return _encoded(question, table.result(selection), limits)
    limits.check_answer(rows.length)
    return Answer(200, _selected_headers(question, selection), rows.whole())


async def answer_in_turns(question: Question, limits: Limits) -> Answer:
    """The answer to a large question; the same as at once, made of pieces."""
    await Turns().begin()
    selection = question.table.select(question.request)
    if selection is not None:
        body = await _body_in_turns(question, selection, limits)
        if body is not None:
            limits.check_answer(body.length)
            return Answer(200, _selected_headers(question, selection), body)
        if question.media == JSON:
            text = JsonText(limits)
            await text.write_in_turns(_selected_pieces(question, selection))
            return Answer(200, _selected_headers(question, selection), Stream(text.size, iter(text.pieces)))
    # Off the loop: numpy lets go of the interpreter while it works.
    result = await asyncio.to_thread(question.table.lookup, question.request)
    text = JsonText(limits)
    await text.write_in_turns(ENCODERS[question.media](result, question.table.identity, question.scalars.encoding))
    return Answer(200, _headers_of(question, result), Stream(text.size, iter(text.pieces)))


async def write_object(text: JsonText, question: Question, limits: Limits) -> None:
    """Writes the answer as a JSON object among others; raises what `answer_at_once` raises."""
    table, request = question.table, question.request
    selection = table.select(request)
    if selection is None:
        large = question.is_large()
        result = await asyncio.to_thread(table.lookup, request) if large else table.lookup(request)
        await text.write_in_turns(json_pieces(result, table.identity, question.scalars.encoding))
        return
    body = await _body_in_turns(question, selection, limits)
    await text.write_in_turns(_selected_pieces(question, selection) if body is None else body.pieces)


async def _body_in_turns(question: Question, selection: Selection, limits: Limits) -> Stream | None:
    """The body of an answer made of rows as they are stored; None where it has to be made of the vectors.

    Others have their turns meanwhile; raises RequestTooLarge.
    """
    table = question.table
    if not question.is_text():
        body = binary_body(table, selection, question.media, question.scalars.encoding)
        return None if body is None else body.stream()
    if table.texts is None or len(selection.ids) == 0:
        return None
    texts: list[Texts] = []
    size = 0
    first, turns = 0, Turns()
    while first < len(selection.ids):
        end = min(first + FOUND, len(selection.ids))
        part = selection.part(first, end)
        found = None if selection.blank is not None else table.texts.find(part.ids)
        if found is None:  # to render takes a hundred times as long as to find
            end = min(first + max(1, PIECE // table.embedding_dim), end)
            found = _texts(table.texts, selection.part(first, end))
        texts.append(found.texts)
        size += found.size
        limits.check_answer(size)
        first = end
        await turns.end()
    return text_body(table, selection, Found(np.concatenate(texts), size))


def _texts(texts: RowTexts, selection: Selection) -> Found:
    """The texts of all positions."""
    found = texts.of(selection.ids)
    if selection.blank is None:
        return found
    lengths = np.fromiter(map(len, found.texts[selection.blank]), dtype=np.int64)
    found.texts[selection.blank] = texts.blank
    return Found(found.texts, found.size + len(texts.blank) * len(lengths) - int(np.add.reduce(lengths)))


def _selected_pieces(question: Question, selection: Selection) -> Iterator[Buffer]:
    """JSON without kept texts, of rows that are gathered as they are written."""
    table, shape = question.table, selection.shape
    if question.scalars.encoding != "float" or len(selection.ids) == 0:
        yield from json_pieces(table.result(selection), table.identity, question.scalars.encoding)
        return
    yield object_head(table.identity.name, table.identity.version, (*shape, table.embedding_dim), "float32")
    yield from rows_text(lambda first, end: table.rows(selection.part(first, end)), shape, table.embedding_dim)
    yield mask_and_end(selection)


def _encoded(question: Question, result: LookupResult, limits: Limits) -> Answer:
    if question.media == OCTETS:
        return Answer(200, _headers_of(question, result), (octets(result.vectors),))
    text = JsonText(limits)
    text.write(ENCODERS[question.media](result, question.table.identity, question.scalars.encoding))
    return Answer(200, _headers_of(question, result), tuple(text.pieces))


def _selected_headers(question: Question, selection: Selection) -> Headers:
    table = question.table
    return answer_headers(question.media, table.identity, (*selection.shape, table.embedding_dim), "float32")


def _headers_of(question: Question, result: LookupResult) -> Headers:
    return answer_headers(question.media, question.table.identity, result.vectors.shape, result.dtype)


def answer_headers(media: str, table: TableVersion, shape: tuple[int, ...], dtype: str) -> Headers:
    """What an answer says of itself beside its length."""
    return _headers(media, table.name, table.version, shape, dtype)


@lru_cache(maxsize=512)
def _headers(media: str, table: str, version: int, shape: tuple[int, ...], dtype: str) -> Headers:
    return (
        (b"content-type", media.encode()),
        (b"embedding-table", table.encode()),
        (b"embedding-version", b"%d" % version),
        (b"embedding-shape", ",".join(map(str, shape)).encode()),
        (b"embedding-dtype", dtype.encode()),
    )
