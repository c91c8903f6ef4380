"""`POST …/lookup`, one table: target, body, table, vectors, answer. The hot path of the service."""

import math
import re
from dataclasses import dataclass
from typing import Final

from service.api.answer import Answer, Receive, Scope
from service.api.binary_body import DECODERS, Decoded, Limits, read_query, reject_query
from service.api.body import read_body
from service.api.encodings import ENCODERS
from service.api.json_body import JsonBody, read_lookup
from service.api.media import JSON, answer_type, body_type
from service.errors import MethodNotAllowed, RequestTooLarge, VersionNotFound
from service.metrics import Counters
from service.registry import TableRegistry
from service.store import parse_version
from service.table import EmbeddingTable
from service.types import LookupRequest, LookupResult, TableVersion
from service.watcher import StoreWatcher

PATH: Final = re.compile(r"/v1/tables/([^/]+)(?:/(versions|labels)/([^/]+))?/lookup")


@dataclass(frozen=True, slots=True)
class Target:
    """Which rows a path names: a table, and `versions` or `labels` with the name of one."""

    table: str
    kind: str | None = None
    name: str | None = None


def target_of(path: str) -> Target | None:
    """What `path` names if it is a lookup's, else None."""
    if not path.endswith("/lookup"):
        return None
    match = PATH.fullmatch(path)
    return None if match is None else Target(*match.groups())


class LookupEndpoint:
    """Answers lookups in one table. Raises ServiceError; turning that into an answer is the caller's."""

    def __init__(self, registry: TableRegistry, watcher: StoreWatcher, limits: Limits, counters: Counters) -> None:
        self._registry = registry
        self._watcher = watcher
        self._limits = limits
        self._counters = counters

    async def answer(self, target: Target, scope: Scope, receive: Receive) -> Answer:
        """The vectors and the mask, in the media type that the client accepts."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], ("POST",))
        table = self._registry.get(target.table) if target.kind is None else await self.named(target)
        accepted = answer_type(scope)
        media = body_type(scope)
        body = await read_body(scope, receive, self._limits.max_body_bytes)
        request, scalars = self._decode(media, body, scope["query_string"])
        check_answer_size(table, request, self._limits)
        result = table.lookup(request)
        self._counters.add("embedding_ids", (target.table,), request.batch.layout.total)
        encoded = ENCODERS[accepted](result, table.identity, scalars.encoding)
        check_encoded_size(len(encoded), self._limits)
        return Answer(200, _headers(accepted, result, table.identity), encoded)

    async def named(self, target: Target) -> EmbeddingTable:
        """The version that a path or an item names; raises VersionNotFound, LabelNotFound, NotReady."""
        self._registry.entry(target.table)
        if target.kind == "labels":
            return await self._watcher.labelled(target.table, str(target.name))
        number = parse_version(str(target.name))
        if number is None:
            raise VersionNotFound(target.table, str(target.name))
        version = TableVersion(target.table, number)
        return self._watcher.served(version) or await self._watcher.older(version)

    def _decode(self, media: str, body: bytes, query_string: bytes) -> Decoded:
        if media == JSON:
            reject_query(query_string, "is not taken with a JSON body, which has fields")
            return read_lookup(JsonBody(body), self._limits.max_ids)
        return DECODERS[media](body, read_query(query_string, media), self._limits)


def check_answer_size(table: EmbeddingTable, request: LookupRequest, limits: Limits, taken: int = 0) -> int:
    """How many bytes the vectors will have; raises RequestTooLarge before anything is made.

    JSON has at least two bytes a number ("0,"), so what is refused here no encoding would bring below the
    limit; the exact length is checked once it is known. An axis of zero counts as one: padding a batch of
    no rows to a length must not cost more than the limit either.
    """
    shape = table.result_shape(request)
    size = 2 if request.options.dtype == "float16" else 4
    found = taken + size * math.prod(max(1, axis) for axis in shape)
    if found > limits.max_response_bytes:
        raise _answer_too_large(limits, found)
    return found


def check_encoded_size(found: int, limits: Limits) -> None:
    """Raises RequestTooLarge for an answer that is longer than the limit."""
    if found > limits.max_response_bytes:
        raise _answer_too_large(limits, found)


def _answer_too_large(limits: Limits, found: int) -> RequestTooLarge:
    return RequestTooLarge("the answer in bytes", "EMBEDDING_MAX_RESPONSE_BYTES", limits.max_response_bytes, found)


def _headers(media: str, result: LookupResult, table: TableVersion) -> list[tuple[bytes, bytes]]:
    vectors = result.vectors
    return [
        (b"content-type", media.encode()),
        (b"embedding-table", table.name.encode()),
        (b"embedding-version", b"%d" % table.version),
        (b"embedding-shape", ",".join(map(str, vectors.shape)).encode()),
        (b"embedding-dtype", vectors.dtype.name.encode()),
    ]
