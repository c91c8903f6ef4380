"""Lookups in front of FastAPI's router, which costs more than the lookup itself; everything else goes behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp

from service.api.admission import ADMITTED, Admission
from service.api.answer import Answer, Receive, Scope, Send, send_answer
from service.api.body import ClientDisconnected
from service.api.dialects import Dialects
from service.api.errors import internal, problem
from service.api.guard import is_admin
from service.api.lookup import ENDPOINT, Address, Head, LookupEndpoint, address_of, read_head
from service.api.media import header_fields
from service.api.meter import Meter
from service.api.multi_lookup import ENDPOINT as MULTI_ENDPOINT
from service.api.multi_lookup import PATH as MULTI_PATH
from service.api.multi_lookup import ItemError, MultiLookupEndpoint
from service.api.observed import observed
from service.api.prepared import Prepared
from service.api.question import Question
from service.api.retelling import Retelling
from service.api.short import Asked, Large
from service.errors import Overloaded, ServiceError
from service.settings import Settings

MULTI: Final = Address("", "multi")


@dataclass(frozen=True, slots=True)
class Lookups:
    """Both lookup endpoints with the one place where their errors become answers.

    The same object serves both paths: in front of the router, and behind it as a FastAPI route.
    """

    single: LookupEndpoint
    multi: MultiLookupEndpoint
    meter: Meter
    admission: Admission

    async def serve(self, address: Address, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it where too many are in flight."""
        since = perf_counter()
        try:
            if ADMITTED not in scope:
                await self.admission.enter()
        except Overloaded:
            await send_answer(send, self.refuse(address))
            return
        try:
            await send_answer(send, await self.answer(address, scope, receive, since))
        except ClientDisconnected:
            return
        finally:
            self.admission.leave()

    async def answer(self, address: Address, scope: Scope, receive: Receive, since: float) -> Answer:
        """An answer for every request; raises only ClientDisconnected."""
        try:
            if address is MULTI:
                return await self.multi.answer(scope, receive, since)
            return await self.single.answer(address, scope, receive, since)
        except ClientDisconnected:
            raise
        except Exception as error:  # noqa: BLE001  (the last line: a fault of ours must not be a lost connection)
            return self._problem(address, error)

    def answer_now(self, head: Head, body: bytes, since: float) -> tuple[Answer | Question, Prepared | None]:
        """The same for a body that is there already; a question that takes turns of the event loop comes back.

        With it comes what can be told of the next request with the same head.
        """
        try:
            return self.single.answer_now(head, body, since)
        except Exception as error:  # noqa: BLE001  (as above)
            return self._problem(head.address, error), None

    async def answer_in_turns(self, address: Address, question: Question, since: float) -> Answer:
        """The answer to a question that came back."""
        try:
            return await self.single.answer_in_turns(question, since)
        except Exception as error:  # noqa: BLE001  (as above)
            return self._problem(address, error)

    def refuse(self, address: Address) -> Answer:
        """The answer to a request that finds too many in flight."""
        answer = _refusal(self.admission.limit)
        self._refused(address, answer)
        return answer

    def _problem(self, address: Address, error: Exception) -> Answer:
        cause, extra = (error.error, {"lookup": error.index}) if isinstance(error, ItemError) else (error, None)
        self.meter.told(cause)
        answer = problem(cause, extra) if isinstance(cause, ServiceError) else internal(cause)
        self._refused(address, answer, cause)
        return answer

    def _refused(self, address: Address, answer: Answer, cause: Exception | None = None) -> None:
        endpoint = MULTI_ENDPOINT if address is MULTI else ENDPOINT
        self.meter.refused(endpoint, address.table, str(answer.status), cause)


@dataclass(frozen=True, slots=True)
class AskedLookup:
    """The head of a lookup in an active version."""

    lookups: Lookups
    head: Head

    def answer_now(self, body: bytes, since: float) -> tuple[Answer | Large, Prepared | None]:
        found, prepared = self.lookups.answer_now(self.head, body, since)
        if isinstance(found, Question):
            return LargeLookup(self.lookups, self.head.address, found, since), prepared
        return found, prepared

    def refuse(self) -> Answer:
        return self.lookups.refuse(self.head.address)


@dataclass(frozen=True, slots=True)
class LargeLookup:
    """A lookup whose answer is made in turns."""

    lookups: Lookups
    address: Address
    question: Question
    since: float

    async def in_turns(self) -> Answer:
        return await self.lookups.answer_in_turns(self.address, self.question, self.since)


@lru_cache(maxsize=1)
def _refusal(limit: int) -> Answer:
    """Made once: many are refused at a time."""
    return problem(Overloaded(limit))


def route_of(path: str) -> Address | None:
    """The address of a lookup, None for every other path."""
    return MULTI if path == MULTI_PATH else address_of(path)


class Front:
    """The ASGI application that a server runs.

    Lookups are answered here, those of other protocols by `dialects`, the admin API by `admin`, the rest `behind`.
    """

    def __init__(
        self,
        lookups: Lookups,
        dialects: Dialects,
        behind: ASGIApp,
        admin: ASGIApp,
        settings: Settings,
        routes: Callable[[Scope], str | None],
    ) -> None:
        self.lookups = lookups
        self.dialects = dialects
        self._behind = behind
        self._admin = Retelling(admin, dialects)
        self._observed = observed(self.answer, settings, routes, self._is_lookup)
        self._observes_all = settings.access_log or settings.traces_ratio > 0
        self.traces = settings.traces_endpoint is not None
        """Whether requests that come with a trace have to be told of there."""

    def asked(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> Asked | None:
        """What the head of a POST says, if it is a lookup that may be answered on the short way: unobserved."""
        if self._observes_all or (self.traces and any(name == b"traceparent" for name, _ in headers)):
            return None
        path, _, query = target.partition(b"?")
        address = _address(path)
        if address is None or address.kind is not None:
            return None if address is not None else self._of_dialect(target, headers)
        try:
            return AskedLookup(self.lookups, read_head(address, header_fields(headers), query))
        except ServiceError:
            return None

    def _of_dialect(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> Asked | None:
        for dialect in self.dialects.all:
            asked = None if dialect.short is None else dialect.short(target, headers)
            if asked is not None:
                return asked
        return None

    def _is_lookup(self, scope: Scope) -> bool:
        if route_of(scope["path"]) is not None:
            return True
        found = self.dialects.find(scope["path"], scope["method"])
        route = None if found is None else found.routes.get(scope["method"])
        return route is not None and route.counted is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._observed(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that has an id already, in the log and in its trace."""
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        path = scope["path"]
        address = route_of(path)
        if address is not None:
            await self.lookups.serve(address, scope, receive, send)
        elif is_admin(path):
            await self._admin(scope, receive, send)
        elif (found := self.dialects.find(path, scope["method"])) is not None:
            await self.dialects.serve(found, scope, receive, send)
        else:
            await self._behind(scope, receive, send)


@lru_cache(maxsize=1024)
def _address(path: bytes) -> Address | None:
    """What a path names; None where it has to be read with more care."""
    if len(path) > 512 or b"%" in path or b"#" in path or not path.isascii():
        return None
    return address_of(path.decode())
