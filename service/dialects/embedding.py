"""Texts, or sequences of ids, each to one vector: what OpenAI's protocol and that of TEI have in common."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.api.dialect import Call
from service.api.json_body import JsonBody, read_ids
from service.api.limits import Limits
from service.api.media import JSON
from service.api.nested import json_type
from service.api.options import DEFAULT_SCALARS
from service.api.served import Served
from service.api.sizes import check_size
from service.errors import InvalidRequest, OutOfVocabulary, RequestTooLarge
from service.layout import Layout
from service.table import EmbeddingTable
from service.texts import Read
from service.types import IdBatch, LookupOptions, LookupRequest, LookupResult, VectorArray

_FEW_CHARACTERS: Final = 2000
_FEW_NUMBERS: Final = 1 << 14
"""What is embedded on the event loop: some 200 microseconds."""

_CHARACTERS: Final = 8
"""For each token that a request may have: several times as many as words have."""
Input: TypeAlias = list[str] | IdBatch
"""Texts, or sequences of ids."""
_T = TypeVar("_T")


class Embedded(NamedTuple):
    """One vector for each input, float32 of shape (n, dim), and how many tokens there were."""

    vectors: NDArray[np.float32]
    tokens: int


def read_input(body: JsonBody, field: str, limits: Limits) -> Input:
    """A text, texts, ids or sequences of ids; raises InvalidRequest that names the place, RequestTooLarge."""
    value = body.value.get(field)
    if isinstance(value, str):
        if not _is_unicode(value):
            raise InvalidRequest(f"{field} has half a surrogate pair", field=field)
        return [value]
    if not isinstance(value, list):
        raise InvalidRequest(f"{field} must be a string or an array, not {json_type(value)}", field=field)
    if not value:
        raise InvalidRequest(f"{field} must not be empty", field=field)
    limits.check_count(f"elements of {field}", len(value))
    if isinstance(value[0], str):
        return _texts(value, field)
    batch = read_ids(value, lambda: body.exact[field], limits, field)
    if len(batch.layout.shape) > 2:
        raise InvalidRequest(f"{field} is nested deeper than sequences of ids", field=field)
    return batch


def _texts(value: list[Any], field: str) -> list[str]:
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise InvalidRequest(f"{field}[{index}] must be a string, not {json_type(text)}", field=f"{field}[{index}]")
        if not _is_unicode(text):
            raise InvalidRequest(f"{field}[{index}] has half a surrogate pair", field=f"{field}[{index}]")
    return value


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can write it, as tokenizers have to."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


async def embed(served: Served, call: Call, table: EmbeddingTable, asked: Input, make: Callable[[Embedded], _T]) -> _T:
    """What `make` makes of the vectors: beside the event loop if it is much.

    Raises what `TextReader.read` and `EmbeddingTable.lookup` raise, RequestTooLarge.
    """

    def work(read: Read) -> _T:
        vectors = _float32(table.lookup(read.request).vectors).reshape(-1, table.embedding_dim)
        return make(Embedded(vectors[:, : table.reader.settings.dimensions], read.tokens))

    return await _worked(served, call, table, asked, work)


async def embed_each(
    served: Served, call: Call, table: EmbeddingTable, asked: Input, make: Callable[[list[NDArray[np.float32]]], _T]
) -> _T:
    """The same of the vectors of each token that counts: for each input an array of shape (tokens, dim)."""

    def work(read: Read) -> _T:
        return make(list(_of_tokens(table, read.request)))

    return await _worked(served, call, table, asked, work, pooled=False)


async def _worked(
    served: Served, call: Call, table: EmbeddingTable, asked: Input, work: Callable[[Read], _T], *, pooled: bool = True
) -> _T:
    def whole() -> tuple[_T, int]:
        read = _read(table, asked, served.limits, pooled=pooled)
        return work(read), read.tokens

    if _is_little(table, asked):
        made, tokens = whole()
    else:
        made, tokens = await asyncio.get_running_loop().run_in_executor(_threads(), whole)
    call.looked_up = table.identity, tokens
    return made


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Two at a time: tokenizers have threads of their own, and others must not wait for long texts."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="texts")


def _is_little(table: EmbeddingTable, asked: Input) -> bool:
    if isinstance(asked, IdBatch):
        return len(asked.values) * table.embedding_dim <= _FEW_NUMBERS
    return sum(map(len, asked)) <= _FEW_CHARACTERS and len(asked) * table.embedding_dim <= _FEW_NUMBERS


def _read(table: EmbeddingTable, asked: Input, limits: Limits, *, pooled: bool) -> Read:
    if isinstance(asked, IdBatch):
        pooled_ids = table.reader.pooled(asked, table.padding_id, table.on_oov, table.unk_id)
        read = Read(pooled_ids, len(asked.values))
    else:
        _check_characters(table, asked, limits)
        read = table.reader.read(asked, table.identity, limits.max_ids)
    if not pooled:
        read = read._replace(request=read.request._replace(weights=None, options=LookupOptions()))
    limits.check_ids(read.request.batch.layout)
    check_size(table, read.request if pooled else _flat(read.request), JSON, DEFAULT_SCALARS, limits)
    return read


def _flat(request: LookupRequest) -> LookupRequest:
    """The same positions in one sequence: sequences of many lengths would have to be padded to the longest."""
    return request._replace(batch=request.batch._replace(layout=Layout((request.batch.layout.total,))))


def _found(table: EmbeddingTable, request: LookupRequest) -> LookupResult:
    try:
        return table.lookup(_flat(request))
    except OutOfVocabulary:
        table.lookup(request)  # which names places as they were sent
        raise


def _check_characters(table: EmbeddingTable, texts: list[str], limits: Limits) -> None:
    """Raises RequestTooLarge for more text than the most tokens are likely to be; each costs a tokenizer 150 bytes."""
    longest = table.reader.settings.max_characters
    found = sum(len(text) if longest is None else min(len(text), longest) for text in texts)
    most = _CHARACTERS * limits.max_ids
    if found > most:
        raise RequestTooLarge(
            f"characters of the texts ({_CHARACTERS} for each token)", "EMBEDDING_MAX_IDS", most, found
        )


def _of_tokens(table: EmbeddingTable, request: LookupRequest) -> Iterator[NDArray[np.float32]]:
    found = _found(table, request)
    assert found.mask is not None  # noqa: S101  (nothing is pooled)
    vectors, weights = _float32(found.vectors), table.reader.weights
    first = 0
    for length in request.batch.layout.lengths().tolist():
        end = first + length
        counts = found.mask[first:end]
        rows = vectors[first:end][counts]
        if weights is not None and isinstance(request.batch, IdBatch):
            ids = request.batch.values[first:end][counts]
            rows = (rows * weights.take(ids, mode="clip")[:, np.newaxis]).astype(np.float32)
        first = end
        yield rows


def _float32(vectors: VectorArray) -> NDArray[np.float32]:
    return np.asarray(vectors, dtype=np.float32)  # it is, as no other dtype is asked for


def checked_dimensions(value: object, table: EmbeddingTable) -> int:
    """How many leading numbers are asked for; raises InvalidRequest."""
    most = table.reader.settings.dimensions or table.embedding_dim
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidRequest(
            f"dimensions must be an integer from 1 to {most}, which vectors of {table.identity.name!r} have",
            field="dimensions",
        )
    return value
