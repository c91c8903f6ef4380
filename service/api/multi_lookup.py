"""`POST /v1/lookup`: several lookups in one request, all from one snapshot, all or none."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from service.api.answer import Answer, Receive, Scope, Stream
from service.api.binary_body import reject_query
from service.api.body import read_timed
from service.api.json_body import JsonBody, LongInteger, as_object, read_fields
from service.api.json_text import JsonText
from service.api.limits import Limits
from service.api.lookup import version_of
from service.api.media import JSON, answer_type, body_type, header_fields
from service.api.meter import Meter
from service.api.nested import json_type
from service.api.options import SCALAR_FIELDS, Scalars
from service.api.question import Question, write_object
from service.api.sizes import check_size
from service.api.turns import Turns
from service.errors import InvalidRequest, MethodNotAllowed, ServiceError, TableNotFound, UnsupportedMediaType
from service.opened import OpenedVersions, Target
from service.registry import Entry, TableRegistry
from service.table import EmbeddingTable
from service.types import LookupRequest, TableVersion

ENDPOINT: Final = "multi_lookup"
"""Its name in the metrics."""
PATH: Final = "/v1/lookup"
_TARGET_FIELDS: Final = frozenset({"table", "version", "label"})
_T = TypeVar("_T")
_ITEM_FIELDS: Final = SCALAR_FIELDS | _TARGET_FIELDS | {"ids", "tokens", "mask", "weights"}


class ItemError(Exception):
    """`error` happened in the lookup of this index."""

    def __init__(self, index: int, error: ServiceError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


class MultiLookupEndpoint:
    """Answers several lookups at once. Raises ServiceError, and ItemError for one that has an index."""

    def __init__(self, registry: TableRegistry, opened: OpenedVersions, limits: Limits, meter: Meter) -> None:
        self._registry = registry
        self._opened = opened
        self._limits = limits
        self._meter = meter

    async def answer(self, scope: Scope, receive: Receive, since: float) -> Answer:
        """The results in the order of the lookups."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], ("POST",))
        fields = header_fields(scope["headers"])
        answer_type(fields.accept, (JSON,))
        if (media := body_type(fields)) != JSON:
            raise UnsupportedMediaType(f"several lookups are taken as {JSON} only, not as {media}")
        sent, since = await read_timed(scope, receive, self._limits.max_body_bytes, since)
        body = JsonBody(sent)
        reject_query(scope["query_string"], "is not taken with a JSON body, which has fields")
        items = _items(body)
        self._limits.check_count("lookups", len(items))
        entries = self._registry.entries
        targets = [_in_item(index, _target, index, body, entries) for index in range(len(items))]
        tables = await self._resolve(targets, entries)
        return await self._answer(items, body, tables, since)

    async def _resolve(self, targets: list[Target], entries: Mapping[str, Entry]) -> list[EmbeddingTable]:
        """The tables of all lookups, of one snapshot; each named version and label is looked at once."""
        try:
            found = await self._opened.resolve(set(targets), entries)
        except ServiceError as error:
            raise ItemError(await self._first_failing(targets, entries), error) from error
        return [found[target] for target in targets]

    async def _first_failing(self, targets: list[Target], entries: Mapping[str, Entry]) -> int:
        for target in dict.fromkeys(targets):
            try:
                await self._opened.resolve([target], entries)
            except ServiceError:
                return targets.index(target)
        return 0  # it has been put right in the meantime

    async def _answer(self, items: list[Any], body: JsonBody, tables: list[EmbeddingTable], since: float) -> Answer:
        """The tables are taken: whatever happens between two lookups, they are of one snapshot."""
        ids = size = 0
        turns = Turns()
        questions: list[Question] = []
        for index, (item, table) in enumerate(zip(items, tables, strict=True)):
            request, scalars = _in_item(index, self._request, index, item, body)
            ids += request.batch.layout.total
            _in_item(index, self._limits.check_count, "ids", ids)
            numbers, size = _in_item(index, check_size, table, request, JSON, scalars, self._limits, size)
            questions.append(Question(table, request, scalars, JSON, numbers))
            await turns.end()
        text = JsonText(self._limits)
        text.write([b'{"results":['])
        for index, question in enumerate(questions):
            text.write([b","] if index else [])
            try:
                await write_object(text, question, self._limits)
            except ServiceError as error:
                raise ItemError(index, error) from error
        text.write([b"]}"])
        counts: dict[TableVersion, list[int]] = {}
        for question in questions:
            counts.setdefault(question.table.identity, []).append(question.request.batch.layout.total)
        self._meter.answered_several(ENDPOINT, counts, since)
        return Answer(200, ((b"content-type", JSON.encode()),), Stream(text.size, iter(text.pieces)))

    def _request(self, index: int, item: dict[str, Any], body: JsonBody) -> tuple[LookupRequest, Scalars]:
        fields = {name: value for name, value in item.items() if name not in _TARGET_FIELDS}
        return read_fields(fields, lambda: body.exact["lookups"][index], self._limits)


def _target(index: int, body: JsonBody, entries: Mapping[str, Entry]) -> Target:
    fields = as_object(body.value["lookups"][index], _ITEM_FIELDS, "a lookup")
    name = fields.get("table")
    if not isinstance(name, str):
        raise InvalidRequest(f"table must be a string, not {json_type(name)}", field="table")
    if name not in entries:
        raise TableNotFound(name)
    if "version" in fields and "label" in fields:
        raise InvalidRequest("either version or label may be given, not both", field="version")
    if "version" in fields:
        version = fields["version"]
        if isinstance(version, float):  # or an integer beyond 64 bits
            version = body.exact["lookups"][index]["version"]
        return Target(name, version=version_of(name, _digits(version)))
    label = fields.get("label")
    if "label" in fields and not isinstance(label, str):
        raise InvalidRequest(f"label must be a string, not {json_type(label)}", field="label")
    return Target(name, label=label)


def _digits(version: object) -> str:
    if isinstance(version, bool) or not isinstance(version, int | LongInteger):
        raise InvalidRequest(f"version must be an integer, not {json_type(version)}", field="version")
    return str(version)


def _items(body: JsonBody) -> list[Any]:
    lookups = as_object(body.value, frozenset({"lookups"}), "the body").get("lookups")
    if not isinstance(lookups, list):
        raise InvalidRequest(f"lookups must be an array, not {json_type(lookups)}", field="lookups")
    return lookups


def _in_item(index: int, function: Callable[..., _T], *arguments: object) -> _T:
    try:
        return function(*arguments)
    except ServiceError as error:
        raise ItemError(index, error) from error
