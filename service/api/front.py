"""Lookups in front of FastAPI's router, which costs more than the lookup itself; everything else goes behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp

from service.api.admission import Admission
from service.api.answer import Answer, Receive, Scope, Send, send_answer
from service.api.body import ClientDisconnected
from service.api.errors import internal, problem
from service.api.guard import PREFIX as ADMIN
from service.api.lookup import Address, Head, LookupEndpoint, address_of
from service.api.multi_lookup import PATH as MULTI_PATH
from service.api.multi_lookup import ItemError, MultiLookupEndpoint
from service.api.prepared import Prepared
from service.api.question import Question
from service.errors import OutOfVocabulary, Overloaded, ServiceError
from service.metrics import Counters
from service.registry import TableRegistry

MULTI: Final = Address("", "multi")
ADMITTED: Final = "embedding.admitted"
"""In the scope of a lookup that has its place among those in flight already, and gives it back at its end."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """Both lookup endpoints with the one place where their errors become answers.

    The same object serves both paths: in front of the router, and behind it as a FastAPI route.
    """

    single: LookupEndpoint
    multi: MultiLookupEndpoint
    registry: TableRegistry
    counters: Counters
    admission: Admission

    async def serve(self, address: Address, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it where too many are in flight."""
        try:
            if ADMITTED not in scope:
                await self.admission.enter()
        except Overloaded:
            await send_answer(send, self.refuse(address))
            return
        try:
            await send_answer(send, await self.answer(address, scope, receive))
        except ClientDisconnected:
            return
        finally:
            self.admission.leave()

    async def answer(self, address: Address, scope: Scope, receive: Receive) -> Answer:
        """An answer for every request; raises only ClientDisconnected."""
        try:
            if address is MULTI:
                answer = await self.multi.answer(scope, receive)
            else:
                answer = await self.single.answer(address, scope, receive)
        except ClientDisconnected:
            raise
        except Exception as error:  # noqa: BLE001  (the last line: a fault of ours must not be a lost connection)
            answer = self._problem(error)
        return self._counted(address, answer)

    def answer_now(self, head: Head, body: bytes) -> tuple[Answer | Question, Prepared | None]:
        """The same for a body that is there already; a question that takes turns of the event loop comes back.

        With it comes what can be told of the next request with the same head.
        """
        try:
            found, prepared = self.single.answer_now(head, body)
        except Exception as error:  # noqa: BLE001  (as above)
            found, prepared = self._problem(error), None
        if isinstance(found, Answer):
            self._counted(head.address, found)
        return found, prepared

    async def answer_in_turns(self, address: Address, question: Question) -> Answer:
        """The answer to a question that came back."""
        try:
            answer = await self.single.answer_in_turns(question)
        except Exception as error:  # noqa: BLE001  (as above)
            answer = self._problem(error)
        return self._counted(address, answer)

    def refuse(self, address: Address) -> Answer:
        """The answer to a request that finds too many in flight."""
        return self._counted(address, _refusal(self.admission.limit))

    def _counted(self, address: Address, answer: Answer) -> Answer:
        endpoint = "multi_lookup" if address is MULTI else "lookup"
        table = address.table if address.table in self.registry.entries else ""  # bounds the metrics' memory
        self.counters.add("embedding_requests", (table, endpoint, str(answer.status)))
        return answer

    def _problem(self, error: Exception) -> Answer:
        if isinstance(error, ItemError):
            return self._refusal(error.error, {"lookup": error.index})
        return self._refusal(error) if isinstance(error, ServiceError) else internal(error)

    def _refusal(self, error: ServiceError, extra: Mapping[str, object] | None = None) -> Answer:
        if isinstance(error, OutOfVocabulary):
            self.counters.add("embedding_oov_requests", (error.table.name,))
        return problem(error, extra)


@lru_cache(maxsize=1)
def _refusal(limit: int) -> Answer:
    """Made once: many are refused at a time."""
    return problem(Overloaded(limit))


def route_of(path: str) -> Address | None:
    """The address of a lookup, None for every other path."""
    return MULTI if path == MULTI_PATH else address_of(path)


class Front:
    """The ASGI application that a server runs: lookups here, the admin API in `admin`, the rest in `behind`."""

    def __init__(self, lookups: Lookups, behind: ASGIApp, admin: ASGIApp) -> None:
        self.lookups = lookups
        self._behind = behind
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = route_of(scope["path"]) if scope["type"] == "http" else None
        if address is None:
            admin = scope["type"] == "http" and scope["path"].startswith(ADMIN)
            await (self._admin if admin else self._behind)(scope, receive, send)
            return
        await self.lookups.serve(address, scope, receive, send)
