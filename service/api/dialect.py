"""Other people's protocols over the same tables: what one is made of, and how its requests are admitted and answered.

The protocols themselves are in `service/dialects`, which this room does not know.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import orjson
from starlette.types import ASGIApp

from service.api.admission import ADMITTED, Admission
from service.api.answer import PROBLEM, Answer, Message, Receive, Scope, Send, send_answer
from service.api.body import ClientDisconnected, read_body
from service.api.errors import Told, fault
from service.api.limits import Limits
from service.api.short import Asked
from service.errors import MethodNotAllowed, OutOfVocabulary, Overloaded, RouteNotFound, ServiceError
from service.metrics import Counters
from service.opened import OpenedVersions
from service.registry import TableRegistry
from service.settings import Settings
from service.store import TableStore

_PLACE: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Served:
    """What the endpoints of one process work with."""

    settings: Settings
    limits: Limits
    registry: TableRegistry
    opened: OpenedVersions
    store: TableStore
    counters: Counters
    admission: Admission

    def counted(self, endpoint: str, table: str, answer: Answer) -> Answer:
        """The answer of a lookup, which is counted as such: without the name of a table that is not there."""
        known = table if table in self.registry.entries else ""  # bounds the metrics' memory
        self.counters.add("embedding_requests", (known, endpoint, str(answer.status)))
        return answer

    def problem(self, problem: "Problem", error: Exception) -> Answer:
        """The answer to an error, which is logged if it is a fault of ours."""
        if isinstance(error, OutOfVocabulary):
            self.counters.add("embedding_oov_requests", (error.table.name,))
        return problem(error if isinstance(error, ServiceError) else fault(error))


class Call:
    """One request: what stands in the places of its path, and `table`, which its endpoint names for the metrics."""

    __slots__ = ("names", "receive", "scope", "table")

    def __init__(self, scope: Scope, receive: Receive, names: Mapping[str, str]) -> None:
        self.scope = scope
        self.receive = receive
        self.names = names
        self.table = names.get("table", "")

    async def body(self, limit: int) -> bytes:
        """The whole body; raises RequestTooLarge beyond `limit` bytes, ClientDisconnected."""
        return await read_body(self.scope, self.receive, limit)


Endpoint: TypeAlias = Callable[[Call], Awaitable[Answer]]
"""Raises ServiceError and ClientDisconnected, nothing else."""
Problem: TypeAlias = Callable[[ServiceError], Answer]
"""How a protocol tells of an error."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path of a protocol, like `/v2/models/{table}`, where {table} is one segment.

    `counted` is the name that lookups have in the metrics; what has none looks nothing up and is always admitted.
    `summary`, `name` and `schema`, the JSON schema of the body, are for the documentation. An alias is another address
    for some clients: it is not documented, and not there for other methods.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    name: str
    counted: str | None = None
    schema: Mapping[str, object] | None = None
    alias: bool = False

    def operation(self) -> dict[str, object]:
        """What OpenAPI says of it beside its summary."""
        names = _PLACE.findall(self.path)
        string = {"type": "string"}
        said: dict[str, object] = {
            "parameters": [{"name": name, "in": "path", "required": True, "schema": string} for name in names]
        }
        if self.schema is not None:
            said["requestBody"] = {"required": True, "content": {"application/json": {"schema": self.schema}}}
        return said

    def pattern(self) -> str:
        """The regular expression of its paths."""
        parts = _PLACE.split(self.path)
        return "".join(f"(?P<{part}>[^/:]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol. Whatever begins with one of its `prefixes` is answered in its form, found or not.

    `short` reads heads of requests that may be answered where their last byte arrives: target and header fields.
    """

    name: str
    title: str
    routes: Sequence[Route]
    problem: Problem
    prefixes: Sequence[str] = ()
    short: Callable[[bytes, Sequence[tuple[bytes, bytes]]], Asked | None] | None = None


class Found(NamedTuple):
    """The routes at an address by their methods, none for an unknown one within a prefix."""

    dialect: Dialect
    routes: Mapping[str, Route]
    names: Mapping[str, str]


class Dialects:
    """The protocols that are served. Answers every request at their addresses."""

    def __init__(self, dialects: Sequence[Dialect], served: Served) -> None:
        self.all = dialects
        self._served = served
        self._paths = [
            (re.compile(pattern), dialect, routes)
            for dialect in dialects
            for pattern, routes in _by_pattern(dialect.routes).items()
        ]

    def find(self, path: str, method: str) -> Found | None:
        """What is at an address; None where it belongs to none of the protocols."""
        for pattern, dialect, routes in self._paths:
            match = pattern.fullmatch(path)
            if match is not None and (method in routes or not any(route.alias for route in routes.values())):
                return Found(dialect, routes, match.groupdict())
        for dialect in self.all:
            if path.startswith(tuple(dialect.prefixes)):
                return Found(dialect, {}, {})
        return None

    async def serve(self, found: Found, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; a lookup is refused where too many are in flight."""
        route = found.routes.get(scope["method"])
        call = Call(scope, receive, found.names)
        if route is None or route.counted is None:
            await self._send(found.dialect, _unless_found(found) if route is None else route.endpoint, call, send)
            return
        admission = self._served.admission
        try:
            if ADMITTED not in scope:
                await admission.enter()
        except Overloaded as error:
            await send_answer(send, self._served.counted(route.counted, call.table, found.dialect.problem(error)))
            return
        try:
            await self._send(found.dialect, route.endpoint, call, send, route.counted)
        finally:
            admission.leave()

    async def _send(
        self, dialect: Dialect, endpoint: Endpoint, call: Call, send: Send, counted: str | None = None
    ) -> None:
        try:
            answer = await endpoint(call)
        except ClientDisconnected:
            return
        except Exception as error:  # noqa: BLE001  (the last line: a fault of ours must not be a lost connection)
            answer = self._served.problem(dialect.problem, error)
        await send_answer(send, answer if counted is None else self._served.counted(counted, call.table, answer))


class Retelling:
    """The admin API for addresses of other protocols too: problems are told in theirs."""

    def __init__(self, admin: ASGIApp, dialects: Dialects) -> None:
        self._admin = admin
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._dialects.find(scope["path"], scope["method"]) if scope["type"] == "http" else None
        if found is None:
            await self._admin(scope, receive, send)
            return
        start: Message = {}
        problem = bytearray()

        async def retold(message: Message) -> None:
            if message["type"] == "http.response.start" and (b"content-type", PROBLEM) in message["headers"]:
                start.update(message)
            elif not start:
                await send(message)
            else:
                problem.extend(message.get("body", b""))

        await self._admin(scope, receive, retold)
        if start:
            await send_answer(send, found.dialect.problem(Told(orjson.loads(problem))))


def _by_pattern(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    found: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = found.setdefault(route.pattern(), {})
        methods[route.method] = route
        if route.method == "GET":
            methods.setdefault("HEAD", route)
    return found


def _unless_found(found: Found) -> Endpoint:
    async def refuse(call: Call) -> Answer:
        if found.routes:
            raise MethodNotAllowed(call.scope["method"], sorted(found.routes))
        raise RouteNotFound(f"nothing is served at {call.scope['path']!r}")

    return refuse
