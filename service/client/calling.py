"""One request with all its tries: where it goes, what it carries, when it is sent again. How it is sent is not said."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

import httpx

from service.client.answers import value_of, values_of
from service.client.deadlines import Timeouts
from service.client.errors import EmbeddingServiceError, error_of, fault_of, json_of, read_from
from service.client.retries import Patience, Retries, retry_after
from service.client.uploads import Upload

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
NPZ: Final = "application/x-npz"
_OF_EACH: Final = frozenset({"host", "accept", "content-type", "content-length", "transfer-encoding"})
"""Fields whose value follows from the request."""

_T = TypeVar("_T")


class Exchange(Protocol):
    """What a client does with the world, blocking or not; everything else is written once for both."""

    async def send(self, request: httpx.Request, ends: float | None) -> httpx.Response:
        """The whole answer, at `ends` (of `time.monotonic`) if that is given; raises httpx.RequestError."""
        ...

    async def pause(self, seconds: float) -> None:
        """Waits."""
        ...

    async def work(self, function: Callable[[], _T]) -> _T:
        """Does what takes long without an answer being waited for: reading and hashing a file."""
        ...


class Call(NamedTuple):
    """A request without its address. `kind`: lookups and other reads may be sent twice, changes may not.

    `probe` is a question for the state at this moment: each address is asked once at most, and every status is an
    answer.
    """

    method: str
    target: str
    kind: Literal["read", "probe", "admin read", "admin", "admin again"] = "read"
    content: bytes | Upload = b""
    content_type: str | None = None
    accept: str = JSON
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size

    @property
    def length(self) -> int | None:
        """What `Content-Length` says; None for methods that have no body."""
        return None if self.method in ("GET", "DELETE") else self.size

    @property
    def is_admin(self) -> bool:
        return self.kind.startswith("admin")

    @property
    def is_repeatable(self) -> bool:
        return self.kind != "admin"


class Address(NamedTuple):
    """A server: its origin, with a path before its own if need be, and the value of the field Host."""

    base: str
    host: str

    @classmethod
    def of(cls, url: str) -> "Address":
        """Raises ValueError for what is no address of HTTP, and for one with a name and a password."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("an address is like http://host:8000") from None
        if parsed.userinfo:  # not shown, being a secret
            raise ValueError(f"the address of {parsed.host!r} has credentials; give them as token or in headers")
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise ValueError(f"{url!r} is not like http://host:8000")
        return cls(str(parsed).rstrip("/"), parsed.netloc.decode("ascii"))


@dataclass(frozen=True, slots=True)
class Sending:
    """What a client adds to every call."""

    lookups: tuple[Address, ...]
    admin: tuple[Address, ...]
    headers: tuple[tuple[str, str], ...]
    token: str | None
    timeout: httpx.Timeout
    admin_timeout: httpx.Timeout
    retries: Retries


