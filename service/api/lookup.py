"""`POST …/lookup`, one table: target, body, table, vectors, answer. The hot path of the service."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.api.answer import Answer, Receive, Scope
from service.api.batching import VersionWays
from service.api.binary_body import DECODERS, Query, read_query, reject_query
from service.api.body import check_body, read_timed
from service.api.json_body import read_lookup
from service.api.limits import Limits
from service.api.media import JSON, Fields, answer_type, body_type, header_fields
from service.api.meter import Meter
from service.api.prepared import Prepared, prepare
from service.api.question import Question, answer_at_once, answer_in_turns
from service.api.sizes import check_size
from service.errors import MethodNotAllowed, VersionNotFound
from service.opened import OpenedVersions, Target
from service.registry import TableRegistry
from service.store import parse_version
from service.table import EmbeddingTable

ENDPOINT: Final = "lookup"
"""Its name in the metrics."""
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


class Head(NamedTuple):
    """What a request says before its body: which table, the type of its body and of the answer, and its query."""

    address: Address
    media: str
    accepted: str
    query: Query


def read_head(address: Address, fields: Fields, query_string: bytes) -> Head:
    """Raises NotAcceptable, UnsupportedMediaType, and InvalidRequest that names a wrong query parameter."""
    accepted = answer_type(fields.accept)
    media = body_type(fields)
    if media == JSON:
        reject_query(query_string, "is not taken with a JSON body, which has fields")
        return Head(address, media, accepted, Query({}))
    return Head(address, media, accepted, read_query(query_string, media))


class LookupEndpoint:
    """Answers lookups in one table. Raises ServiceError; turning that into an answer is the caller's."""

    def __init__(self, registry: TableRegistry, opened: OpenedVersions, limits: Limits, meter: Meter) -> None:
        self._registry = registry
        self._opened = opened
        self._limits = limits
        self._meter = meter
        self._ways = VersionWays(registry, meter.counters, ENDPOINT)

    async def answer(self, address: Address, scope: Scope, receive: Receive, since: float) -> Answer:
        """The vectors and the mask, in the media type that the client accepts."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], ("POST",))
        self._registry.entry(address.table)  # whoever names no table of ours need not send a body
        head = read_head(address, header_fields(scope["headers"]), scope["query_string"])
        body, since = await read_timed(scope, receive, self._limits.max_body_bytes, since)
        # Only now, so that a slow body does not hold on to a version that is being replaced.
        table = self._registry.get(address.table) if address.kind is None else await self._named(address)
        question = self._question(table, head, body)
        return await self.answer_in_turns(question, since) if question.is_large() else self._at_once(question, since)

    async def answer_in_turns(self, question: Question, since: float) -> Answer:
        """The answer to a large question."""
        answer = await answer_in_turns(question, self._limits)
        self._count(question, since)
        return answer

    def answer_now(self, head: Head, body: bytes, since: float) -> tuple[Answer | Question, Prepared | None]:
        """The same for a body that is there already, of a lookup in an active version; the question, if it is large.

        With it comes what can be told of the next request with the same head.
        """
        check_body(body, self._limits.max_body_bytes)
        entry = self._registry.entry(head.address.table)
        question = self._question(entry.table(), head, body)
        found = question if question.is_large() else self._at_once(question, since)
        if entry.loaded is None or not head.query.is_int64():
            return found, None
        return found, prepare(question, head.media, body, self._limits, self._ways.of(entry.loaded))

    def _at_once(self, question: Question, since: float) -> Answer:
        answer = answer_at_once(question, self._limits)
        self._count(question, since)
        return answer

    async def _named(self, address: Address) -> EmbeddingTable:
        target = address.target()
        return (await self._opened.resolve([target], self._registry.entries))[target]

    def _question(self, table: EmbeddingTable, head: Head, body: bytes) -> Question:
        limits = self._limits
        if head.media == JSON:
            request, scalars = read_lookup(body, limits)
        else:
            request, scalars = DECODERS[head.media](body, head.query, limits)
        numbers, _ = check_size(table, request, head.accepted, scalars, limits)
        return Question(table, request, scalars, head.accepted, numbers)

    def _count(self, question: Question, since: float) -> None:
        self._meter.answered(ENDPOINT, question.table.identity, question.request.batch.layout.total, since)
