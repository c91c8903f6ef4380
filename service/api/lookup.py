"""`POST …/lookup`, one table: target, body, table, vectors, answer. The hot path of the service."""

import re
from dataclasses import dataclass
from typing import Final

from service.api.answer import Answer, Receive, Scope
from service.api.binary_body import DECODERS, Decoded, read_query, reject_query
from service.api.body import read_body
from service.api.encodings import ENCODERS, check_answer_size
from service.api.json_body import JsonBody, read_lookup
from service.api.limits import Limits
from service.api.media import JSON, answer_type, body_type
from service.errors import MethodNotAllowed, VersionNotFound
from service.metrics import Counters
from service.opened import OpenedVersions, Target
from service.registry import TableRegistry
from service.store import parse_version
from service.table import EmbeddingTable
from service.types import LookupResult, TableVersion

PATH: Final = re.compile(r"/v1/tables/([^/]+)(?:/(versions|labels)/([^/]+))?/lookup")


@dataclass(frozen=True, slots=True)
class Address:
    """What a path names: a table, and `versions` or `labels` with the name of one, which may be none."""

    table: str
    kind: str | None = None
    name: str | None = None

    def target(self) -> Target:
        """The same, for `OpenedVersions`; raises VersionNotFound for a name that no version has."""
        if self.kind == "labels":
            return Target(self.table, label=self.name)
        if self.kind == "versions":
            return Target(self.table, version=version_of(self.table, str(self.name)))
        return Target(self.table)


def version_of(table: str, text: str) -> int:
    """The version that `text` writes; raises VersionNotFound if it writes none."""
    version = parse_version(text)
    if version is None:
        raise VersionNotFound(table, text[:64])
    return version


def address_of(path: str) -> Address | None:
    """What `path` names if it is a lookup's, else None."""
    if not path.endswith("/lookup"):
        return None
    match = PATH.fullmatch(path)
    return None if match is None else Address(*match.groups())


class LookupEndpoint:
    """Answers lookups in one table. Raises ServiceError; turning that into an answer is the caller's."""

    def __init__(self, registry: TableRegistry, opened: OpenedVersions, limits: Limits, counters: Counters) -> None:
        self._registry = registry
        self._opened = opened
        self._limits = limits
        self._counters = counters

    async def answer(self, address: Address, scope: Scope, receive: Receive) -> Answer:
        """The vectors and the mask, in the media type that the client accepts."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], ("POST",))
        self._registry.entry(address.table)  # whoever names no table of ours need not send a body
        accepted = answer_type(scope)
        media = body_type(scope)
        body = await read_body(scope, receive, self._limits.max_body_bytes)
        # Only now, so that a slow body does not hold on to a version that is being replaced.
        table = self._registry.get(address.table) if address.kind is None else await self._named(address)
        request, scalars = self._decode(media, body, scope["query_string"])
        check_answer_size(table, request, accepted, scalars, self._limits)
        result = table.lookup(request)
        self._counters.add("embedding_ids", (address.table,), request.batch.layout.total)
        encoded = ENCODERS[accepted](result, table.identity, scalars.encoding, self._limits)
        return Answer(200, _headers(accepted, result, table.identity), encoded)

    async def _named(self, address: Address) -> EmbeddingTable:
        target = address.target()
        return (await self._opened.resolve([target], self._registry.entries))[target]

    def _decode(self, media: str, body: bytes, query_string: bytes) -> Decoded:
        if media == JSON:
            reject_query(query_string, "is not taken with a JSON body, which has fields")
            return read_lookup(JsonBody(body), self._limits)
        return DECODERS[media](body, read_query(query_string, media), self._limits)


def _headers(media: str, result: LookupResult, table: TableVersion) -> list[tuple[bytes, bytes]]:
    vectors = result.vectors
    return [
        (b"content-type", media.encode()),
        (b"embedding-table", table.name.encode()),
        (b"embedding-version", b"%d" % table.version),
        (b"embedding-shape", ",".join(map(str, vectors.shape)).encode()),
        (b"embedding-dtype", vectors.dtype.name.encode()),
    ]
