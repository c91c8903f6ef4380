"""What another protocol over the same tables is made of: its paths, its endpoints, its way of telling of errors.

The protocols themselves are in `service/dialects`, which this room does not know.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypeAlias

from service.api.answer import Answer, Receive, Scope
from service.api.body import read_timed
from service.api.served import Problem
from service.api.short import Asked
from service.types import TableVersion

_PLACE: Final = re.compile(r"\{(\w+)\}")


class Call:
    """One request: what stands in the places of its path, and what its endpoint says of it for the metrics.

    That is `table`, the name that was asked for, and what was `looked_up`: where, and how many ids. `since` is when
    the request was there.
    """

    __slots__ = ("looked_up", "names", "receive", "scope", "since", "table")

    def __init__(self, scope: Scope, receive: Receive, names: Mapping[str, str]) -> None:
        self.scope = scope
        self.receive = receive
        self.names = names
        self.table = names.get("table", "")
        self.looked_up: tuple[TableVersion, int] | None = None
        self.since = perf_counter()

    async def body(self, limit: int) -> bytes:
        """The whole body; raises RequestTooLarge beyond `limit` bytes, ClientDisconnected."""
        body, self.since = await read_timed(self.scope, self.receive, limit, self.since)
        return body


Endpoint: TypeAlias = Callable[[Call], Awaitable[Answer]]
"""Raises ServiceError and ClientDisconnected, nothing else."""


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
