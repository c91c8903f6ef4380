"""The protocols that are served beside our own: which of them has an address, and how its requests are answered."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.api.admission import ADMITTED
from service.api.answer import Answer, Receive, Scope, Send, send_answer
from service.api.body import ClientDisconnected
from service.api.dialect import Call, Dialect, Endpoint, Route
from service.api.served import Served
from service.errors import MethodNotAllowed, Overloaded, RouteNotFound


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
        admission, meter = self._served.admission, self._served.meter
        try:
            if ADMITTED not in scope:
                await admission.enter()
        except Overloaded as error:
            answer = found.dialect.problem(error)
            meter.refused(route.counted, call.table, str(answer.status))
            await send_answer(send, answer)
            return
        try:
            await self._send(found.dialect, route.endpoint, call, send, route.counted)
        finally:
            admission.leave()

    async def _send(
        self, dialect: Dialect, endpoint: Endpoint, call: Call, send: Send, counted: str | None = None
    ) -> None:
        meter = self._served.meter
        try:
            answer = await endpoint(call)
            if counted is not None and call.looked_up is not None:
                meter.answered(counted, *call.looked_up, call.since)
        except ClientDisconnected:
            return
        except Exception as error:  # noqa: BLE001  (the last line: a fault of ours must not be a lost connection)
            answer = self._served.problem(dialect.problem, error)
            if counted is not None:
                meter.refused(counted, call.table, str(answer.status), error)
        await send_answer(send, answer)


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
