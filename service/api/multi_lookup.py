"""`POST /v1/lookup`: several lookups in one request, all from one snapshot, all or none."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from service.api.answer import Answer, Receive, Scope
from service.api.binary_body import Limits, reject_query
from service.api.body import read_body
from service.api.encodings import dump_json, json_object
from service.api.json_body import JsonBody, LongInteger, as_object, check_ids_limit, read_fields
from service.api.lookup import LookupEndpoint, Target, check_answer_size, check_encoded_size
from service.api.media import JSON, answer_type, body_type
from service.api.nested import json_type
from service.api.options import SCALAR_FIELDS, Scalars
from service.errors import (
    InvalidRequest,
    MethodNotAllowed,
    ServiceError,
    TableNotFound,
    UnsupportedMediaType,
)
from service.layout import Layout
from service.metrics import Counters
from service.registry import Entry, TableRegistry
from service.table import EmbeddingTable
from service.types import LookupRequest

PATH: Final = "/v1/lookup"
_TARGET_FIELDS: Final = frozenset({"table", "version", "label"})
_ITEM_FIELDS: Final = SCALAR_FIELDS | _TARGET_FIELDS | {"ids", "tokens", "mask", "weights"}


class ItemError(Exception):
    """`error` happened in the lookup of this index."""

    def __init__(self, index: int, error: ServiceError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


class MultiLookupEndpoint:
    """Answers several lookups at once. Raises ServiceError, and ItemError for one that has an index."""

    def __init__(self, registry: TableRegistry, single: LookupEndpoint, limits: Limits, counters: Counters) -> None:
        self._registry = registry
        self._single = single
        self._limits = limits
        self._counters = counters

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """The results in the order of the lookups."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], ("POST",))
        answer_type(scope, (JSON,))
        if (media := body_type(scope)) != JSON:
            raise UnsupportedMediaType(f"several lookups are taken as {JSON} only, not as {media}")
        body = JsonBody(await read_body(scope, receive, self._limits.max_body_bytes))
        reject_query(scope["query_string"], "is not taken with a JSON body, which has fields")
        items = _items(body)
        snapshot = self._registry.entries
        tables = [await _of_item(i, self._table, i, body, snapshot) for i in range(len(items))]
        return self._answer(items, body, tables)

    def _answer(self, items: list[Any], body: JsonBody, tables: list[EmbeddingTable]) -> Answer:
        """All after the tables are taken: nothing is awaited, so nothing can change in between."""
        ids = size = 0
        requests: list[tuple[LookupRequest, Scalars]] = []
        for index, (item, table) in enumerate(zip(items, tables, strict=True)):
            request, scalars = _in_item(index, self._request, index, item, body)
            ids += request.batch.layout.total
            check_ids_limit(Layout((ids,)), self._limits.max_ids)
            size = _in_item(index, check_answer_size, table, request, self._limits, size)
            requests.append((request, scalars))
        results = []
        for index, ((request, scalars), table) in enumerate(zip(requests, tables, strict=True)):
            result = _in_item(index, table.lookup, request)
            results.append(json_object(result, table.identity, scalars.encoding))
        for (request, _), table in zip(requests, tables, strict=True):
            self._counters.add("embedding_ids", (table.identity.name,), request.batch.layout.total)
        encoded = dump_json({"results": results})
        check_encoded_size(len(encoded), self._limits)
        return Answer(200, [(b"content-type", JSON.encode())], encoded)

    def _request(self, index: int, item: dict[str, Any], body: JsonBody) -> tuple[LookupRequest, Scalars]:
        fields = {name: value for name, value in item.items() if name not in _TARGET_FIELDS}
        return read_fields(fields, lambda: body.exact["lookups"][index], self._limits.max_ids)

    async def _table(self, index: int, body: JsonBody, snapshot: Mapping[str, Entry]) -> EmbeddingTable:
        fields = as_object(body.value["lookups"][index], _ITEM_FIELDS, "a lookup")
        name = fields.get("table")
        if not isinstance(name, str):
            raise InvalidRequest(f"table must be a string, not {json_type(name)}", field="table")
        if name not in snapshot:
            raise TableNotFound(name)
        if "version" in fields and "label" in fields:
            raise InvalidRequest("either version or label may be given, not both", field="version")
        if "version" in fields:
            version = fields["version"]
            if isinstance(version, float):  # or an integer beyond 64 bits
                version = body.exact["lookups"][index]["version"]
            return await self._single.named(Target(name, "versions", _version(version)))
        if "label" in fields:
            if not isinstance(fields["label"], str):
                raise InvalidRequest(f"label must be a string, not {json_type(fields['label'])}", field="label")
            return await self._single.named(Target(name, "labels", fields["label"]))
        return snapshot[name].table()


def _version(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | LongInteger):
        raise InvalidRequest(f"version must be an integer, not {json_type(value)}", field="version")
    return str(value)


def _items(body: JsonBody) -> list[Any]:
    lookups = as_object(body.value, frozenset({"lookups"}), "the body").get("lookups")
    if not isinstance(lookups, list):
        raise InvalidRequest(f"lookups must be an array, not {json_type(lookups)}", field="lookups")
    return lookups


async def _of_item(index: int, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    try:
        return await function(*arguments)
    except ServiceError as error:
        raise ItemError(index, error) from error


def _in_item(index: int, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    try:
        return function(*arguments)
    except ServiceError as error:
        raise ItemError(index, error) from error