class Caller:
    """Makes calls through an exchange. Safe to use from several threads if the exchange is."""

    def __init__(self, exchange: Exchange, sending: Sending) -> None:
        self.exchange = exchange
        self._sending = sending
        self._once = Retries(deadline=0.0)
        self._at = 0
        self._admin_at = 0
        self.turn = 0
        """Goes up where the next answer may be one of another server than the last one."""

    async def ask(self, call: Call) -> httpx.Response:
        """The answer, a success; raises EmbeddingServiceError once all tries have failed."""
        patience = self._patience(call)
        ends = self._ends(call, patience)
        failed: set[Address] = set()
        refusal: EmbeddingServiceError | None = None
        while True:
            address = self._address(call)
            try:
                response = await self.exchange.send(self._request(call, address, ends), ends)
            except httpx.RequestError as fault:
                self.turn += not isinstance(fault, httpx.PoolTimeout)
                elsewhere = self._turn_from(address, call, failed)
                if elsewhere and call.kind == "probe":
                    continue
                pause = patience.after_fault(fault, elsewhere=elsewhere)
                if pause is None:
                    # The last try may have had a moment only: what the service has said before tells more.
                    is_late = isinstance(fault, httpx.TimeoutException)
                    raise (is_late and refusal) or fault_of(fault, address.base, patience.tries) from fault
            else:
                if response.is_success or call.kind == "probe":
                    return response
                refusal = _refusal(response)
                self.turn += response.is_server_error and self._may_be_another(refusal)
                elsewhere = response.is_server_error and self._turn_from(address, call, failed)
                pause = patience.after_answer(refusal, elsewhere=elsewhere)
                if pause is None:
                    raise refusal
            if pause > 0:
                await self.exchange.pause(pause)

    async def value(self, kind: type[_T], call: Call) -> _T:
        """The answer as a value; raises UnexpectedAnswer too."""
        response = await self.ask(call)
        with read_from(response):
            return value_of(kind, json_of(response))

    async def values(self, kind: type[_T], call: Call, name: str) -> list[_T]:
        """The list that the answer has under a name, as values; raises UnexpectedAnswer too."""
        response = await self.ask(call)
        with read_from(response):
            return values_of(kind, json_of(response).get(name))

    def _patience(self, call: Call) -> Patience:
        retries = self._once if call.kind == "probe" else self._sending.retries
        return Patience(retries, repeatable=call.is_repeatable)

    def _address(self, call: Call) -> Address:
        if call.is_admin:
            return self._sending.admin[self._admin_at]
        return self._sending.lookups[self._at]

    def _may_be_another(self, refusal: EmbeddingServiceError) -> bool:
        """Whether another server may give the next answer: not where the only one is busy."""
        return refusal.code != "overloaded" or len(self._sending.lookups) > 1

    def _turn_from(self, address: Address, call: Call, failed: set[Address]) -> bool:
        """Goes on with the next address; whether that is one which has not failed in this call."""
        failed.add(address)
        if call.is_admin:
            there, at = self._sending.admin, self._admin_at
            if there[at] == address:
                self._admin_at = (at + 1) % len(there)
        else:
            there, at = self._sending.lookups, self._at
            if there[at] == address:  # no other thread has turned from it already
                self._at = (at + 1) % len(there)
        if self._address(call) not in failed:
            return True
        failed.clear()
        return False

    def _request(self, call: Call, address: Address, ends: float | None) -> httpx.Request:
        content = call.content
        return httpx.Request(
            call.method,
            _url(address.base, call.target),
            headers=_headers(self._fields(call), address.host, call.content_type, call.accept, call.length),
            stream=httpx.ByteStream(content) if isinstance(content, bytes) else content,
            extensions={"timeout": self._timeout(call, ends)},
        )

    def _fields(self, call: Call) -> tuple[tuple[str, str], ...]:
        sending = self._sending
        fields = sending.headers + call.extra if call.extra else sending.headers
        if call.is_admin and sending.token is not None:
            others = (field for field in fields if field[0].lower() != "authorization")
            return (*others, ("Authorization", f"Bearer {sending.token}"))
        return fields

    def _ends(self, call: Call, patience: Patience) -> float | None:
        """Lookups wait no longer than to the deadline; changes take the time that they take."""
        if call.is_admin or call.kind == "probe" or self._sending.retries.deadline == 0:
            return None
        return patience.ends

    def _timeout(self, call: Call, ends: float | None) -> Mapping[str, float | None]:
        timeout = self._sending.admin_timeout if call.is_admin else self._sending.timeout
        return timeout.as_dict() if ends is None else Timeouts(timeout.as_dict(), ends)


def _refusal(response: httpx.Response) -> EmbeddingServiceError:
    error = error_of(response)
    error.retry_after = retry_after(response.headers)
    return error


@lru_cache(maxsize=4096)
def _url(base: str, target: str) -> httpx.URL:
    return httpx.URL(base + target)


@lru_cache(maxsize=4096)
def _headers(
    fields: tuple[tuple[str, str], ...], host: str, content_type: str | None, accept: str, length: int | None
) -> httpx.Headers:
    """All of a request's, made once: httpx copies the list of them."""
    found = [("Host", host), ("Accept", accept), *fields]
    if content_type is not None:
        found.append(("Content-Type", content_type))
    if length is not None:
        found.append(("Content-Length", str(length)))
    return httpx.Headers(found)


def fields_of(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The caller's fields for all requests, over the client's own; raises ValueError for those of each request."""
    found = {"user-agent": ("User-Agent", "embedding-table-client")}
    for name, value in given.items():
        if name.lower() in _OF_EACH:
            raise ValueError(f"the field {name} is set by the client and cannot be given in headers")
        found[name.lower()] = (name, value)
    return tuple(found.values())


def addresses_of(given: str | Iterable[str]) -> tuple[Address, ...]:
    """One address, or several; raises ValueError for none."""
    urls: Sequence[str] = [given] if isinstance(given, str) else list(given)
    if not urls:
        raise ValueError("there must be an address")
    return tuple(map(Address.of, urls))
