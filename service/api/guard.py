"""The door of the admin API: who comes in is known by name, before a byte of the body is read."""

import re
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp

from service.api.answer import Receive, Scope, Send, send_answer
from service.api.authorization import Authorize
from service.api.errors import problem
from service.errors import RouteNotFound, ServiceError
from service.steward import Steward

PREFIX: Final = "/v1/admin/"
_CALLER: Final = "embedding.caller"
_OPEN: Final = frozenset({"/health/live"})
"""What is answered beside the admin API, for probes of a port of its own."""
_VERBS: Final = re.compile(r"/v2/repository/models/[^/]+/(load|unload)")
"""Addresses of another protocol that belong to the admin API, whichever port that has."""


def is_admin(path: str) -> bool:
    """Whether only the steward answers there."""
    return path.startswith(PREFIX) or _VERBS.fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by name, and whom."""

    name: str
    steward: Steward


class Guard:
    """The ASGI application of the steward: the admin routes of `behind`, for callers that `authorize` knows."""

    def __init__(self, behind: ASGIApp, steward: Steward, authorize: Authorize) -> None:
        self._behind = behind
        self._steward = steward
        self._authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            self._check(scope)
        except ServiceError as error:
            await send_answer(send, problem(error))
            return
        await self._behind(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path = scope["path"]
        if is_admin(path):
            scope[_CALLER] = Caller(self._authorize(scope), self._steward)
        elif path not in _OPEN:
            raise RouteNotFound(f"nothing is served at {path!r}; this is the admin API")


def caller_of(scope: Scope) -> Caller:
    """Who asks; raises RouteNotFound where the request did not come through a guard."""
    caller = scope.get(_CALLER)
    if not isinstance(caller, Caller):
        raise RouteNotFound("the admin API is not served here")
    return caller


async def closed(_scope: Scope, _receive: Receive, send: Send) -> None:
    """What stands in the place of the admin API where it has a port of its own."""
    await send_answer(send, problem(RouteNotFound("the admin API is served on a port of its own")))
