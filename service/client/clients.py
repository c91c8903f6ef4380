"""The two clients: what they are made of, how they wait, and how they are closed. What they do is in `verbs.py`."""

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self, TypeVar, cast

import anyio
import anyio.to_thread
import httpx

from service.client.administering import AdminVerbs
from service.client.calling import Caller, Exchange, Sending, addresses_of, fields_of
from service.client.deadlines import Punctual, late, left
from service.client.looking import Lookups
from service.client.retries import Retries
from service.client.splitting import Limits
from service.client.verbs import Awaiting, Blocking

TIMEOUT: Final = httpx.Timeout(5.0)
ADMIN_TIMEOUT: Final = httpx.Timeout(5.0, read=330.0, write=60.0)
"""The server gives its workers up to `EMBEDDING_PREPARE_SECONDS`, 300 by default."""
CONNECTIONS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4.0)
"""The server closes a connection after five idle seconds: one that it is about to close is better not used."""
RETRIES: Final = Retries()
ONCE: Final = Retries(deadline=0.0)
LIMITS: Final = Limits()

_T = TypeVar("_T")
Timeout = float | httpx.Timeout


class _Blockingly:
    """An exchange that waits in its thread. Its coroutines never wait for anything else."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    async def send(self, request: httpx.Request, ends: float | None) -> httpx.Response:
        if ends is None:
            return self._http.send(request)
        response = self._http.send(request, stream=True)
        try:
            response.stream = Punctual(cast("httpx.SyncByteStream", response.stream), ends)
            response.read()
        except BaseException:  # cleaned up after, and raised on
            response.close()
            raise
        return response

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  (there is no event loop)

    async def work(self, function: Callable[[], _T]) -> _T:
        return function()


class _Awaitingly:
    """An exchange that waits in the event loop, of asyncio or trio."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, request: httpx.Request, ends: float | None) -> httpx.Response:
        if ends is None:
            return await self._http.send(request)
        with anyio.move_on_after(left(ends)):
            return await self._http.send(request)
        raise late()

    async def pause(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def work(self, function: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(function)


class _Connected(AdminVerbs):
    """What both clients are made of."""

    def __init__(
        self,
        base_url: str | Iterable[str],
        *,
        token: str | None = None,
        admin_url: str | Iterable[str] | None = None,
        timeout: Timeout = TIMEOUT,
        admin_timeout: Timeout = ADMIN_TIMEOUT,
        retries: Retries | None = RETRIES,
        limits: Limits = LIMITS,
        connections: httpx.Limits = CONNECTIONS,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        trust_env: bool = True,
    ) -> None:
        lookups = addresses_of(base_url)
        self._url = lookups[0].base
        sending = Sending(
            lookups,
            lookups if admin_url is None else addresses_of(admin_url),
            fields_of(headers or {}),
            token,
            httpx.Timeout(timeout),
            httpx.Timeout(admin_timeout),
            ONCE if retries is None else retries,
        )
        self._caller = Caller(self._exchange(limits=connections, verify=verify, trust_env=trust_env), sending)
        self._lookups = Lookups(self._caller, limits)

    @property
    def url(self) -> str:
        """The (first) address."""
        return self._url

    def _exchange(self, **options: Any) -> Exchange:  # noqa: ANN401  (arguments of httpx)
        raise NotImplementedError


class Client(Blocking, _Connected):
    """A client that blocks. Safe to use from several threads; to be made anew in a process that was forked.

    `base_url` is `http://host:8000`, or several of them, which serve the same store: the first is asked, and the next
    one where it does not answer. `token` is that of the admin API, sent with admin verbs only; `admin_url` its
    address if it has a port of its own.

    `timeout` is for each connection, each wait for bytes and each wait for a free connection, in seconds or as
    httpx.Timeout; `admin_timeout` the same for admin verbs. `retries` says how long failures are tried again, None
    that they are not. `limits` are those of the service, beyond which lookups are divided. `connections` is httpx'
    pool. `headers` go with every request; `token` takes the place of an `Authorization`. `trust_env` lets proxies and
    certificates be named by the environment, as httpx does (`NO_PROXY` excepts hosts).
    """

    def _exchange(self, **options: Any) -> Exchange:  # noqa: ANN401
        self._http = httpx.Client(**options)
        return _Blockingly(self._http)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Awaiting, _Connected):
    """The same with verbs that are awaited, in asyncio or trio, of one event loop. It takes what `Client` takes."""

    def _exchange(self, **options: Any) -> Exchange:  # noqa: ANN401
        self._http = httpx.AsyncClient(**options)
        return _Awaitingly(self._http)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
