"""Lookups with all their parts, of one version each, and the masks that go with them."""

from collections.abc import Mapping
from typing import Final

from service.client.answers import Lookup, TableInfo
from service.client.calling import JSON, Call, Caller
from service.client.errors import (
    EmbeddingServiceError,
    RequestTooLarge,
    VersionNotFound,
    json_of,
    read_from,
)
from service.client.facts import Facts, KnownFacts
from service.client.inputs import read_batch
from service.client.lookups import (
    Question,
    Vectors,
    call_of,
    fields_of,
    json_text,
    lookup_of,
    vectors_of,
    with_mask_of,
)
from service.client.masks import mask_of
from service.client.options import ITEM_NAMES, Item, given_of, name_of, read_options, version_of
from service.client.splitting import Limits, fitting, is_divisible, joined, part_of, shifted

_RESTARTS: Final = 5
_TOO_LARGE: Final = 413


class Lookups:
    """Asks for vectors through a caller. What it learns, it keeps: limits, and for a while the facts of versions."""

    def __init__(self, caller: Caller, limits: Limits) -> None:
        self._caller = caller
        self._limits = limits
        self._facts = KnownFacts()
        self._dims: dict[str, int] = {}

    async def one(self, question: Question) -> Lookup:
        """The answer to a question, of one version, in as many requests as it takes."""
        for _ in range(_RESTARTS):
            try:
                return await self._in_parts(question)
            except _VersionGone:  # swapped and deleted between two parts: again, of the one in force now
                continue
        return await self._in_parts(question)

    async def _in_parts(self, question: Question) -> Lookup:
        rows = question.batch.layout.shape[0]
        parts: list[Lookup] = []
        first, most = 0, rows
        asked = question
        while True:
            stop = first + min(most, self._fitting(asked, first)) if is_divisible(question) else rows
            stop = min(rows, stop)
            try:
                found = await self._part(part_of(asked, first, stop))
            except EmbeddingServiceError as error:
                if is_divisible(question) and stop - first > 1 and self._is_too_large(error):
                    most = (stop - first) // 2
                    continue
                if parts and isinstance(error, VersionNotFound) and question.version is None:
                    raise _VersionGone(error.detail, error.status, error.members) from error
                if stop - first == rows:
                    raise
                raise shifted(error, question.batch, first, sum(len(part.vectors) for part in parts)) from error
            parts.append(found)
            first = stop
            if first >= rows:
                return joined(parts)
            asked = question.pinned(found.version)

    def _fitting(self, question: Question, first: int) -> int:
        return fitting(question, first, self._limits, self._dims.get(question.table))

    def _is_too_large(self, error: EmbeddingServiceError) -> bool:
        """Whether smaller parts may help; keeps what the service says of its limit."""
        if error.status != _TOO_LARGE and not isinstance(error, RequestTooLarge):
            return False
        self._limits = self._limits.told(error.members.get("limit"), error.members.get("allowed"))
        return True

    async def _part(self, question: Question) -> Lookup:
        call = call_of(question)
        most = self._limits.max_body_bytes
        if call.size > most and is_divisible(question) and question.batch.layout.shape[0] > 1:
            raise RequestTooLarge("the body is not sent: it is beyond the limits", None, {})
        response = await self._caller.ask(call)
        if call.accept == JSON:
            with read_from(response):
                return lookup_of(json_of(response), question)
        return await self._masked(question, vectors_of(response, question))

    async def _masked(self, question: Question, found: Vectors) -> Lookup:
        if not question.options.get("flatten"):
            self._dims[question.table] = found.vectors.shape[-1]
        if question.is_pooled:
            return Lookup(found.vectors, None, found.table, found.version)
        facts = self._facts.get(found.table, found.version, self._caller.turn)
        if facts is None:
            facts = await self._learnt(found)
        if facts is None:
            return with_mask_of(await self._caller.ask(call_of(question, with_mask=True)), question)
        return Lookup(found.vectors, mask_of(question.batch, question.options, facts), found.table, found.version)

    async def _learnt(self, found: Vectors) -> Facts | None:
        """The facts of the version that has answered; None for one that is gone since, or cannot be read."""
        turn = self._caller.turn
        try:
            info = await self.table(found.table, found.version)
        except VersionNotFound:
            return None
        if info.num_embeddings is None or info.on_oov is None:
            return None
        facts = Facts(info.padding_id, info.num_embeddings, info.on_oov)
        self._facts.keep(found.table, found.version, turn, facts)
        return facts

    async def table(self, table: str, version: int | None) -> TableInfo:
        """What the server knows of a table, or of one version of it."""
        chosen = "" if version is None else f"/versions/{version}"
        return await self._caller.value(TableInfo, Call("GET", f"/v1/tables/{name_of(table, 'table')}{chosen}"))

    async def many(self, items: list[Item]) -> list[Lookup]:
        """The answers to several lookups, of one snapshot, in one request."""
        questions = [_question_of(index, item) for index, item in enumerate(items)]
        body = b'{"lookups":[%b]}' % b",".join(map(_item_text, questions))
        response = await self._caller.ask(Call("POST", "/v1/lookup", "read", body, JSON, JSON))
        with read_from(response):
            results = json_of(response).get("results") or []
            return [lookup_of(result, question) for question, result in zip(questions, results, strict=True)]


class _VersionGone(VersionNotFound):
    """The version that the parts before are of is not there any more."""


def _question_of(index: int, item: Item) -> Question:
    if not isinstance(item, Mapping):
        raise TypeError(f"lookup {index} is no dict but {type(item).__name__}")
    given = given_of(item, ITEM_NAMES, f"lookup {index}: ")
    if "table" not in given:
        raise TypeError(f"lookup {index} names no table")
    table, version, label = given.pop("table"), given.pop("version", None), given.pop("label", None)
    try:
        batch = read_batch(*(given.pop(name, None) for name in ("ids", "tokens", "mask", "weights")))
        return Question(table, batch, read_options(given), version_of(version), label)
    except EmbeddingServiceError as error:
        raise type(error)(error.detail, None, {**error.members, "lookup": index}) from None


def _item_text(question: Question) -> bytes:
    target = {"table": question.table, "version": question.version, "label": question.label}
    named = {name: value for name, value in target.items() if value is not None}
    fields = {**fields_of(question.batch), **question.options, **named, "encoding": "base64"}
    return json_text(fields, question.batch)
